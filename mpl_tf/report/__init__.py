"""What a run looks like: pictures, tables and pages for people."""

from mpl_tf.report.comparison import comparison, comparison_table
from mpl_tf.report.comparison_page import comparison_page
from mpl_tf.report.history import curves
from mpl_tf.report.label_tables import class_rows, confidence_rows
from mpl_tf.report.labels import label_store_picture
from mpl_tf.report.page import PAGE, page
from mpl_tf.report.pictures import decision_boundaries, grid
from mpl_tf.report.tables import table
from mpl_tf.report.verdict import verdict

__all__ = [
    "PAGE",
    "class_rows",
    "comparison",
    "comparison_page",
    "comparison_table",
    "confidence_rows",
    "curves",
    "decision_boundaries",
    "grid",
    "label_store_picture",
    "page",
    "table",
    "verdict",
]
