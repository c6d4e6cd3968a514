"""One worker of a run of Meta Pseudo Labels over TF_CONFIG, or the only process of the same run.

python -m tests.worker_program <folder> <strategy> [<step at which it kills itself>]
"""

import os
import pathlib
import signal
import sys

from mpl_tf import distribute, workers

# Before anything is computed: collective operations are set up when TensorFlow starts.
if __name__ == "__main__":
    strategy = distribute.make_strategy(sys.argv[2])

import keras

from mpl_tf import callbacks, training
from mpl_tf.methods.mpl import MetaPseudoLabels
from tests import test_training, tiny


def build():
    networks = {"teacher": tiny.plain_network("teacher"), "student": tiny.plain_network("student", seed=1)}
    method = MetaPseudoLabels(**networks, uda_ramp_steps=5)
    method.compile(*(keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True) for _ in range(2)))
    return method


def kill_at(step: int):
    """Kills this process after the step."""

    def killed(self, batch, logs=None):
        if int(self.model.step.numpy()) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    callbacks.StopOnNonFinite.on_train_batch_end = killed


def main(folder: str, name: str, *step: str):
    if step:
        kill_at(int(step[0]))
    path = pathlib.Path(folder)
    changes = {"run_dir": str(path / "run"), "export_dir": str(path / "exported"), "strategy": name}
    changes |= {"confirmation_pictures": 20, "baseline_steps": 0, "tensorboard": True, "verbose": 2}
    settings = test_training.settings(path, **changes)
    try:
        metrics = training.run(build, test_training.run_data(), settings)
    except workers.WorkerLostError as error:
        print(f"WorkerLostError: {error}", flush=True)
        os._exit(1)
    print(f"accuracy {metrics['test']['student']['accuracy']}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
