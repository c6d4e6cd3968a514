"""Images in memory, in folders, in TensorFlow Datasets, and how files are decoded."""
