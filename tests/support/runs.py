"""Small runs: their data, methods and stages, and their story from beginning to end."""

import dataclasses
from unittest import mock

import keras
import numpy as np

from mpl_tf import data
from mpl_tf.methods.mpl import MetaPseudoLabels
from mpl_tf.methods.pseudo_labels import PseudoLabels
from mpl_tf.methods.supervised import Supervised
from mpl_tf.runs.settings import Monitoring, StageSettings
from mpl_tf.training import run as run_module
from mpl_tf.training.run import Run, finetuning
from tests.support import seeds


def run_data():
    """A hundred 4×4 images of three classes that differ in brightness."""
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 3
    images = np.clip(rng.normal(60 + 60 * labels[:, None, None, None], 30, (100, 4, 4, 1)), 0, 255)
    source = data.from_arrays(images.astype(np.uint8), labels, name="shades", flip=False)
    source = dataclasses.replace(source, test=source.train)
    split = data.draw_split(source, num_labeled=9, seed=0, validation=0.2)
    weak, strong = data.make_views(
        source.image_shape, flip=False, num_operations=0, magnitude=5.0, policy="paper", noise=0.0
    )
    return data.RunData(source=source, split=split, weak=weak, strong=strong)


def network(seed):
    seeds.set_random_seed(seed)
    images = keras.Input((4, 4, 1))
    hidden = keras.layers.Flatten()(keras.layers.Rescaling(1 / 127.5, -1)(images))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(8, "relu")(hidden))
    hidden = keras.layers.Dropout(0.3, seed=seed)(hidden)
    return keras.Model(images, keras.layers.Dense(3)(hidden))


def build(feedback="per_example", *, run_eagerly=True):
    """Meta Pseudo Labels, in eager steps: where a test is not about graphs, a few cost less than a trace."""
    method = MetaPseudoLabels(teacher=network(1), student=network(2), feedback=feedback, uda_ramp_steps=5)
    optimizers = [keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True) for _ in range(2)]
    method.compile(*optimizers, run_eagerly=run_eagerly)
    return method


def build_as_graph():
    return build(run_eagerly=False)


def build_pseudo_labels(labels="stored"):
    method = PseudoLabels(
        student=network(2),
        labels=labels,
        num_images=100,
        hard=False,
        threshold=0.0,
        ramp_start=1,
        ramp_end=5,
    )
    method.compile(keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True), run_eagerly=True)
    return method


def build_baseline():
    method = Supervised(student=network(2))
    method.compile(keras.optimizers.SGD(0.05), run_eagerly=True)
    return method


QUIET = Monitoring(verbose=0, tensorboard=False)


def stage(**changes):
    values = {"steps": 14, "epoch_steps": 4, "batch_size": 6, "unlabeled_ratio": 2}
    return StageSettings(**(values | changes))


def eager_finetuning(*arguments, **options):
    """What `Run.finetune` builds, in eager steps: a few cost less than a trace."""
    method = finetuning(*arguments, **options)
    method.run_eagerly = True
    return method


def whole_run(
    path,
    build=build,
    *,
    build_baseline=None,
    finetune_steps=3,
    data=None,
    monitoring=QUIET,
    strategy=None,
    report=False,
    export_dir=None,
    as_graph=False,
    **changes,
):
    """The story of a run as recipes tell it; `changes` are of the method's stage.

    Its fine-tuning makes eager steps but where the run is to show that it works `as_graph`, as `build` does.
    """
    with (
        mock.patch.object(run_module, "finetuning", finetuning if as_graph else eager_finetuning),
        Run(path, data or run_data(), strategy=strategy, monitoring=monitoring) as run,
    ):
        if build_baseline is not None:
            run.train("supervised", build_baseline, stage(steps=6, unlabeled_ratio=0))
        run.train("method", build, stage(**changes))
        run.finetune(steps=finetune_steps, batch_size=4)
        return run.finish(export_dir=export_dir, report=report, command="python -m recipes.test")


# A run of four epochs, of which the last is shorter than the others.
SHORT = {"steps": 7, "epoch_steps": 2}


def weights(path):
    return keras.saving.load_model(path, compile=False).get_weights()


class KilledError(Exception):
    pass
