import numpy as np

from mpl_tf import data, report


def test_confidence_rows_count_each_threshold_and_the_known_truths():
    confidence, classes = np.array([0.2, 0.4, 0.6, 0.8, 1.0]), np.array([0, 1, 0, 1, 0])
    rows = report.confidence_rows(confidence, classes, np.array([0, 1, 1, -1, 0]), {0.6, 0.0})
    assert [row["confidence from"] for row in rows] == ["0", "0.6"]
    assert [(row["images"], row["fraction %"]) for row in rows] == [("5", "100.0"), ("3", "60.0")]
    (name,) = (key for key in rows[0] if key.startswith("right %"))
    assert "for information" in name
    # The fourth has no known class.
    assert [row[name] for row in rows] == ["75.0 of 4", "50.0 of 2"]
    (row,) = report.confidence_rows(confidence, classes, np.array([0, 1, 1, 1, 1]), [0.0])
    assert row[name] == "60.0"
    (unknown,) = report.confidence_rows(confidence, classes, np.full(5, -1), [0.5])
    assert set(unknown) == {"confidence from", "images", "fraction %"}


def test_class_rows_show_the_classes_predicted_most_often_in_their_order():
    classes = np.array([2, 2, 2, 0, 3, 3])
    selected = data.selection_report(classes, np.array([0, 1, 3, 3]), 4)
    rows = report.class_rows("abcd", np.linspace(0.5, 1, 6), classes, selected, most=2)
    assert [row["predicted class"] for row in rows] == ["c", "d"]
    assert list(rows[0].values()) == ["c", "3", "0.600", "2", "1", "0"]
    assert list(rows[0])[3:] == ["selected", "dropped", "copies"]
    assert [row["copies"] for row in report.class_rows("abcd", np.ones(6), classes, selected)] == list("1000")
