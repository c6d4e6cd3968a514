"""What micro-batches and rematerialized activations save of a training step's memory, and what they cost in time.

Each line is a process of its own, which makes the step three times. Its memory is how much the resident set has
grown, at its peak, since the networks, the optimizers and the batch were made. The processes return freed tensors to
the system at once, so that it is what is alive; with --heap the C library keeps them in its heap, as it is wont to.
Options: --method, --weak_view, --model, --size, --labeled, --ratio, --jit, --only, --heap.
"""

import argparse
import json
import os
import resource
import subprocess
import sys

import keras
import tensorflow as tf
import workload

import mpl_tf

SAVINGS = {
    "neither": {},
    "micro_batches=2": {"micro_batches": 2},
    "micro_batches=4": {"micro_batches": 4},
    "rematerialize": {"rematerialize": True},
    "micro_batches=4, rematerialize": {"micro_batches": 4, "rematerialize": True},
}
# glibc's own threshold grows to the size of what was freed once, up to 32 MiB; then it lies about in the heap.
RETURNING = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
METHODS = {
    "Supervised": lambda network, **_: mpl_tf.Supervised(student=network(0)),
    "UDA": lambda network, **options: mpl_tf.UDA(student=network(0), ema_decay=None, **options),
    "MetaPseudoLabels": lambda network, **options: mpl_tf.MetaPseudoLabels(
        teacher=network(0), student=network(1), ema_decay=None, **options
    ),
}


def main() -> None:
    parser = workload.parser(__doc__)
    parser.add_argument("--method", choices=METHODS, default="UDA")
    parser.add_argument("--weak_view", choices=["joint", "separate"], default="joint")
    parser.add_argument("--jit", action="store_true")
    parser.add_argument("--only", action="append", choices=list(SAVINGS))
    parser.add_argument("--heap", action="store_true")
    parser.add_argument("--child", choices=list(SAVINGS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(memory_and_time(SAVINGS[options.child], options)))
        return
    weak_view = ", weak view apart" if options.weak_view == "separate" else ""
    print(f"{options.method}{weak_view}, {workload.described(options)}{', XLA' if options.jit else ''}\n")
    print(f"{'':30s} peak MiB  part   seconds  multiple")
    first = None
    for name in options.only or SAVINGS:
        used = in_a_process(name, {} if options.heap else RETURNING)
        first = first or used
        print(
            f"{name:30s} {used['peak']:8.0f}  {used['peak'] / first['peak']:5.2f}  {used['seconds']:7.2f}"
            f"  {used['seconds'] / first['seconds']:8.2f}",
            flush=True,
        )


def in_a_process(name: str, environment: dict) -> dict:
    command = [sys.executable, __file__, *sys.argv[1:], "--child", name]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def memory_and_time(saving: dict, options) -> dict:
    """Growth of this process's resident set in MiB, and seconds of the fastest step after the first."""
    method = METHODS[options.method](
        lambda seed: workload.network(options, seed), weak_view=options.weak_view
    )
    names = method.optimizer_arguments.values()
    optimizers = {name: keras.optimizers.SGD(1e-3, momentum=0.9) for name in names}
    method.compile(**optimizers, **saving)
    data = workload.batch(options, options.labeled, options.labeled * options.ratio)
    step = tf.function(method.train_step, jit_compile=options.jit)
    before = _resident_set()
    seconds = [workload.seconds_of(step, data) for _ in range(3)]
    return {"peak": _resident_set() - before, "seconds": min(seconds[1:])}


def _resident_set():
    # Linux counts in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
