"""Absl programs, one per method."""

import os
import platform

# Before TensorFlow is imported: without it a machine that has no GPU is told so in lines that look like errors.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow by itself convolves with oneDNN on newer CPUs only; without it older ones take up to three times as long.
if platform.machine().lower() in ("x86_64", "amd64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
