"""Absl programs, one per method."""

import os

# Before TensorFlow is imported: without it a machine that has no GPU is told so in lines that look like errors.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
