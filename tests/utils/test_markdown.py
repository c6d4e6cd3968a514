import numpy as np

from mpl_tf import report


def test_table_aligns_text_left_and_numbers_right():
    text = report.table(
        [
            {"method": "Meta Pseudo Labels", "seed": 1, "accuracy": np.float32(0.9625), "note": None},
            {"method": "UDA", "seed": 12, "accuracy": "97.1 ± 0.2", "time": "fast"},
        ]
    )
    assert text.split("\n") == [
        "| method             | seed |   accuracy | note | time |",
        "| ------------------ | ---: | ---------: | ---: | ---- |",
        "| Meta Pseudo Labels |    1 |     0.9625 |      |      |",
        "| UDA                |   12 | 97.1 ± 0.2 |      | fast |",
    ]


def test_table_keeps_markdown_whole():
    lines = report.table([{"a|b": "x | y\nz", "c": 1 / 3}]).split("\n")
    assert lines[0].startswith("| a\\|b ")
    assert lines[2].startswith("| x \\| y z | 0.3333 |")
    assert len({len(line) for line in lines}) == 1


def test_table_without_rows_is_empty():
    assert report.table([]) == ""
