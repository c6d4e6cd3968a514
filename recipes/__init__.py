"""Absl programs, one per method."""

import os
import platform

# Before TensorFlow is imported: without it a machine that has no GPU is told so in lines that look like errors.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow by itself convolves with oneDNN only on newer CPUs; on older ones it would take up to three times as long.
if platform.machine().lower() in ("x86_64", "amd64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
