"""The version, in a file that setup.cfg can read without importing TensorFlow."""

__version__ = "0.1.0"
