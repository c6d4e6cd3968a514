import keras
import pytest

from mpl_tf.methods.feedback.settings import NORMALIZATIONS, FeedbackSettings


@pytest.mark.parametrize(
    ("estimator", "normalization"),
    [
        ("per_example", "rms"),
        ("unrolled", "raw"),
        ("dot_product", "cosine"),
        ("loss_difference", "cosine"),
        ("none", "raw"),
    ],
)
def test_default_normalization(estimator, normalization):
    assert FeedbackSettings(estimator).normalization == normalization


@pytest.mark.parametrize("estimator", NORMALIZATIONS)
def test_only_the_scalars_need_sampled_labels(estimator):
    assert FeedbackSettings(estimator).is_scalar == (estimator in {"dot_product", "loss_difference"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"estimator": "per_exampel"},
            "feedback='per_exampel' is unknown: did you mean 'per_example'. Choose one of 'per_example'",
        ),
        (
            {"normalization": "cosine"},
            "normalization='cosine' has no meaning for the feedback 'per_example': choose 'rms' or 'raw'",
        ),
        (
            {"estimator": "dot_product", "normalization": "rms"},
            "normalization='rms' has no meaning for the feedback 'dot_product': choose 'cosine' or 'raw'",
        ),
        (
            {"estimator": "unrolled", "normalization": "rms"},
            "normalization='rms' has no meaning for the feedback 'unrolled': choose 'raw'",
        ),
        ({"cross_entropy": "average"}, "cross_entropy='average' is unknown: .*'mean', 'sum'"),
        ({"weight": -0.1}, "weight=-0.1 is out of range: pass a value of at least 0"),
        ({"weight": "strong"}, "weight='strong' is not a number"),
        ({"floor": 1.1}, "floor=1.1 is out of range: pass a value between 0 and 1"),
        (
            {"placebo": True, "estimator": "dot_product"},
            "placebo=True exchanges the feedback of single images",
        ),
        ({"weight": float("inf")}, "weight=inf is out of range"),
        ({"clip": -1.0}, "clip=-1.0 is out of range: pass a value of at least 1e-06"),
        ({"baseline_decay": 1.5}, "baseline_decay=1.5 is out of range: pass a value between 0 and 1"),
        ({"warmup_steps": -1}, "warmup_steps=-1 is out of range: pass a value of at least 0"),
        (
            {"baseline_decay": 0.9},
            "baseline_decay=0.9 is for the scalar feedbacks; 'per_example' has a value for every class",
        ),
    ],
)
def test_validation(arguments, message):
    with pytest.raises(ValueError, match=message):
        FeedbackSettings(**arguments)


def test_no_clip_is_allowed():
    assert FeedbackSettings(clip=None).clip is None


def test_settings_survive_serialization():
    settings = FeedbackSettings(
        "dot_product", weight=2.0, clip=None, baseline_decay=0.99, cross_entropy="sum", warmup_steps=7
    )
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(settings))
    assert restored == settings
    assert restored is not settings
