"""Flags of a method's own knobs, read from its source: the same that importing it would say."""

import inspect

import pytest
from absl import flags

import mpl_tf
from mpl_tf import data, models
from mpl_tf.distribute import replicas
from mpl_tf.methods.base import Method
from mpl_tf.methods.engine.optimizers import optimizer_names
from mpl_tf.models import backbones
from recipes.common import parameters, shared_flags
from tests.support.hyper_parameters import declared

CLASSES = sorted(
    name
    for name in mpl_tf.__all__
    if inspect.isclass(getattr(mpl_tf, name))
    and hasattr(getattr(mpl_tf, name), "parameter_constraints")
    and name != "Method"
)


@pytest.mark.parametrize("name", CLASSES)
def test_the_source_says_what_the_imported_class_says(name):
    kind = getattr(mpl_tf, name)
    imported, read = declared(kind), parameters.parameters("mpl_tf", name)
    assert list(read) == list(imported)
    for argument, parameter in imported.items():
        found = read[argument]
        assert found.default == parameter.default
        assert found.kind == type(parameter.constraint).__name__
        assert found.optional == parameter.constraint.optional
        if found.kind == "Settings":
            module, settings = found.arguments[0]
            assert (
                parameters.parameters(module, settings).keys() == declared(parameter.constraint.kind).keys()
            )
        else:
            assert type(parameter.constraint)(*found.arguments, **found.options) == parameter.constraint
        assert found.description.lower() == parameter.description.replace("`", "").lower()
        assert found.description


def test_every_method_is_among_them():
    methods = {
        name
        for name in mpl_tf.__all__
        if inspect.isclass(value := getattr(mpl_tf, name)) and issubclass(value, Method)
    }
    assert methods <= {*CLASSES, "Method"}
    assert "UDA" in methods


def test_constants_are_those_of_the_package():
    assert parameters.constant("mpl_tf.data", "BALANCES") == tuple(data.BALANCES)
    assert parameters.constant("mpl_tf.data", "CROPS") == tuple(data.CROPS)
    assert parameters.constant("mpl_tf.distribute", "STRATEGIES") == tuple(replicas.STRATEGIES)
    assert parameters.default("mpl_tf.data", "RandomResizedCrop", "area") == data.RandomResizedCrop.area
    assert {*models.names()} == {*shared_flags.NETWORKS, *backbones.APPLICATIONS}
    assert {*shared_flags.OPTIMIZERS} == {*optimizer_names()}


@pytest.fixture
def defined(monkeypatch):
    known = flags.FlagValues()
    monkeypatch.setattr(parameters, "FLAGS", known)
    define = flags.DEFINE
    monkeypatch.setattr(flags, "DEFINE", lambda *a, **k: define(*a, **k, flag_values=known))
    define_bool = flags.DEFINE_bool
    monkeypatch.setattr(flags, "DEFINE_bool", lambda *a, **k: define_bool(*a, **k, flag_values=known))
    return known


def test_flags_make_the_constructors_arguments(defined):
    method = parameters.MethodFlags(
        "mpl_tf", "MetaPseudoLabels", names={"uda_weight": "weight_of_uda"}, leave_out=("seed",)
    )
    defined(["recipe"])
    values = method.values()
    assert values["ema_decay"] == 0.995
    assert values["feedback"] == mpl_tf.FeedbackSettings()
    assert "seed" not in values
    defined.unparse_flags()
    chosen = ["--weight_of_uda=2", "--feedback=dot_product", "--feedback_clip=none", "--ema_decay=0"]
    defined(["recipe", *chosen, "--student_labels=sampled", "--feedback_finite_difference"])
    values = method.values(uda_ramp_steps=3)
    assert (values["uda_weight"], values["uda_ramp_steps"]) == (2.0, 3)
    assert values["ema_decay"] is None
    assert values["student_labels"] == "sampled"
    expected = mpl_tf.FeedbackSettings("dot_product", clip=None, finite_difference=True)
    assert values["feedback"] == expected


@pytest.mark.parametrize(
    "option",
    [
        "--uda_threshold=1.5",
        "--uda_temperature=0",
        "--student_labels=hard",
        "--uda_ramp_steps=1.5",
        "--ema_decay=x",
    ],
)
def test_values_out_of_bounds_are_refused_by_the_flag(defined, option):
    parameters.MethodFlags("mpl_tf", "MetaPseudoLabels")
    with pytest.raises(flags.IllegalFlagValueError, match=option.partition("=")[0].removeprefix("--")):
        defined(["recipe", option])


def test_a_flag_that_is_there_already_is_read_and_not_defined_again(defined):
    flags.DEFINE_integer("seed", 7, "Of everything.", flag_values=defined)
    method = parameters.MethodFlags("mpl_tf", "MetaPseudoLabels")
    defined(["recipe"])
    assert method.values()["seed"] == 7


OWN = '''
from mpl_tf import Method
from mpl_tf.methods.constraints import Number


class Own(Method):
    """A method.

    Args:
        student: a network.
        strength: of it.
        ema_decay: of the average.
    """

    parameter_constraints = Method.parameter_constraints | {"strength": Number(high=2.0)}

    def __init__(self, *, student, strength=0.5, ema_decay=0.9):
        self.strength = strength
'''


@pytest.mark.parametrize("module", ["one_file", "package.one_file"])
def test_a_method_of_somebodys_own_has_flags_too(defined, tmp_path, monkeypatch, module):
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path.joinpath(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(exist_ok=True)
    (path.parent / "__init__.py").touch()
    path.write_text(OWN, "utf-8")
    method = parameters.MethodFlags(module, "Own")
    defined(["recipe", "--strength=1.5"])
    assert method.values() == {"strength": 1.5, "ema_decay": parameters.DEFAULTS["ema_decay"]}
    parameters._tree.cache_clear()
