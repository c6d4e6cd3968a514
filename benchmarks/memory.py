"""What micro-batches and recomputed activations save of a training step's memory, and what they cost in time.

Each line is a process of its own, which makes the step a few times. "peak" is how much its resident set has grown
since the networks, the optimizers and the batch were made. Options: --method, --model, --size, --labeled, --ratio,
--jit, --only.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import keras
import numpy as np
import tensorflow as tf

import mpl_tf

NUM_CLASSES = 10
SAVINGS = {
    "none": {},
    "micro_batches=2": {"micro_batches": 2},
    "micro_batches=4": {"micro_batches": 4},
    "recompute": {"recompute": True},
    "micro_batches=4, recompute": {"micro_batches": 4, "recompute": True},
}
METHODS = {
    "Supervised": lambda network: mpl_tf.Supervised(student=network(0)),
    "UDA": lambda network: mpl_tf.UDA(student=network(0), ema_decay=None),
    "MetaPseudoLabels": lambda network: mpl_tf.MetaPseudoLabels(
        teacher=network(0), student=network(1), ema_decay=None
    ),
}


def main():
    options = _options()
    if options.child:
        print(json.dumps(measured(options.child, options)))
        return
    print(
        f"{options.method}, {options.model}, {options.labeled} × (1 + {options.ratio}) pictures of {options.size}²"
    )
    print(f"{'':28}  peak MiB  share  seconds  multiple")
    whole = None
    for name in SAVINGS:
        if options.only in name:
            used = _child(name)
            whole = whole or used
            print(
                f"{name:28}  {used['peak']:8.0f}  {used['peak'] / whole['peak']:5.2f}  {used['seconds']:7.2f}"
                f"  {used['seconds'] / whole['seconds']:8.2f}",
                flush=True,
            )


def _options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", choices=METHODS, default="UDA")
    parser.add_argument("--model", default="wrn-28-2")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--labeled", type=int, default=8)
    parser.add_argument("--ratio", type=int, default=7)
    parser.add_argument("--jit", action="store_true")
    parser.add_argument("--only", default="", help="part of a line's name")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def _child(name: str) -> dict:
    command = [sys.executable, __file__, *sys.argv[1:], "--child", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(saving: str, options) -> dict:
    """Growth of this process's resident set in MiB, and seconds of a step."""
    shape = (options.size, options.size, 3)

    def network(seed):
        return mpl_tf.models.build(options.model, NUM_CLASSES, shape, seed=seed)

    method = METHODS[options.method](network)
    optimizers = {
        f"{role}_optimizer": keras.optimizers.SGD(1e-3, momentum=0.9) for role in method.classifiers
    }
    method.compile(**optimizers, **SAVINGS[saving])
    data = batch(shape, options.labeled, options.labeled * options.ratio)
    before = _resident_set()
    step = tf.function(method.train_step, jit_compile=options.jit)
    seconds = [_seconds_of(step, data) for _ in range(3)]
    return {"peak": _resident_set() - before, "seconds": statistics.median(seconds[1:])}


def batch(shape: tuple, labeled: int, unlabeled: int) -> dict:
    generator = np.random.default_rng(0)

    def pictures(count):
        return tf.constant(generator.uniform(0, 255, (count, *shape)).astype(np.float32))

    return {
        "labeled": {"image": pictures(labeled), "label": tf.range(labeled) % NUM_CLASSES},
        "unlabeled": {"weak": pictures(unlabeled), "strong": pictures(unlabeled)},
    }


def _seconds_of(step, data):
    start = time.perf_counter()
    float(next(iter(step(data).values())))
    return time.perf_counter() - start


def _resident_set():
    # Linux counts in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
