"""A recipe whose run makes some steps of each stage, on random images in the place of its dataset's.

python -m tests.programs.two_steps facts.json 2 digits mpl --batch_size=2

The networks, the optimizers, the views and the input pipeline are those of the recipe under its flags. What a stage
does before its first useful step is left out, so that two steps show something: no warm-up, no student that waits.
"""

import contextlib
import functools
import gc
import json
import pathlib
import resource
import runpy
import sys
import tempfile
import time
import zlib

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from mpl_tf import data, models
from mpl_tf.data.images.images import Images
from mpl_tf.data.images.tfds import mirrors_keep_labels
from mpl_tf.training import loop
from mpl_tf.training.rehearsal import Rehearsal, fill_stored_labels
from recipes.common import builders, program
from tests.support import graphs

# Dataset → shape of an image, classes, training images.
SHAPES = {
    "digits": ((8, 8, 1), 10, 1_437),
    "two_moons": ((2,), 2, 2_000),
    "mnist": ((28, 28, 1), 10, 60_000),
    "fashion_mnist": ((28, 28, 1), 10, 60_000),
    "cifar10": ((32, 32, 3), 10, 50_000),
    "cifar100": ((32, 32, 3), 100, 50_000),
    "svhn_cropped": ((32, 32, 3), 10, 604_388),
    "imagenet2012": ((None, None, 3), 1_000, 1_281_167),
}
# Preset of folders → classes, labeled and unlabeled images.
FOLDERS = {
    "celeba": (2, 182_637, 0),
    "usps": (10, 7_291, 0),
    "imagenet_resnet50": (1_000, 1_281_167, 12_800_000),
    "noisy_student_imagenet": (1_000, 1_281_167, 12_800_000),
    "large_scale": (1_000, 1_281_167, 12_800_000),
    "own_images": (5, 150, 3_000),
}


class RandomImages(Images):
    """Pixels, or points, that are drawn anew whenever they are asked for."""

    def fetch(self, index):
        shape, seed = (tf.shape(index)[0], *self.image_shape), tf.stack([0, index[0]])
        if len(self.image_shape) == 1:
            return tf.random.stateless_normal(shape, seed)
        return tf.cast(tf.random.stateless_uniform(shape, seed, 0, 256, tf.int32), tf.uint8)

    def fingerprint(self):
        return "random"


def random_source(preset, name, *, image_size=None, channels=None, flip=None, **_):
    """What `data.load` would return, but for the pixels."""
    if name == "folders":
        (classes, count, more), shape = FOLDERS[preset], (None, None, channels or 3)
    else:
        (shape, classes, count), more = SHAPES[name], 0
    if image_size is not None:
        shape = (*np.broadcast_to(image_size, 2).tolist(), shape[-1])
    labels = np.concatenate([np.arange(count) % classes, np.full(more, -1)])
    return data.Source(
        name,
        tuple(map(str, range(classes))),
        RandomImages(labels, shape),
        RandomImages(np.arange(100) % classes, shape),
        flip=mirrors_keep_labels(name) if flip is None else flip,
    )


def new_teacher(path, source):
    """What `builders.load_network` would return for a path whose last part is the name of a network."""
    name = pathlib.Path(path).name
    return models.build(name, source.num_classes, source.image_shape, class_names=source.class_names)


class TwoSteps(Rehearsal):
    """Takes the place of a run, and makes some steps of each of its stages.

    Args:
        folder: as for `Run`.
        data: as for `Run`.
        steps: how many; 0 only builds the networks.
    """

    def __init__(self, folder, data, *, steps):
        super().__init__(folder, data)
        self.steps, self.stages = steps, {}

    def train(self, stage, build, settings, *, role=None, data=None):
        self.settings[stage] = settings
        method = build()
        data = self.data if data is None else data
        facts = {
            "learners": method.learners,
            "weights": {name: getattr(method, name).count_params() for name in method.roles},
            "images": settings.batch_size * (1 + settings.unlabeled_ratio),
        }
        if self.steps:
            before = {name: checksums(getattr(method, name)) for name in method.roles}
            method.augmentation = data.augmentation(settings.seed) if method.uses_images else None
            fill_stored_labels(method)
            batches, watch = loop.training_batches(method, data, settings), Watch()
            method.fit(batches, steps_per_epoch=self.steps, verbose=0, shuffle=False, callbacks=[watch])
            moved = {
                name: float(np.mean(np.not_equal(checksums(getattr(method, name)), old)))
                for name, old in before.items()
            }
            facts |= {"losses": watch.losses, "cpu_seconds": np.diff(watch.ends).tolist(), "moved": moved}
        # Of all stages up to here.
        facts["gibibytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        self.stages[stage] = facts
        self._take_networks(stage, method, role)
        # The graph of a large network's step takes gigabytes, and holds the method that holds it.
        del method
        gc.collect()


class Watch(keras.callbacks.Callback):
    """Notes the loss of every step, and the processor time after it."""

    def __init__(self):
        super().__init__()
        self.losses, self.ends = [], []

    def on_train_begin(self, logs=None):
        self.ends.append(time.process_time())

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append({name: float(value) for name, value in logs.items() if "loss" in name})
        self.ends.append(time.process_time())


def checksums(network):
    """One number for each weight that learns."""
    return [zlib.crc32(np.ascontiguousarray(variable.numpy())) for variable in network.trainable_variables]


def main(facts_file, steps, preset, recipe, *arguments):
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    # As users' graphs are; those of ResNet-50 could not run otherwise (docs/performance.md#convolutions-by-onednn).
    graphs.set_rewriting(True)

    @contextlib.contextmanager
    def open_run(train, **_):
        for name, value in {"warmup_steps": 0, "student_wait_steps": 0, "steps_per_execution": 1}.items():
            if name in flags.FLAGS:
                flags.FLAGS[name].value = value
        program.prepare()
        builders.settle_optimizer()
        with tempfile.TemporaryDirectory() as folder:
            run = TwoSteps(folder, program.load_data(folder, write_split=False), steps=int(steps))
            train(run)
        pathlib.Path(facts_file).write_text(json.dumps(run.stages))
        sys.exit()
        yield

    program.open_run, builders.load_network = open_run, new_teacher
    program.data_module.load = functools.partial(random_source, preset)
    sys.argv = [recipe, f"--preset={preset}", *arguments]
    runpy.run_module(f"recipes.{recipe}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
