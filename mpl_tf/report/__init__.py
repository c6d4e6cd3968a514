"""What a run looks like: figures, tables and pages for people."""

from mpl_tf.report import plots
from mpl_tf.report.comparison import comparison_table, mean_and_deviation, mean_and_error
from mpl_tf.report.gain import gain_details, gain_summary, outlook, trend
from mpl_tf.report.html.comparison_page import comparison_page
from mpl_tf.report.html.render import PAGE
from mpl_tf.report.html.run_page import page
from mpl_tf.report.html.trial_drawing import check_can_draw
from mpl_tf.report.label_tables import class_rows, confidence_rows
from mpl_tf.report.summary import accuracy_with_error, comparison_summary, run_summary
from mpl_tf.utils.markdown import table

__all__ = [
    "PAGE",
    "accuracy_with_error",
    "check_can_draw",
    "class_rows",
    "comparison_page",
    "comparison_summary",
    "comparison_table",
    "confidence_rows",
    "gain_details",
    "gain_summary",
    "mean_and_deviation",
    "mean_and_error",
    "outlook",
    "page",
    "plots",
    "run_summary",
    "table",
    "trend",
]
