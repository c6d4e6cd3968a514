"""A whole run on two logical CPUs under MirroredStrategy; prints its metrics as JSON.

A program of its own, because logical devices can be set only before TensorFlow has started.
"""

import json
import sys

import tensorflow as tf

from mpl_tf import evaluation, models
from mpl_tf.runs.settings import Monitoring
from mpl_tf.training.run import Run
from tests.support.runs import build_as_graph, build_baseline, run_data, stage, whole_run


def main(folder: str):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    metrics = whole_run(
        f"{folder}/run",
        build_as_graph,
        build_baseline=build_baseline,
        monitoring=Monitoring(verbose=0),
        strategy=strategy,
        as_graph=True,
        report=True,
        export_dir=f"{folder}/exported",
    )
    metrics["warm"] = warm_start(f"{folder}/warm", strategy)
    print(json.dumps(metrics))


def warm_start(folder: str, strategy: tf.distribute.Strategy) -> dict:
    """A student that starts from the best epoch of a baseline on two replicas, and has no learning rate."""

    def build_student():
        method = build_baseline()
        models.copy_weights(run.networks["supervised"], method.student)
        method.compile("sgd")
        method.student_optimizer.learning_rate.assign(0.0)
        return method

    best = stage(steps=8, unlabeled_ratio=0, select="best")
    with Run(folder, run_data(), strategy=strategy, monitoring=Monitoring(verbose=0)) as run:
        run.train("supervised", build_baseline, best)
        run.train("method", build_student, stage(steps=4, unlabeled_ratio=0))
        kernels = [run.networks[role].trainable_variables for role in ("supervised", "student")]
        accuracies = [float(row["val_accuracy"]) for row in run.folder.stage("supervised").read_history()]
        return {
            "difference": max(float(abs(a.numpy() - b.numpy()).max()) for a, b in zip(*kernels, strict=True)),
            "best": max(accuracies),
            "selected": run.selected["supervised"]["accuracy"],
            "measured": evaluation.evaluate(run.networks["supervised"], run_data().validation())["accuracy"],
        }


if __name__ == "__main__":
    main(sys.argv[1])
