"""Teacher-student learning for Keras 3 on TensorFlow."""
