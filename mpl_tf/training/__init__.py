"""A run from its first step to its last: the training loop, rounds of self-training, the end."""

from mpl_tf.training.loop import fit
from mpl_tf.training.run import Run, finetuning
from mpl_tf.training.self_training import Rounds, train_rounds

__all__ = ["Rounds", "Run", "finetuning", "fit", "train_rounds"]
