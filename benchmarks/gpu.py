"""What only a GPU can show: XLA, 16 bits, several replicas, and the step against the card's arithmetic.

Each line is a process of its own: a method under a precision, compiled or not, on one GPU or on all of this machine
under MirroredStrategy. It gives the seconds of a step, images per second, the fraction of the arithmetic that a large
matrix product of that precision reaches on the same card, and how far the losses of ten steps are from those in
float32 without XLA on one GPU. The operations of a step are counted from the networks' convolutions and dense layers
and from the passes of benchmarks/step.py. The last lines are of a whole training, with images drawn and augmented:
views made by the input pipeline, on the CPU, and inside of the step. Without a GPU it measures nothing, and says so;
--allow_cpu measures.
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
import step
import tensorflow as tf
import workload

import mpl_tf
from mpl_tf.data.run_data import RunData
from mpl_tf.methods.engine.execution import products_of_pass

# Of benchmarks/step.py.
METHODS = ("Supervised", "UDA", "MetaPseudoLabels per_example")
AUGMENTED = "UDA"
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
# Images that are drawn from, in memory.
IMAGES = 4096


def main() -> None:
    parser = workload.parser(__doc__)
    parser.set_defaults(labeled=64, ratio=7)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--allow_cpu", action="store_true")
    parser.add_argument("--child", default=None)
    options = parser.parse_args()
    if options.child:
        settings = json.loads(options.child)
        print(json.dumps((measure_augmented if "augment_on" in settings else measure)(options, **settings)))
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
                f"{label:56s} {result['seconds']:7.4f}  {result['rate']:10,.0f}  {result['fraction']:17.1%}"
                f"  {apart:12.2e}",
                flush=True,
            )
    for augment_on in ("host", "device"):
        result = _child({"augment_on": augment_on})
        label = f"{AUGMENTED}, mixed_bfloat16, XLA, views made on the {augment_on}"
        shown = result.get("refused") or f"{result['seconds']:7.4f}  {result['rate']:10,.0f}"
        print(f"{label:56s} {shown}", flush=True)
    if len(devices) < 2:
        print("\nOne GPU: MirroredStrategy over several, and XLA inside of it, were not run.")


def plan(name: str, *, several: bool) -> list:
    """The lines of a method; the first is the reference."""
    return [
        {"name": name, "precision": precision, "jit": jit, "mirrored": mirrored}
        for mirrored in (False, True)[: 1 + several]
        for precision in PRECISIONS
        for jit in (False, True)
    ]


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
    _, (of_labeled, of_unlabeled), _ = step.METHODS[name]
    with strategy.scope() if strategy else contextlib.nullcontext():
        method = compiled(name, options, jit)
    unlabeled = options.labeled * options.ratio if of_unlabeled else 0
    data = tf.data.Dataset.from_tensors(workload.batch(options, options.labeled, unlabeled)).repeat()
    losses = method.fit(data, steps_per_epoch=1, epochs=options.steps, verbose=0).history["loss"]
    seconds = seconds_of_fit(method, data, options)
    images = options.labeled + unlabeled
    passes = options.labeled * of_labeled + unlabeled * of_unlabeled
    reached = passes * 2 * products_of_pass(method.student) / seconds
    devices = strategy.num_replicas_in_sync if strategy else 1
    fraction = reached / (devices * arithmetic(method.student.compute_dtype))
    return {"seconds": seconds, "rate": images / seconds, "fraction": fraction, "losses": losses}


def measure_augmented(options, *, augment_on: str) -> dict:
    """Trains a few steps on images that are drawn and augmented, as runs do under `--augment_on`."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (IMAGES, options.size, options.size, 3), np.uint8)
    source = mpl_tf.data.from_arrays(images, np.arange(IMAGES) % workload.NUM_CLASSES)
    split = mpl_tf.data.draw_split(source, num_labeled=IMAGES // 4, seed=0)
    weak, strong = mpl_tf.data.make_views(source.image_shape, static_shapes=augment_on == "device")
    data = RunData(
        source=source, split=split, weak=weak, strong=strong, augment_in_step=augment_on == "device"
    )
    # On CPUs XLA makes views many times slower, and nobody asks for it.
    method = compiled(AUGMENTED, options, jit=bool(tf.config.list_physical_devices("GPU")))
    method.augmentation = data.augmentation(0)
    batches = data.batches(batch_size=options.labeled, unlabeled_ratio=options.ratio, seed=0, start=0)
    method.fit(batches, steps_per_epoch=2, verbose=0)
    seconds = seconds_of_fit(method, batches, options)
    return {"seconds": seconds, "rate": options.labeled * (1 + options.ratio) / seconds}


def compiled(name: str, options, jit: bool):
    """A method of benchmarks/step.py with plain SGD for every network that learns."""
    make, *_ = step.METHODS[name]
    method = make(lambda seed: workload.network(options, seed))
    step.compile_plainly(method, jit_compile=jit)
    return method


def seconds_of_fit(method, data, options) -> float:
    """How long a step takes within `fit`, which has been traced."""
    start = time.perf_counter()
    method.fit(data, steps_per_epoch=options.steps, verbose=0)
    return (time.perf_counter() - start) / options.steps


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
