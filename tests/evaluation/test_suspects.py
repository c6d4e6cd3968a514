import numpy as np

from mpl_tf import evaluation


def test_the_most_surely_contradicted_labels_come_first():
    probabilities = np.array(
        [[0.5, 0.4, 0.1], [0.05, 0.9, 0.05], [0.2, 0.2, 0.6], [0.98, 0.01, 0.01], [0.5, 0.01, 0.49]]
    )
    labels = np.array([1, 0, 2, 2, 1])
    found = evaluation.outcomes(np.log(probabilities), labels)
    margins = [0.5 - 0.4, 0.9 - 0.05, 0.0, 0.98 - 0.01, 0.5 - 0.01]
    np.testing.assert_allclose(evaluation.contradiction(found), margins, atol=1e-12)
    assert evaluation.suspects(found).tolist() == [3, 1, 4, 0]
    right = evaluation.outcomes(np.log(probabilities), probabilities.argmax(axis=-1))
    assert not len(evaluation.suspects(right))
