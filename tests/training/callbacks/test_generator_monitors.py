import types
import warnings

import numpy as np
import PIL.Image
import pytest

from mpl_tf.methods.dafl import DataFreeLearning
from mpl_tf.runs.folder import RunFolder
from mpl_tf.training.callbacks.generator_monitors import DrawGenerated, WarnOnCollapse
from tests.support import oracles, tiny

HEALTHY = {"class_balance": 0.9, "pairwise_distance": 60.0, "generator_gradient_norm": 1.0}


def warn_on_collapse(generator_optimizer="adam"):
    callback = WarnOnCollapse(patience=2)
    callback.set_model(types.SimpleNamespace(generator_optimizer=generator_optimizer))
    return callback


@pytest.mark.parametrize(
    ("collapsed", "message"),
    [
        (
            {"class_balance": 0.02},
            r"is 2% of the largest.*Raise entropy_weight, lower the generator's learning",
        ),
        ({"pairwise_distance": 0.4}, r"two of its images differ by 0\.4 of 255 per pixel"),
        # All pixels black: nothing leads out of it.
        ({"pairwise_distance": 0.0, "generator_gradient_norm": 0.0}, r"differ by 0\.0 of 255.*weight_decay"),
    ],
)
def test_a_generator_that_collapses_warns_once_with_the_remedy(collapsed, message):
    callback = warn_on_collapse()
    callback.on_epoch_end(0, HEALTHY | collapsed)
    with pytest.warns(UserWarning, match=message):
        callback.on_epoch_end(1, HEALTHY | collapsed)
    with warnings.catch_warnings(record=True, action="always") as caught:
        callback.on_epoch_end(2, HEALTHY | collapsed)
    assert not caught


def test_a_generator_that_recovers_or_does_not_learn_does_not_warn():
    collapsed = HEALTHY | {"class_balance": 0.0}
    learning, fixed = warn_on_collapse(), warn_on_collapse(generator_optimizer=None)
    with warnings.catch_warnings(record=True, action="always") as caught:
        for logs in (collapsed, HEALTHY, collapsed, {"loss": 1.0}, collapsed):
            learning.on_epoch_end(0, logs)
        for _ in range(3):
            fixed.on_epoch_end(0, collapsed | {"generator_gradient_norm": 0.0})
    assert not caught


def test_generated_images_are_drawn_by_the_class_that_the_teacher_sees(tmp_path):
    method = DataFreeLearning(
        teacher=tiny.plain_network("teacher"),
        student=tiny.plain_network("student", seed=1),
        generator=tiny.generator(),
    )
    callback = DrawGenerated(RunFolder(tmp_path), ("a", "b", "c"), count=40, columns=4)
    callback.set_model(method)
    rows = callback.classified()
    assert sum(int(caption.split()[1]) for caption in rows) == 40
    for caption, images in rows.items():
        logits = np.array(method.teacher(images))
        assert {"abc"[label] for label in logits.argmax(axis=-1)} == {caption[0]}
        sureness = oracles.softmax(logits.astype(np.float64)).max(axis=-1)
        assert len(images) <= 4
        assert (np.diff(sureness) < 1e-6).all()
    again = callback.classified()
    assert all(np.array_equal(rows[caption], again[caption]) for caption in rows)

    for epoch in range(2):
        callback.on_epoch_end(epoch)
    names = ["epoch_000.png", "epoch_001.png", "last.png"]
    assert sorted(path.name for path in (tmp_path / "generated").iterdir()) == names
    pixels = [np.array(PIL.Image.open(tmp_path / "generated" / name)) for name in names]
    assert np.array_equal(pixels[0], pixels[1])
    assert np.array_equal(pixels[1], pixels[2])
