"""What a training step of each method costs, as a multiple of a plain supervised step on the same images.

The floor counts the passes that the mathematics needs, in forward passes of one image: a forward pass is 1, a
backward pass 2, and so is the derivative along the weights (a product for the weights' tangent and one for the
input's) of a pass that was made anyway, whose activations it keeps meanwhile. The supervised step on B + U images is
therefore 3 (B + U). The method and that step take turns, so that a change in the machine's load meets both; the
multiple is the median over the turns. Peak memory is the resident set of a process that makes nothing but the step,
against one that makes nothing but a supervised step on as many images as have their activations alive at once.
Options: --model, --size, --labeled, --ratio, --turns, --only, --jit.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import keras
import tensorflow as tf
import workload

import mpl_tf


def meta_pseudo_labels(estimator: str, *, weak_view: str = "joint", **settings):
    def make(network):
        feedback = mpl_tf.FeedbackSettings(estimator, **settings)
        return mpl_tf.MetaPseudoLabels(
            teacher=network(0), student=network(1), feedback=feedback, weak_view=weak_view, ema_decay=None
        )

    return make


# Method → how it is made; its passes per labeled and per unlabeled image; and how many images' activations the
# mathematics keeps alive at once, per labeled and per unlabeled image. Those of Meta Pseudo Labels' teacher, which
# sees three views, are kept while the student learns from one; those of the student, with the exact feedback, while
# it is measured on the labeled images.
METHODS = {
    "Supervised": (
        lambda network: mpl_tf.Supervised(student=network(0)),
        (3, 0),
        (1, 0),
    ),
    "PseudoLabels": (
        lambda network: mpl_tf.PseudoLabels(student=network(0)),
        (3, 3),
        (1, 1),
    ),
    "NoisyStudent": (
        lambda network: mpl_tf.NoisyStudent(student=network(0), ema_decay=None),
        (3, 3),
        (1, 1),
    ),
    "Distillation": (
        lambda network: mpl_tf.Distillation(teacher=network(0), student=network(1)),
        (3, 4),
        (1, 1),
    ),
    "UDA": (
        lambda network: mpl_tf.UDA(student=network(0), ema_decay=None),
        (3, 6),
        (1, 2),
    ),
    "UDA, separate weak view": (
        lambda network: mpl_tf.UDA(student=network(0), weak_view="separate", ema_decay=None),
        (3, 4),
        (1, 1),
    ),
    "ReducedMetaPseudoLabels per_example": (
        lambda network: mpl_tf.ReducedMetaPseudoLabels(
            student=network(0),
            calibrator=mpl_tf.models.build_calibrator(workload.NUM_CLASSES),
            ema_decay=None,
        ),
        (3, 5),
        (1, 1),
    ),
    "MetaPseudoLabels none": (
        meta_pseudo_labels("none"),
        (3, 9),
        (1, 3),
    ),
    "MetaPseudoLabels none, separate weak view": (
        meta_pseudo_labels("none", weak_view="separate"),
        (3, 7),
        (1, 2),
    ),
    "MetaPseudoLabels dot_product": (
        meta_pseudo_labels("dot_product"),
        (6, 9),
        (1, 3),
    ),
    "MetaPseudoLabels loss_difference": (
        meta_pseudo_labels("loss_difference"),
        (7, 9),
        (1, 3),
    ),
    "MetaPseudoLabels per_example": (
        meta_pseudo_labels("per_example"),
        (6, 11),
        (2, 3),
    ),
    "MetaPseudoLabels per_example, separate weak view": (
        meta_pseudo_labels("per_example", weak_view="separate"),
        (6, 9),
        (2, 2),
    ),
    "MetaPseudoLabels per_example, finite difference": (
        meta_pseudo_labels("per_example", finite_difference=True),
        (6, 10),
        (1, 3),
    ),
}


def main() -> None:
    parser = workload.parser(__doc__)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--only", action="append", choices=list(METHODS))
    parser.add_argument("--jit", action="store_true")
    parser.add_argument("--child", choices=["time", "memory", "pass"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure = {"time": time_against_supervised, "memory": memory_of_step, "pass": memory_of_pass}
        print(json.dumps(measure[options.child](options.only[0], options)))
        return
    reference = 3 * options.labeled * (1 + options.ratio)
    print(f"{workload.described(options)}\n")
    print(f"{'':50s} seconds  multiple  floor  above it  first step  peak MB    floor  above it")
    for name in options.only or METHODS:
        timed, used, single = (_child(name, what, options) for what in ("time", "memory", "pass"))
        floor = _total(METHODS[name][1], options) / reference
        print(
            f"{name:50s} {timed['seconds']:7.3f}  {timed['multiple']:8.2f}  {floor:5.2f}"
            f"  {timed['multiple'] / floor - 1:+8.0%}  {timed['first_step']:8.1f} s"
            f"  {used['peak']:7.0f}  {single['peak']:7.0f}  {used['peak'] / single['peak'] - 1:+8.0%}",
            flush=True,
        )


def _total(per_image: tuple, options) -> int:
    """A sum over the labeled and the unlabeled images of a step."""
    of_labeled, of_unlabeled = per_image
    return options.labeled * (of_labeled + options.ratio * of_unlabeled)


def _child(name: str, what: str, options) -> dict:
    """A measurement in a process of its own."""
    command = [sys.executable, __file__, f"--only={name}", f"--child={what}"]
    command += [f"--{key}={getattr(options, key)}" for key in ("model", "size", "labeled", "ratio", "turns")]
    command += ["--jit"] * options.jit
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compile_plainly(method, **options) -> None:
    """Compiles with plain SGD for every network that learns, and what else `compile` takes."""
    names = method.optimizer_arguments.values()
    method.compile(**{name: keras.optimizers.SGD(1e-3, momentum=0.9) for name in names}, **options)


def compiled_step(method, options):
    """The method's step as one function of the batch, and with which optimizers: plain SGD."""
    compile_plainly(method)
    # As Keras' fit traces it.
    return tf.function(method.train_step, autograph=False, jit_compile=options.jit)


def time_against_supervised(name: str, options) -> dict:
    make, *_ = METHODS[name]
    unlabeled = options.labeled * options.ratio
    began = time.perf_counter()
    step = compiled_step(make(lambda seed: workload.network(options, seed)), options)
    data = workload.batch(options, options.labeled, unlabeled)
    workload.seconds_of(step, data)
    first_step = time.perf_counter() - began
    plain = compiled_step(mpl_tf.Supervised(student=workload.network(options, 0)), options)
    plain_data = workload.batch(options, options.labeled + unlabeled, 0)
    workload.seconds_of(plain, plain_data)
    turns = [
        (workload.seconds_of(step, data), workload.seconds_of(plain, plain_data))
        for _ in range(options.turns)
    ]
    return {
        "seconds": statistics.median(mine for mine, _ in turns),
        "multiple": statistics.median(mine / other for mine, other in turns),
        "first_step": first_step,
    }


def memory_of_step(name: str, options) -> dict:
    make, *_ = METHODS[name]
    step = compiled_step(make(lambda seed: workload.network(options, seed)), options)
    return _peak(step, workload.batch(options, options.labeled, options.labeled * options.ratio))


def memory_of_pass(name: str, options) -> dict:
    """A supervised step on as many images as the method keeps the activations of, beside the method's weights."""
    make, _, alive = METHODS[name]
    method = make(lambda seed: workload.network(options, seed))
    compiled_step(method, options)
    step = compiled_step(mpl_tf.Supervised(student=workload.network(options, 0)), options)
    return _peak(step, workload.batch(options, _total(alive, options), 0))


def _peak(step, data) -> dict:
    for _ in range(3):
        workload.seconds_of(step, data)
    # Linux counts in KiB.
    return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


if __name__ == "__main__":
    main()
