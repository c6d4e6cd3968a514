"""What the number of images costs by itself: time and memory of splits and batches of 10⁴ to 10⁸ images.

python benchmarks/scale.py [number of images …]

The source has labels (one image in ten has one, of 100 classes) and no pixels: what is measured is labels, indices,
the split with its files, and the look-ups of a batch. Each number has a process of its own; memory is the most that
the process had beyond what it had after its imports.
"""

import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

COUNTS = tuple(10**exponent for exponent in range(4, 9))
NUM_CLASSES = 100
LABELED_FRACTION = 0.1
BATCHES = 300
BATCH_SIZE, UNLABELED_RATIO = 64, 7


def main() -> None:
    counts = [int(float(argument)) for argument in sys.argv[1:]] or COUNTS
    names = ("draw", "read back", "first batch", "batches/s", "memory", "per image", "split files")
    print(f"{'images':>13s}" + "".join(f"{name:>14s}" for name in names))
    for count in counts:
        command = [sys.executable, __file__, "--measure", str(count)]
        finished = subprocess.run(command, capture_output=True, text=True)
        if finished.returncode:
            print(f"{count:13,d}  failed (exit status {finished.returncode}): {finished.stderr[-300:]}")
            continue
        measured = json.loads(finished.stdout.splitlines()[-1])
        shown = (
            f"{measured['draw']:.2f} s",
            f"{measured['read']:.2f} s",
            f"{measured['first']:.2f} s",
            f"{measured['rate']:,.0f}",
            f"{measured['memory'] / 2**20:,.0f} MiB",
            f"{measured['memory'] / count:,.1f} B",
            f"{measured['files'] / 2**20:,.2f} MiB",
        )
        print(f"{count:13,d}" + "".join(f"{value:>14s}" for value in shown), flush=True)


def measure(count: int) -> dict:
    import numpy as np
    import tensorflow as tf

    from mpl_tf import data
    from mpl_tf.data.images.images import content_fingerprint

    class NoImages(data.Images):
        def fetch(self, index):
            return tf.zeros([tf.shape(index)[0], *self.image_shape], tf.uint8)

        def fingerprint(self):
            return content_fingerprint("none", self.labels)

    before = peak_memory()
    labels = np.full(count, -1, np.int32)
    known = np.arange(0, count, round(1 / LABELED_FRACTION))
    labels[known] = np.arange(len(known)) % NUM_CLASSES
    names = tuple(str(number) for number in range(NUM_CLASSES))
    source = data.Source("none", names, NoImages(labels, (1, 1, 1)), flip=False)
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "split.json")
        arguments = {"num_labeled": None, "seed": 0, "validation": 0.1}
        for name in ("draw", "read"):
            start, split = time.perf_counter(), None
            split = data.load_or_draw_split(path, source, **arguments)
            seconds[name] = time.perf_counter() - start
        files = sum(entry.stat().st_size for entry in path.parent.iterdir())
    identity = data.Identity()
    start = time.perf_counter()
    batches = data.training_batches(
        source, split, batch_size=BATCH_SIZE, unlabeled_ratio=UNLABELED_RATIO, weak=identity, strong=identity
    )
    iterator = iter(batches)
    next(iterator)
    seconds["first"] = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(BATCHES):
        next(iterator)
    rate = BATCHES / (time.perf_counter() - start)
    return {**seconds, "rate": rate, "files": files, "memory": peak_memory() - before}


def peak_memory() -> int:
    """The most bytes that this process has had in memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(int(sys.argv[2]))))
    else:
        main()
