"""Networks: pixels 0…255 or points in, float32 logits out, with layers `features` and `logits`."""

from mpl_tf.models.calibrator import build_calibrator
from mpl_tf.models.class_names import check_class_names, get_class_names, set_class_names
from mpl_tf.models.generator import build_generator, pixel_noise
from mpl_tf.models.heads import set_head
from mpl_tf.models.initialization import copy_weights, weights_difference
from mpl_tf.models.pretrained import set_trainable, with_new_head
from mpl_tf.models.probe import REGULARIZATIONS, Probe, extract_features, fit_probe, start_head
from mpl_tf.models.registry import build, convolves_depthwise, is_pretrained, names, pretrained_names
from mpl_tf.models.resizing import get_resizing, set_resizing, warn_of_resizing
from mpl_tf.models.saving import load, save
from mpl_tf.models.surgery import clone, to_finetune

__all__ = [
    "REGULARIZATIONS",
    "Probe",
    "build",
    "build_calibrator",
    "build_generator",
    "check_class_names",
    "clone",
    "convolves_depthwise",
    "copy_weights",
    "extract_features",
    "fit_probe",
    "get_class_names",
    "get_resizing",
    "is_pretrained",
    "load",
    "names",
    "pixel_noise",
    "pretrained_names",
    "save",
    "set_class_names",
    "set_head",
    "set_resizing",
    "set_trainable",
    "start_head",
    "to_finetune",
    "warn_of_resizing",
    "weights_difference",
    "with_new_head",
]
