"""Soft labels of many images on disk: stored, sharded, selected."""
