"""What TensorFlow traces, and how it rewrites the graphs of a test's process before it runs them."""

from collections.abc import Callable

import tensorflow as tf

_REWRITERS = (
    "arithmetic_optimization", "common_subgraph_elimination", "constant_folding", "dependency_optimization",
    "implementation_selector", "layout_optimizer", "loop_optimization", "remapping", "shape_optimization",
)  # fmt: skip


def set_rewriting(wanted: bool) -> None:
    """Has graphs rewritten for speed, as users' are, or only rid of what does not count.

    The latter saves time. Without even that, oneDNN's pass makes a cycle of some steps' operations.
    """
    tf.config.optimizer.set_experimental_options(dict.fromkeys(_REWRITERS, wanted))


def operations(function: Callable, *arguments) -> list[str]:
    """The types of all operations that a function is traced as."""
    graph = tf.function(function).get_concrete_function(*arguments).graph
    return [operation.type for operation in graph.get_operations()]
