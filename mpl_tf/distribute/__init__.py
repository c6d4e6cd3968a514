"""Several replicas and several workers."""
