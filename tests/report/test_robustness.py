import numpy as np

from mpl_tf.report import plots


def test_corruptions_have_a_bar_per_network_as_long_as_the_mean_over_the_severities():
    errors = {
        "supervised": {"fog": [0.2, 0.4], "gaussian_noise": [0.6, 0.8]},
        "student": {"fog": [0.1, 0.1], "gaussian_noise": [0.5, 0.3]},
    }
    figure = plots.corruption_errors(errors, names={"supervised": "supervised baseline"})
    (axes,) = figure.axes
    bars = [[bar.get_width() for bar in container] for container in axes.containers]
    np.testing.assert_allclose(bars, [[0.3, 0.7], [0.1, 0.4]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fog", "gaussian noise"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["supervised baseline", "student"]


def test_attacks_are_lines_over_their_strength():
    attacks = {"student": {"epsilon": [0, 2, 8], "accuracy": [0.9, 0.5, 0.1]}}
    (axes,) = plots.attack_accuracies(attacks).axes
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[0, 0.9], [2, 0.5], [8, 0.1]]
