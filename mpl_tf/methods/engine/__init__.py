"""What the training steps of the methods are built from."""
