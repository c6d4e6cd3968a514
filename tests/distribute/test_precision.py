"""Which precision a machine gets, from what Linux and TensorFlow say of it."""

import pytest
import tensorflow as tf

from mpl_tf.distribute.precision import native_precision

CPUS = {
    "without": (["fpu sse avx512f"], "float32"),
    "avx512": (["fpu avx512_bf16", "fpu avx512_bf16"], "mixed_bfloat16"),
    "amx": (["fpu amx_bf16 amx_tile"], "mixed_bfloat16"),
    "one of two": (["fpu avx512_bf16", "fpu"], "float32"),
    "another word": (["fpu avx512_bf16x"], "float32"),
    "none described": ([], "float32"),
}
GPUS = {
    "Ampere": ([(8, 0)], "mixed_bfloat16"),
    "Turing": ([(7, 5)], "float32"),
    "two kinds": ([(9, 0), (7, 0)], "float32"),
    "10 is more than 8": ([(10, 0)], "mixed_bfloat16"),
    "unknown": ([None], "float32"),
}


@pytest.mark.parametrize(("flags", "expected"), CPUS.values(), ids=CPUS)
def test_cpus(flags, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    described = tmp_path / "cpuinfo"
    described.write_text("".join(f"processor\t: 0\nflags\t\t: {each}\nbugs\t\t: none\n\n" for each in flags))
    assert native_precision(described)[0] == expected
    assert native_precision(described, depthwise=True)[0] == "float32"


def test_other_systems(tmp_path, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert native_precision(tmp_path / "there is none")[0] == "float32"


@pytest.mark.parametrize(("capabilities", "expected"), GPUS.values(), ids=GPUS)
def test_gpus(capabilities, expected, tmp_path, monkeypatch):
    details = {
        f"GPU:{index}": {"compute_capability": each} if each else {}
        for index, each in enumerate(capabilities)
    }
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(details))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details.get)
    # A CPU's instructions are not asked for where a GPU computes.
    (tmp_path / "cpuinfo").write_text("flags : avx512_bf16\n")
    assert native_precision(tmp_path / "cpuinfo", depthwise=True)[0] == expected
