"""Training methods, one class per file, each a keras.Model."""
