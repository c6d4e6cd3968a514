"""A run from its first step to its last: the training loop, rounds of self-training, the end."""
