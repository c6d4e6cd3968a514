"""Every training method under the conformance suite: add a line to `CASES` and it must keep every guarantee."""

import dataclasses
import functools
from collections.abc import Callable

import keras
import tensorflow as tf

from mpl_tf.methods.base import Method
from mpl_tf.methods.dafl import DataFreeLearning
from mpl_tf.methods.distillation import Distillation
from mpl_tf.methods.feedback.settings import FeedbackSettings
from mpl_tf.methods.fixmatch import FixMatch
from mpl_tf.methods.freematch import FreeMatch
from mpl_tf.methods.learning_to_reweight import LearningToReweight
from mpl_tf.methods.mpl import MetaPseudoLabels
from mpl_tf.methods.noisy_student import NoisyStudent
from mpl_tf.methods.pseudo_labels import PseudoLabels
from mpl_tf.methods.reduced_mpl import ReducedMetaPseudoLabels
from mpl_tf.methods.supervised import Supervised
from mpl_tf.methods.uda import UDA
from tests.support import tiny


def momentum():
    return keras.optimizers.SGD(0.1, momentum=0.9)


def decoupled_decay():
    # Where a gradient is zero but for its rounding, a small epsilon would make a step of it.
    return keras.optimizers.AdamW(0.05, weight_decay=0.3, epsilon=1e-3)


@dataclasses.dataclass(frozen=True)
class Case:
    """One method with settings.

    Args:
        make: takes a builder of networks, `network(name, seed=…)`, and returns the method.
        learns: the roles that have an optimizer and whose every weight moves; all others stand still.
        data: takes the number of batches and returns the dataset for `fit`.
        on_several_replicas: whether the method may run there; `"slow"` where another case stands for it, and only
            the slow tests look at it there.
        options: of `compile`, besides the optimizers.
        optimizer: makes one for each role; with momentum, so that it has a state to lose.
    """

    make: Callable[[Callable[..., keras.Model]], Method]
    learns: tuple[str, ...]
    data: Callable[..., tf.data.Dataset] = tiny.dataset
    on_several_replicas: bool | str = True
    options: dict = dataclasses.field(default_factory=dict)
    optimizer: Callable[[], keras.optimizers.Optimizer] = momentum

    def compiled(self, network: Callable[..., keras.Model] = tiny.network, **options) -> Method:
        """A new method from the same weights."""
        method = self.make(network)
        names = [method.optimizer_arguments[role] for role in self.learns]
        optimizers = {name: self.optimizer() for name in names}
        method.compile(**optimizers, **{**self.options, **options})
        return method


def supervised(network):
    return Supervised(student=network("student"), weight_decay=1e-3, global_clipnorm=5.0, ema_decay=0.9)


def learning_to_reweight(network):
    return LearningToReweight(
        student=network("student"),
        trusted_weight=0.7,
        label_smoothing=0.1,
        weight_decay=1e-3,
        global_clipnorm=5.0,
        ema_decay=0.9,
    )


def uda(network):
    return UDA(
        student=network("student"),
        threshold=0.4,
        entropy_weight=0.1,
        tsa_schedule="linear",
        tsa_steps=20,
        ema_decay=0.9,
    )


def uda_with_other_targets(network):
    return UDA(
        student=network("student"),
        threshold=0.4,
        weak_view="separate",
        class_prior=(0.5, 0.3, 0.2),
        ema_decay=None,
    )


def fixmatch(**settings):
    def make(network):
        return FixMatch(
            student=network("student"), consistency_weight=0.8, threshold=0.4, ema_decay=0.9, **settings
        )

    return make


def freematch(**settings):
    def make(network):
        return FreeMatch(
            student=network("student"),
            consistency_weight=0.8,
            fairness_weight=0.3,
            threshold_decay=0.8,
            ema_decay=0.9,
            **settings,
        )

    return make


def distillation(network):
    return Distillation(teacher=network("teacher"), student=network("student", seed=1), ema_decay=0.9)


def data_free(**settings):
    # A teacher without BatchNorm has no statistics to be compared with.
    teacher = tiny.network if "statistics_weight" in settings else None

    def make(network):
        return DataFreeLearning(
            teacher=(teacher or network)("teacher"),
            student=network("student", seed=1),
            generator=tiny.generator(network),
            weight_decay=1e-3,
            generator_weight_decay=1e-4,
            global_clipnorm=5.0,
            ema_decay=0.9,
            seed=3,
            **settings,
        )

    return make


def noisy_student(**settings):
    def make(network):
        return NoisyStudent(student=network("student"), weight_decay=1e-3, ema_decay=0.9, **settings)

    return make


def pseudo_labels(labels, **settings):
    def make(network):
        method = PseudoLabels(
            student=network("student"),
            labels=labels,
            # No defaults, and a ramp that is under way when the run is saved.
            threshold=0.35,
            labeled_weight=0.8,
            unlabeled_weight=2.0,
            ramp_start=1,
            ramp_end=9,
            prior_weight=0.8,
            entropy_weight=0.4,
            label_smoothing=0.1,
            ema_decay=0.9,
            seed=3,
            **settings,
        )
        if labels != "online":
            method.relabel(network("teacher", seed=1), tiny.unlabeled_images(6))
        return method

    return make


def meta_pseudo_labels(feedback, **settings):
    def make(network):
        return MetaPseudoLabels(
            teacher=network("teacher"),
            student=network("student", seed=1),
            feedback=feedback,
            # No defaults: a setting that is lost in saving changes how the run goes on.
            label_smoothing=0.1,
            uda_weight=4.0,
            uda_temperature=0.5,
            uda_threshold=0.4,
            uda_ramp_steps=4,
            weight_decay=1e-3,
            global_clipnorm=5.0,
            ema_decay=0.9,
            seed=3,
            **settings,
        )

    return make


def reduced_mpl(feedback, **settings):
    def make(network):
        return ReducedMetaPseudoLabels(
            student=network("student"),
            calibrator=tiny.calibrator(),
            feedback=feedback,
            labeled_weight=0.5,
            weight_decay=1e-3,
            ema_decay=0.9,
            **settings,
        )

    return make


# The literal gradient, whose sum over the batch must not depend on the number of replicas.
LITERAL = FeedbackSettings(
    "dot_product", weight=1.0, normalization="raw", cross_entropy="sum", baseline_decay=0.9
)
BOTH = ("teacher", "student")
GENERATED = ("generator", "student")

CASES = {
    "supervised": Case(
        supervised,
        learns=("student",),
        data=tiny.weighted_dataset,
        options={"backbone_learning_rate_factor": 0.3},
    ),
    # Of two replicas one has six trusted images and a cheap one, the other five and two.
    "learning to reweight": Case(
        learning_to_reweight,
        learns=("student",),
        data=functools.partial(tiny.trusted_dataset, labeled=14),
    ),
    "uda": Case(uda, learns=("student",)),
    "uda with other targets": Case(uda_with_other_targets, learns=("student",), on_several_replicas="slow"),
    "fixmatch": Case(fixmatch(), learns=("student",), on_several_replicas="slow"),
    "fixmatch soft, aligned": Case(
        fixmatch(temperature=0.5, class_prior=(0.5, 0.3, 0.2)),
        learns=("student",),
        on_several_replicas="slow",
    ),
    "freematch": Case(freematch(class_prior=(0.5, 0.3, 0.2)), learns=("student",)),
    # The careful way to fine-tune.
    "distillation": Case(
        distillation,
        learns=("student",),
        options={"backbone_learning_rate_factor": 0.3},
        optimizer=decoupled_decay,
    ),
    "noisy student soft": Case(noisy_student(), learns=("student",)),
    "noisy student hard": Case(
        noisy_student(
            targets="hard",
            unlabeled_weight=0.7,
            labeled_weight=0.5,
            loss_normalization=True,
            loss_average_decay=0.8,
        ),
        learns=("student",),
        on_several_replicas="slow",
    ),
    "reduced mpl per_example": Case(reduced_mpl("per_example"), learns=("calibrator", "student")),
    "reduced mpl dot_product": Case(
        reduced_mpl(LITERAL, feedback_on="trusted"),
        learns=("calibrator", "student"),
        data=tiny.trusted_dataset,
        on_several_replicas="slow",
    ),
    "dafl": Case(data_free(), learns=GENERATED, data=tiny.numbers),
    "dafl per example": Case(
        data_free(
            one_hot="l2",
            one_hot_weight=0.5,
            entropy_over="example",
            entropy_weight=0.3,
            activation_weight=0.7,
            statistics_weight=0.4,
            temperature=2.0,
        ),
        learns=GENERATED,
        data=tiny.numbers,
        on_several_replicas="slow",
    ),
    "pseudo labels online": Case(pseudo_labels("online", hard=False), learns=("student",)),
    "pseudo labels strong": Case(
        pseudo_labels("online", view="strong"), learns=("student",), on_several_replicas="slow"
    ),
    "pseudo labels fixed": Case(
        pseudo_labels("fixed", num_images=8), learns=("student",), on_several_replicas="slow"
    ),
    # Every replica mixes its own images, so two do not equal one.
    "pseudo labels mixed": Case(
        pseudo_labels("stored", num_images=8, hard=False, mixup=1.0),
        learns=("student",),
        on_several_replicas=False,
    ),
    "mpl none": Case(meta_pseudo_labels("none"), learns=BOTH, on_several_replicas="slow"),
    "mpl per_example": Case(meta_pseudo_labels("per_example"), learns=BOTH, data=tiny.weighted_dataset),
    # On two replicas one has two trusted images and the other has one.
    "mpl trusted": Case(
        meta_pseudo_labels(
            FeedbackSettings("per_example", normalization="raw", weight=1.0), feedback_on="trusted"
        ),
        learns=BOTH,
        data=tiny.trusted_dataset,
    ),
    "mpl loss_difference": Case(
        meta_pseudo_labels("loss_difference"), learns=BOTH, on_several_replicas="slow"
    ),
    "mpl dot_product": Case(meta_pseudo_labels(LITERAL), learns=BOTH),
    "mpl with other targets": Case(
        meta_pseudo_labels(
            "per_example",
            student_targets="weak",
            student_labeled_weight=0.5,
            uda_targets="average",
            teacher_ema_decay=0.8,
            class_prior=(0.5, 0.3, 0.2),
        ),
        learns=BOTH,
        on_several_replicas="slow",
    ),
    "mpl freematch": Case(
        meta_pseudo_labels("none", consistency="freematch", threshold_decay=0.8, fairness_weight=0.3),
        learns=BOTH,
        on_several_replicas="slow",
    ),
    "mpl saving memory": Case(
        meta_pseudo_labels("per_example"),
        learns=BOTH,
        on_several_replicas="slow",
        options={"micro_batches": 2, "rematerialize": True},
    ),
    "mpl unrolled": Case(meta_pseudo_labels("unrolled"), learns=BOTH, on_several_replicas=False),
}
