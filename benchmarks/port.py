"""A step of Meta Pseudo Labels here and in PyTorch, in turns: seconds, peak memory, and the ratio of both.

The step in PyTorch makes the passes of the port that people use (github.com/kekmodel/MPL-pytorch): its teacher on
labeled, weak and strong views, its student on labeled and strong ones and, after its step, on the labeled ones again.
It is written anew here, with the same network as ours, whose logits a test compares. Each step has a process of its
own; the two take turns, so that a change in the machine's load meets both. Needs torch (`pip install '.[port]'`).
Options: --model, --size, --labeled, --ratio, --turns, --only, --precision, --port_precision, --threads, --clock.
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

# Neither TensorFlow nor torch: each is in its own process, and each is in the other's way.

NUM_CLASSES = 10
PORT = "PyTorch"
# Of benchmarks/step.py: the feedback that the port means, the default, and the default's cheapest exact form.
OURS = (
    "MetaPseudoLabels loss_difference",
    "MetaPseudoLabels none",
    "MetaPseudoLabels per_example",
    "MetaPseudoLabels per_example, separate weak view",
)
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="wrn-28-2", help="any wrn-DEPTH-WIDTH")
    for name, default in (("size", 32), ("labeled", 16), ("ratio", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", action="append", choices=OURS)
    parser.add_argument(
        "--precision", default="float32", choices=["float32", "mixed_bfloat16"], help="of ours"
    )
    parser.add_argument(
        "--port_precision",
        default="float32",
        choices=["float32", "bfloat16"],
        help="bfloat16: by torch.autocast",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each process")
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        sys.exit(
            "There is nothing to compare with, since torch is not installed: pip install -c constraints.txt '.[port]'"
        )
    if options.child:
        take_turns(steps_of_port(options) if options.child == PORT else steps_of_ours(options), options)
        return
    images = f"{options.labeled} labeled and {options.labeled * options.ratio} unlabeled images"
    what = f"{options.model}, {images} of {options.size} pixels, {options.precision} and {options.port_precision}"
    print(f"{what}, {options.threads} threads, {options.clock} clock\n")
    print(f"{'':50s} seconds  PyTorch  times as fast  peak MB  PyTorch  ratio")
    for name in options.only or OURS:
        ours, port = compared([name, PORT], options.threads)
        times = statistics.median(b / a for a, b in zip(ours["seconds"], port["seconds"], strict=True))
        seconds = [statistics.median(each["seconds"]) for each in (ours, port)]
        peaks = [each["peak"] for each in (ours, port)]
        print(
            f"{name:50s} {seconds[0]:7.3f}  {seconds[1]:7.3f}  {times:13.2f}"
            f"  {peaks[0]:7.0f}  {peaks[1]:7.0f}  {peaks[0] / peaks[1]:5.2f}",
            flush=True,
        )


def compared(names: list[str], threads: int) -> list[dict]:
    """Lets processes take turns.

    Args:
        names: of the steps.
        threads: of each process.

    Returns:
        Of each the seconds of its steps but the first, and the peak of its memory in MB.
    """
    variables = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    environment = os.environ | dict.fromkeys(variables, str(threads))
    children = [
        subprocess.Popen(
            [sys.executable, __file__, *sys.argv[1:], f"--child={name}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for name in names
    ]
    results = [{} for _ in children]
    asked = True
    while asked:
        for child, result in zip(children, results, strict=True):
            child.stdin.write("step\n")
            child.stdin.flush()
            line = child.stdout.readline()
            if not line:
                sys.exit(f"{child.args[-1]} has ended with exit status {child.wait()}.")
            result |= json.loads(line)
        asked = not all(result["done"] for result in results)
    for child in children:
        child.stdin.close()
        child.wait()
    return results


def take_turns(step: Callable[[], None], options) -> None:
    """Makes a step for each line that comes in, and says how long all of them took, and the memory at its peak.

    Args:
        step: makes one.
        options: the command line's.
    """
    clock, seconds = CLOCKS[options.clock], []
    for _ in sys.stdin:
        start = clock()
        step()
        seconds.append(clock() - start)
        # Linux counts in KiB. The first step traces, or allocates.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        done = len(seconds) > options.turns
        print(json.dumps({"seconds": seconds[1:], "peak": peak, "done": done}), flush=True)


# --- the two steps ----------------------------------------------------------------------------------------


def steps_of_ours(options) -> Callable[[], None]:
    """A step of one of `OURS` on random images."""
    import keras
    import step
    import workload

    keras.config.set_dtype_policy(options.precision)
    make, *_ = step.METHODS[options.child]
    compiled = step.compiled_step(
        make(lambda seed: workload.network(options, seed)), argparse.Namespace(jit=False)
    )
    data = workload.batch(options, options.labeled, options.labeled * options.ratio)
    return lambda: workload.seconds_of(compiled, data)


def steps_of_port(options) -> Callable[[], None]:
    """A step of Meta Pseudo Labels in PyTorch on random images."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    depth, width = map(int, options.model.removeprefix("wrn-").split("-"))
    teacher, student = (torch_wide_resnet(depth, width, NUM_CLASSES) for _ in range(2))
    optimizers = [torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9) for network in (teacher, student)]
    shape = (3, options.size, options.size)
    labeled = torch.rand(options.labeled, *shape)
    labels = torch.arange(options.labeled) % NUM_CLASSES
    weak, strong = torch.rand(2, options.labeled * options.ratio, *shape)

    def logits_of(network, images):
        with torch.autocast("cpu", torch.bfloat16, enabled=options.port_precision == "bfloat16"):
            return network(images).float()

    def step() -> None:
        teacher_on_labeled, on_weak, on_strong = torch.split(
            logits_of(teacher, torch.cat([labeled, weak, strong])), [len(labeled), len(weak), len(strong)]
        )
        targets = functional.softmax(on_weak.detach(), dim=1)
        confidence, classes = targets.max(dim=1)
        consistency = -(targets * functional.log_softmax(on_strong, dim=1)).sum(dim=1)
        teacher_loss = functional.cross_entropy(teacher_on_labeled, labels)
        teacher_loss = teacher_loss + (consistency * (confidence >= 0.6)).mean()

        logits = logits_of(student, torch.cat([labeled, strong]))
        before = functional.cross_entropy(logits[: len(labeled)].detach(), labels)
        functional.cross_entropy(logits[len(labeled) :], classes).backward()
        optimizers[1].step()
        with torch.no_grad():
            after = functional.cross_entropy(logits_of(student, labeled), labels)
        guessed = functional.cross_entropy(on_strong, on_strong.detach().argmax(dim=1))
        (teacher_loss + (before - after) * guessed).backward()
        optimizers[0].step()
        for optimizer in optimizers:
            optimizer.zero_grad()

    return step


def torch_wide_resnet(depth: int, width: int, num_classes: int):
    """The network that `mpl_tf.models.build` calls wrn-depth-width, for images in -1…1, `[B, 3, H, W]`.

    Args:
        depth: 6n + 4.
        width: k.
        num_classes: K.

    Returns:
        A `torch.nn.Module`, whose parameters come in the order of ours.
    """
    import torch
    from torch import nn

    def normalized(channels):
        return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)

    def convolution(channels, filters, size, stride=1):
        return nn.Conv2d(channels, filters, size, stride, padding=size // 2, bias=False)

    class Block(nn.Module):
        def __init__(self, channels, filters, stride):
            super().__init__()
            changes = stride > 1 or channels != filters
            self.norm1 = normalized(channels)
            self.conv1 = convolution(channels, filters, 3, stride)
            self.norm2 = normalized(filters)
            self.conv2 = convolution(filters, filters, 3)
            self.shortcut = convolution(channels, filters, 1, stride) if changes else None

        def forward(self, x):
            activated = nn.functional.leaky_relu(self.norm1(x), 0.2)
            kept = x if self.shortcut is None else self.shortcut(activated)
            x = self.conv2(nn.functional.leaky_relu(self.norm2(self.conv1(activated)), 0.2))
            return x + kept

    class WideResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, blocks, channels = convolution(3, 16, 3), [], 16
            for group in range(3):
                for block in range((depth - 4) // 6):
                    filters = 16 * width * 2**group
                    blocks.append(Block(channels, filters, 2 if group and not block else 1))
                    channels = filters
            self.blocks, self.norm = nn.Sequential(*blocks), normalized(channels)
            self.logits = nn.Linear(channels, num_classes)

        def forward(self, images):
            x = nn.functional.leaky_relu(self.norm(self.blocks(self.stem(images))), 0.2)
            return self.logits(x.mean(dim=(2, 3)))

    torch.manual_seed(0)
    return WideResNet()


if __name__ == "__main__":
    main()
