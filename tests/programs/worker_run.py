"""One worker of some runs over TF_CONFIG, or the only process of the same runs.

python -m tests.programs.worker_run <folder> <strategy> [<step> | <file of labels>]

Meta Pseudo Labels with every stage in `<folder>/run`; the same with synchronized BatchNorm in `<folder>/normalized`;
Pseudo Labels in `<folder>/stored`; Noisy Student in `<folder>/noisy`. The last argument names the step of the first
run after which, or the file of the last run's labels before which, the process kills itself.
"""

import dataclasses
import os
import pathlib
import signal
import sys

from mpl_tf.distribute import replicas, workers

# Before anything is computed: collective operations are set up when TensorFlow starts.
if __name__ == "__main__":
    strategy = replicas.make_strategy(sys.argv[2])

import keras
import numpy as np

from mpl_tf.data.soft_labels.store import LabelStore
from mpl_tf.methods.mpl import MetaPseudoLabels
from mpl_tf.methods.noisy_student import NoisyStudent
from mpl_tf.methods.pseudo_labels import PseudoLabels
from mpl_tf.methods.supervised import Supervised
from mpl_tf.runs.folder import RunFolder
from mpl_tf.runs.settings import Monitoring
from mpl_tf.training import loop, self_training
from mpl_tf.training.callbacks import monitors
from mpl_tf.training.run import Run
from tests.support import runs, tiny


def optimizer():
    return keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True)


def meta_pseudo_labels(network, **options):
    method = MetaPseudoLabels(
        teacher=network("teacher"), student=network("student", seed=1), uda_ramp_steps=5
    )
    method.compile(optimizer(), optimizer(), **options)
    return method


def learner(method, **settings):
    method = method(student=tiny.plain_network("student"), **settings)
    method.compile(optimizer(), run_eagerly=True)
    return method


def kill_at(moment: str):
    """Kills this process after a step, or before it writes labels."""

    def killed_after_step(self, batch, logs=None):
        if str(int(self.model.step.numpy())) == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    if moment.isdecimal():
        monitors.StopOnNonFinite.on_train_batch_end = killed_after_step
    write = LabelStore.write

    def killed_before_writing(self, shard, probabilities):
        if f"{self.path.parent.name}/shard_{shard}" == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        print(f"{self.path.parent.name}/shard_{shard} is written", flush=True)
        write(self, shard, probabilities)

    LabelStore.write = killed_before_writing


def main(folder: str, _: str, moment: str = "never"):
    kill_at(moment)
    path = pathlib.Path(folder)
    data = runs.run_data()

    quiet = Monitoring(verbose=2, tensorboard=False, confirmation_images=0)
    short = runs.stage(steps=4, epoch_steps=2)

    def fit(name, build, data):
        folder = RunFolder(path / name, writes=workers.is_chief(strategy))
        with strategy.scope():
            method = build()
        loop.fit(method, data, short, folder, quiet)
        for role in method.roles:
            folder.save_network(role, getattr(method, role))

    try:
        runs.whole_run(
            path / "run",
            lambda: meta_pseudo_labels(tiny.plain_network),
            data=data,
            monitoring=Monitoring(verbose=2, confirmation_images=20),
            strategy=strategy,
            as_graph=True,
            # A process that is alone has no others to wait for while it exports.
            export_dir=path / "exported" if workers.worker_count(strategy) > 1 else None,
        )

        # Of the others, what is of their own: eagerly, since the first has shown that a graph is right here; nothing
        # is held out.
        unlabeled = np.union1d(data.split.unlabeled, data.split.validation)
        split = dataclasses.replace(data.split, unlabeled=unlabeled, validation=unlabeled[:0])
        data = dataclasses.replace(data, split=split)
        fit("normalized", lambda: meta_pseudo_labels(tiny.synchronized_network, run_eagerly=True), data)

        stored = {"labels": "stored", "num_images": 100, "threshold": 0.0, "ramp_start": 0, "ramp_end": 3}
        fit("stored", lambda: learner(PseudoLabels, **stored, hard=False), data)

        with Run(path / "noisy", data, strategy=strategy, monitoring=quiet) as run:
            self_training.train_rounds(
                run,
                lambda: learner(Supervised),
                lambda number, teacher: learner(NoisyStudent, ema_decay=0.9),
                short,
                self_training.Rounds(rounds=1, teacher_steps=4, label_shard_size=25),
            )
            run.finish(report=False)
    except workers.WorkerLostError as error:
        print(f"WorkerLostError: {error}", flush=True)
        os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
