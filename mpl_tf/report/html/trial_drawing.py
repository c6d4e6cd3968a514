"""A page drawn before there is anything to show, so that a run learns at its start whether its end can be drawn."""

import pathlib
import tempfile
import warnings
from collections.abc import Sequence

import numpy as np

from mpl_tf import evaluation
from mpl_tf.report import plots
from mpl_tf.report.html.run_page import page
from mpl_tf.runs.folder import RunFolder

# A matrix of 1,000 classes takes as long as one at the end of the run would.
_CLASSES, _EXAMPLES = 20, 60


def check_can_draw(class_names: Sequence[str]) -> None:
    """Draws the page and the curves of a run that never was, in a folder of its own that is removed.

    Fonts, Matplotlib, templates and class names all have to work for that; otherwise they would fail after hours,
    when the run is complete.

    Args:
        class_names: of the run.

    Raises:
        ValueError: where a page cannot be drawn, with what Matplotlib or Jinja2 said.
    """
    generator = np.random.default_rng(0)
    num_classes = min(len(class_names), _CLASSES)
    labels = np.arange(_EXAMPLES) % num_classes
    logits = generator.normal(size=(_EXAMPLES, num_classes))
    measured = evaluation.summarize(evaluation.outcomes(logits, labels), num_classes)
    history = [
        {"epoch": epoch, "step": 10 * epoch, "loss": 1 / epoch, "val_accuracy": 1 - 1 / epoch, "seconds": 1.0}
        for epoch in (1, 2)
    ]
    try:
        # What a font lacks is warned of at the end, once.
        with warnings.catch_warnings(action="ignore"), tempfile.TemporaryDirectory() as scratch:
            folder = RunFolder(scratch)
            folder.write_history(history)
            folder.write_metrics(
                {"validation": {"student": measured}, "split": "±", "seconds": {"method": 1.0}}
            )
            plots.save_png(plots.curves(folder.read_history()), pathlib.Path(scratch) / "curves.png")
            confusion = plots.confusion(np.asarray(measured["confusion"]), list(class_names[:num_classes]))
            plots.save_png(confusion, pathlib.Path(scratch) / "confusion.png")
            page(scratch)
    # Whatever a font, a template or a backend that is not as it should be raises.
    except Exception as error:
        raise ValueError(
            f"The report at the end of this run could not be drawn ({type(error).__name__}: {error}): install "
            "mpl_tf's dependencies anew, or pass --noreport to do without it."
        ) from error
