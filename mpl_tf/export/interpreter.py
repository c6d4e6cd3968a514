"""Running LiteRT models where they were made."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Model(NamedTuple):
    """A converted network.

    Attributes:
        content: of the .tflite file.
        builtin: whether it needs LiteRT's own operations only, and not TensorFlow's (the Flex delegate) too.
    """

    content: bytes
    builtin: bool


class Interpreter:
    """A LiteRT model as a function of images.

    ai-edge-litert runs it where that is installed, and otherwise TensorFlow's own interpreter.

    Args:
        model: converted.
        num_threads: that it may use.
    """

    def __init__(self, model: Model, *, num_threads: int = 1):
        self._interpreter = interpreter_class(builtin=model.builtin)(
            model_content=model.content, num_threads=num_threads
        )
        (self.input,) = self._interpreter.get_input_details()
        (self.output,) = self._interpreter.get_output_details()
        self._shape: tuple[int, ...] | None = None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, float32 `[n, K]`, of images in 0…255 or points `[n, *input_shape]` of any type."""
        if self._shape != images.shape:
            self._interpreter.resize_tensor_input(self.input["index"], images.shape)
            self._interpreter.allocate_tensors()
            self._shape = images.shape
        self._interpreter.set_tensor(self.input["index"], _quantized(images, self.input))
        self._interpreter.invoke()
        outputs = self._interpreter.get_tensor(self.output["index"])
        scale, zero = self.output["quantization"]
        return (outputs.astype(np.float32) - zero) * scale if scale else outputs


def interpreter_class(*, builtin: bool) -> Callable:
    """LiteRT's interpreter: ai-edge-litert's where it is installed and suffices, else TensorFlow's.

    Args:
        builtin: whether the model needs LiteRT's operations only. TensorFlow's interpreter alone has the others.
    """
    if builtin:
        try:
            from ai_edge_litert.interpreter import Interpreter as LiteRTInterpreter
        except ImportError:
            pass
        else:
            return LiteRTInterpreter

    def interpreter(**options):
        with warnings.catch_warnings():
            # It announces its removal each time; ai-edge-litert above takes its place.
            warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
            return tf.lite.Interpreter(**options)

    return interpreter


def _quantized(images, details):
    dtype = details["dtype"]
    if dtype == np.float32:
        return images.astype(np.float32)
    scale, zero = details["quantization"]
    limits = np.iinfo(dtype)
    return np.clip(np.rint(images / scale) + zero, limits.min, limits.max).astype(dtype)
