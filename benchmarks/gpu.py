"""What only a GPU can show: XLA, 16 bits, several replicas, and the step against the card's arithmetic.

Each line is a process of its own: a method under a precision, compiled or not, on one GPU or on all of this machine
under MirroredStrategy. It gives the seconds of a step, images per second, the share of the arithmetic that a large
matrix product of that precision reaches on the same card, and how far the losses of ten steps are from those in
float32 without XLA on one GPU. The operations of a step are counted from the networks' convolutions and dense layers
and from the passes of benchmarks/step.py. Without a GPU it measures nothing, and says so; --allow_cpu measures.
Options: --model, --size, --labeled, --ratio, --steps, --allow_cpu.
"""

import contextlib
import json
import os
import subprocess
import sys
import time

import keras
import numpy as np
import tensorflow as tf
import workload

import mpl_tf

METHODS = {
    "Supervised": (lambda network: mpl_tf.Supervised(student=network(0), ema_decay=None), (3, 0)),
    "UDA": (lambda network: mpl_tf.UDA(student=network(0), ema_decay=None), (3, 6)),
    "MetaPseudoLabels": (
        lambda network: mpl_tf.MetaPseudoLabels(teacher=network(0), student=network(1), ema_decay=None),
        (6, 12),
    ),
}
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def main() -> None:
    parser = workload.parser(__doc__)
    parser.set_defaults(labeled=128, ratio=7)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--allow_cpu", action="store_true")
    parser.add_argument("--child", default=None)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options, **json.loads(options.child))))
        return
    devices = tf.config.list_physical_devices("GPU")
    if not devices and not options.allow_cpu:
        print(
            "TensorFlow sees no GPU here, and this measures what only a GPU can show: nothing was measured."
        )
        return
    names = [
        tf.config.experimental.get_device_details(each).get("device_name", each.name) for each in devices
    ]
    print(f"{workload.described(options)}; {', '.join(names) or 'CPU'}\n")
    print(f"{'':56s} seconds  images/s  of its arithmetic  losses apart")
    for name in METHODS:
        reference = None
        for settings in plan(name, several=len(devices) > 1):
            result = _child(settings)
            label = f"{name}, {settings['precision']}{', XLA' * settings['jit']}{', all GPUs' * settings['mirrored']}"
            if "refused" in result:
                print(f"{label:56s} {result['refused']}", flush=True)
                continue
            reference = reference or result["losses"]
            apart = np.abs(np.subtract(result["losses"], reference)).max()
            print(
                f"{label:56s} {result['seconds']:7.4f}  {result['rate']:10,.0f}  {result['share']:17.1%}"
                f"  {apart:12.2e}",
                flush=True,
            )
    if len(devices) < 2:
        print("\nOne GPU: MirroredStrategy over several, and XLA inside of it, were not run.")


def plan(name: str, *, several: bool) -> list:
    """The lines of a method; the first is the reference."""
    lines = [
        {"name": name, "precision": precision, "jit": jit, "mirrored": mirrored}
        for mirrored in (False, True)[: 1 + several]
        for precision in PRECISIONS
        for jit in (False, True)
    ]
    return lines


def _child(settings: dict) -> dict:
    arguments = [word for word in sys.argv[1:] if not word.startswith("--child")]
    command = [sys.executable, __file__, *arguments, f"--child={json.dumps(settings)}"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    if done.returncode:
        # The last line of a traceback is the error.
        return {"refused": done.stderr.strip().splitlines()[-1][:160]}
    return json.loads(done.stdout.splitlines()[-1])


def measure(options, *, name: str, precision: str, jit: bool, mirrored: bool) -> dict:
    """Trains a few steps through `fit`, first to compile, then against the clock."""
    keras.config.set_dtype_policy(precision)
    strategy = tf.distribute.MirroredStrategy() if mirrored else None
    make, (of_labeled, of_unlabeled) = METHODS[name]
    with strategy.scope() if strategy else contextlib.nullcontext():
        method = make(lambda seed: workload.network(options, seed))
        roles = [role for role in ("teacher", "student") if role in method.roles]
        optimizers = {f"{role}_optimizer": keras.optimizers.SGD(1e-3, momentum=0.9) for role in roles}
        method.compile(**optimizers, jit_compile=jit)
    unlabeled = options.labeled * options.ratio if of_unlabeled else 0
    data = tf.data.Dataset.from_tensors(workload.batch(options, options.labeled, unlabeled)).repeat()
    losses = method.fit(data, steps_per_epoch=1, epochs=options.steps, verbose=0).history["loss"]
    start = time.perf_counter()
    method.fit(data, steps_per_epoch=options.steps, verbose=0)
    seconds = (time.perf_counter() - start) / options.steps
    images = options.labeled + unlabeled
    passes = options.labeled * of_labeled + unlabeled * of_unlabeled
    reached = passes * operations(method.student) / seconds
    devices = strategy.num_replicas_in_sync if strategy else 1
    share = reached / (devices * arithmetic(method.student.compute_dtype))
    return {"seconds": seconds, "rate": images / seconds, "share": share, "losses": losses}


def operations(network: keras.Model) -> float:
    """Multiplications and additions of one image's forward pass, in convolutions and dense layers."""
    total = 0
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            height, width, channels = layer.output.shape[1:]
            total += 2 * height * width * channels * int(np.prod(layer.kernel.shape[:3]))
        elif isinstance(layer, keras.layers.Dense):
            total += 2 * int(np.prod(layer.kernel.shape))
    return float(total)


def arithmetic(dtype: str, size: int = 4096, repeats: int = 10) -> float:
    """Operations per second of a large matrix product on one device."""
    size = size if tf.config.list_physical_devices("GPU") else size // 4
    matrix = tf.cast(tf.random.normal([size, size]), dtype)
    product = tf.function(lambda x: tf.matmul(x, x))
    product(matrix).numpy()
    start = time.perf_counter()
    for _ in range(repeats):
        result = product(matrix)
    result.numpy()
    return repeats * 2 * size**3 / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
