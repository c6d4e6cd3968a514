"""Which 16 bits this machine multiplies by instructions of its own, if any."""

import os
import pathlib

import tensorflow as tf

# What Linux calls the instructions of CPUs that multiply bfloat16.
CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
# The first compute capability of GPUs with products of bfloat16, Ampere's.
COMPUTE_CAPABILITY = (8, 0)


def native_precision(
    cpu_info: str | os.PathLike = "/proc/cpuinfo", *, depthwise: bool = False
) -> tuple[str, str]:
    """The policy under which this machine computes fastest, as far as its instructions tell.

    Args:
        cpu_info: where Linux describes its CPUs.
        depthwise: whether networks have depthwise convolutions, of which TensorFlow's gradients in bfloat16 take a
            CPU several times as long (`benchmarks/precision.py`).

    Returns:
        `"mixed_bfloat16"` where all GPUs, or where there is none the CPU, multiply bfloat16 by instructions of their
        own, else `"float32"`; and the reason, in words.
    """
    if gpus := tf.config.list_physical_devices("GPU"):
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        lowest = min(each.get("compute_capability") or (0, 0) for each in details)
        shown = ".".join(map(str, lowest))
        if lowest >= COMPUTE_CAPABILITY:
            return "mixed_bfloat16", f"GPU of compute capability {shown}"
        return "float32", f"GPU of compute capability {shown}, below 8.0"
    if found := sorted(CPU_FLAGS & _cpu_flags(cpu_info)):
        instructions = f"CPU with {' and '.join(found)}"
        if depthwise:
            return "float32", f"{instructions}, but depthwise convolutions"
        return "mixed_bfloat16", instructions
    return "float32", "no GPU, and no CPU that says it has bfloat16"


def _cpu_flags(cpu_info):
    """The flags that all CPUs have; none on other systems."""
    source = pathlib.Path(cpu_info)
    if not source.is_file():
        return set()
    lines = source.read_text(encoding="utf-8", errors="replace").splitlines()
    of_each = [set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")]
    return set.intersection(*of_each) if of_each else set()
