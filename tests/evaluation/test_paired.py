import itertools

import numpy as np
import pytest

from mpl_tf.evaluation import paired_difference


def outcomes(both, wins, losses, neither):
    table = (
        [(True, True)] * both + [(True, False)] * wins + [(False, True)] * losses + [(False, False)] * neither
    )
    return np.array(table).T


def test_the_difference_is_that_of_the_accuracies():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 50)) < 0.6
    found = paired_difference(first, second)
    assert found["difference"] == pytest.approx(first.mean() - second.mean())
    assert found["wins"] == sum(a and not b for a, b in zip(first, second, strict=True))
    assert found["losses"] == sum(b and not a for a, b in zip(first, second, strict=True))
    assert found["count"] == 50


def test_the_standard_error_is_that_of_differences_with_half_an_image_in_each_cell():
    for cells in itertools.product((0, 3, 10), repeat=4):
        if not sum(cells):
            continue
        found = paired_difference(*outcomes(*cells))
        # Each cell is a difference of 0, 1, −1 or 0, with half an image more.
        values, weights = np.array([0.0, 1.0, -1.0, 0.0]), np.array(cells) + 0.5
        mean = np.average(values, weights=weights)
        variance = np.average((values - mean) ** 2, weights=weights) / weights.sum()
        assert found["standard_error"] == pytest.approx(np.sqrt(variance))
        assert found["standard_error"] > 0


def test_networks_on_other_images_are_refused():
    with pytest.raises(ValueError, match="asked about 2 and 3 images"):
        paired_difference([True, False], [True, True, False])
    with pytest.raises(ValueError, match="at least on one"):
        paired_difference([], [])
