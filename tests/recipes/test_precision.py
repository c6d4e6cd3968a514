"""--precision=auto: the machine's where a run begins, and the run's where it goes on."""

import keras
import pytest
from absl import flags

from mpl_tf.runs.folder import RunFolder
from recipes.common import precision


@pytest.fixture
def values(monkeypatch):
    made = flags.FlagValues()
    flags.DEFINE_string("precision", "auto", "", flag_values=made)
    flags.DEFINE_string("strategy", "default", "", flag_values=made)
    made(["recipe"])
    monkeypatch.setattr(precision, "FLAGS", made)

    def native_precision(*, depthwise):
        return "float32" if depthwise else "mixed_bfloat16", "CPU with amx_bf16"

    monkeypatch.setattr(precision, "native_precision", native_precision)
    monkeypatch.setattr(precision.builders, "network_names", lambda: ["convnet"])
    return made


def test_a_run_that_begins_has_the_machines_and_says_so(values, tmp_path, capsys):
    precision.settle(RunFolder(tmp_path))
    assert values.precision == "mixed_bfloat16"
    assert capsys.readouterr().out == "precision: mixed_bfloat16 (CPU with amx_bf16)\n"


def test_one_network_with_depthwise_convolutions_is_enough(values, tmp_path, monkeypatch):
    def file(name, layer):
        layers = [keras.layers.GroupNormalization(2), layer, keras.layers.Flatten(), keras.layers.Dense(2)]
        inner = keras.Sequential([keras.Input((4, 4, 2)), *layers])
        keras.Sequential([keras.Input((4, 4, 2)), inner]).save(tmp_path / name)
        return str(tmp_path / name)

    plain = file("plain.keras", keras.layers.Conv2D(2, 3))
    depthwise = [
        ["convnet", "mobilenetv2"],
        [plain, file("depthwise.keras", keras.layers.DepthwiseConv2D(3))],
        [file("grouped.keras", keras.layers.Conv2D(2, 3, groups=2))],
    ]
    for names, expected in [
        (["convnet", plain], "mixed_bfloat16"),
        *((each, "float32") for each in depthwise),
    ]:
        monkeypatch.setattr(precision.builders, "network_names", lambda names=names: names)
        values.precision = "auto"
        precision.settle(RunFolder(tmp_path / "run"))
        assert values.precision == expected


@pytest.mark.parametrize("trained", [True, False])
def test_a_run_that_goes_on_elsewhere_keeps_its_own(values, tmp_path, trained):
    folder = RunFolder(tmp_path)
    folder.verify_or_write_config({"precision": "float32"})
    if trained:
        (tmp_path / "metrics.json").write_text("{}")
    assert folder.has_results() == trained
    precision.settle(folder)
    assert values.precision == ("float32" if trained else "mixed_bfloat16")


def test_what_was_asked_for_stays(values, tmp_path, capsys):
    values.precision = "mixed_float16"
    precision.settle(RunFolder(tmp_path))
    assert values.precision == "mixed_float16"
    assert not capsys.readouterr().out


def test_several_machines_may_differ(values, tmp_path):
    values.strategy = "multi_worker"
    with pytest.raises(ValueError, match=r"precision=auto with .*: machines may differ, so pass float32 or"):
        precision.settle(RunFolder(tmp_path))
