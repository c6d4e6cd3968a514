"""The settings of a run: how long a stage trains and on which batches, and what is measured meanwhile."""

import dataclasses

from mpl_tf.utils.validation import check_choice, check_integer

ON_COLLAPSE = ("warn", "stop")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageSettings:
    """How long one stage of a run trains, and on which batches.

    Args:
        steps: updates of the method.
        epoch_steps: updates between two validations, history rows and checkpoints.
        batch_size: B, labeled images per update over all replicas.
        unlabeled_ratio: μ, unlabeled images per labeled one; 0 for a method that learns from labels alone.
        seed: of the order of the images and their augmentation.
        select: `"last"` ends with the weights of the last epoch; `"best"` with those of the epoch after which the
            network of inference was right most often on the validation images, the later of equal ones.

    Raises:
        ValueError: for a value out of range.
    """

    steps: int
    epoch_steps: int
    batch_size: int
    unlabeled_ratio: int = 0
    seed: int = 0
    select: str = "last"

    def __post_init__(self):
        check_choice("select", self.select, ("last", "best"))
        for name in ("steps", "epoch_steps", "batch_size"):
            check_integer(name, getattr(self, name), low=1)
        for name in ("unlabeled_ratio", "seed"):
            check_integer(name, getattr(self, name), low=0)

    @property
    def images(self) -> int:
        """How many images, labeled and unlabeled, all updates together learn from."""
        return self.steps * self.batch_size * (1 + self.unlabeled_ratio)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Monitoring:
    """What is shown and measured while a run trains; what it computes depends on none of it.

    Args:
        verbose: as in `keras.Model.fit`.
        tensorboard: whether to write event files into `<run_dir>/tensorboard`.
        confirmation_images: unlabeled images, of known class where there are any, on which each epoch's
            confirmation bias and classes are measured, at most; 0 measures none.
        on_collapse: `"warn"` of a student that has fallen far behind its teacher, as a too strong feedback makes it,
            or `"stop"` the run.

    Raises:
        ValueError: for a value out of range.
    """

    verbose: int | str = "auto"
    tensorboard: bool = True
    confirmation_images: int = 1000
    on_collapse: str = "warn"

    def __post_init__(self):
        check_integer("confirmation_images", self.confirmation_images, low=0)
        check_choice("on_collapse", self.on_collapse, ON_COLLAPSE)
