"""Flags of a method's own knobs, from its table of constraints.

A method declares its hyper-parameters once, see `mpl_tf.methods.constraints`: which values they may have stands in
the table, the default in the constructor's signature, the description in the docstring. A recipe makes its flags of
these. They are read from the source and not by importing it, since TensorFlow, which that would bring along, takes
seconds, and a wrong flag is to be refused at once.
"""

import ast
import dataclasses
import functools
import importlib
import importlib.util
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from absl import flags

FLAGS = flags.FLAGS

# Where a recipe starts from another value than the method does.
DEFAULTS = {"ema_decay": 0.995}
# Numbers of which 0 would mean that nothing is left, and which take it for None.
ZERO_IS_NONE = {"ema_decay", "global_clipnorm", "clip"}


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One hyper-parameter, as its source declares it.

    Args:
        name: of the constructor's argument.
        default: its default.
        description: what the docstring says about it.
        kind: name of its constraint's class: `"Number"`, `"Integer"`, `"Boolean"`, `"Choice"` or `"Settings"`.
        arguments: of the constraint.
        options: keyword arguments of the constraint.
    """

    name: str
    default: Any
    description: str
    kind: str
    arguments: tuple
    options: dict[str, Any]

    @property
    def optional(self) -> bool:
        """Whether None is a value too."""
        return self.options.get("optional", False)


class MethodFlags:
    """The flags of a class with a table of constraints.

    Args:
        module: where the class is, or what offers it.
        name: of the class.
        names: argument → flag, where they differ.
        defaults: flag → default, where the recipe's is not the method's.
        leave_out: arguments that the recipe gives itself.
        prefix: of the flags whose arguments are not in `names`.
    """

    def __init__(
        self,
        module: str,
        name: str,
        *,
        names: Mapping[str, str] | None = None,
        defaults: Mapping[str, Any] | None = None,
        leave_out: Iterable[str] = (),
        prefix: str = "",
    ):
        self._module, self._name = module, name
        self._flags, self._settings = {}, {}
        names, defaults = names or {}, DEFAULTS | dict(defaults or {})
        for parameter in parameters(module, name).values():
            # A distribution over the classes comes from the data.
            if parameter.name in leave_out or parameter.kind == "Distribution":
                continue
            if parameter.kind == "Settings":
                (kind,) = parameter.arguments
                group = {"estimator": parameter.name}
                self._settings[parameter.name] = MethodFlags(
                    *kind, names=group, prefix=f"{parameter.name}_", defaults=defaults
                )
                continue
            flag = names.get(parameter.name, prefix + parameter.name)
            self._flags[parameter.name] = flag
            # A flag that several methods share, or all recipes, is there already.
            if flag not in FLAGS:
                _define(flag, parameter, defaults.get(flag, parameter.default))

    def values(self, **changes: Any) -> dict[str, Any]:
        """The constructor's arguments that the command line gives.

        Args:
            **changes: arguments that are not the flag's.
        """
        values = {name: _value(name, flag) for name, flag in self._flags.items()}
        values |= {name: settings.make() for name, settings in self._settings.items()}
        return values | changes

    def make(self) -> Any:
        """The object itself, where flags are all that it needs."""
        return getattr(importlib.import_module(self._module), self._name)(**self.values())


def _value(name: str, flag: str) -> Any:
    value = FLAGS[flag].value
    return None if name in ZERO_IS_NONE and value == 0 else value


def _define(flag: str, parameter: Parameter, default: Any) -> None:
    low, high = parameter.options.get("low"), parameter.options.get("high")
    serializer = flags.ArgumentSerializer()
    match parameter.kind:
        case "Number":
            zero = low is None or parameter.name in ZERO_IS_NONE
            parser = flags.FloatParser(0.0 if zero else low, high)
        case "Integer":
            parser = flags.IntegerParser(0 if low is None else low, high)
        case "Choice":
            parser = flags.EnumParser(list(parameter.arguments))
        case "Boolean":
            flags.DEFINE_bool(flag, default, parameter.description)
            return
        case _:
            raise ValueError(f"There is no flag for the constraint {parameter.kind} of {parameter.name!r}.")
    if parameter.optional:
        parser = _OrNone(parser)
    flags.DEFINE(parser, flag, default, parameter.description, serializer=serializer)


class _OrNone(flags.ArgumentParser):
    """Takes the word "none" besides what another parser takes."""

    def __init__(self, parser: flags.ArgumentParser):
        super().__init__()
        self._parser = parser
        self.syntactic_help = f"{parser.syntactic_help}, or none".removeprefix(", ")

    def parse(self, argument: Any) -> Any:
        if isinstance(argument, str) and argument.lower() == "none":
            return None
        return self._parser.parse(argument)

    def flag_type(self) -> str:
        return f"{self._parser.flag_type()} or none"


# --- reading the source ---------------------------------------------------------------------------------


def parameters(module: str, name: str) -> dict[str, Parameter]:
    """The hyper-parameters of a class in the order of its constructor's arguments.

    Args:
        module: where the class is, or what offers it.
        name: of the class.
    """
    module, kind = _definition(module, name)
    defaults, descriptions = _defaults(module, kind), _descriptions(kind)
    table = _table(module, kind)
    return {
        argument: Parameter(argument, default, _sentence(descriptions.get(argument, "")), *table[argument])
        for argument, default in defaults.items()
        if argument in table
    }


def constant(module: str, name: str) -> Any:
    """The value of a constant at the top of a module, which is a literal there; of a dict, its keys.

    Args:
        module: where it is, or what offers it.
        name: what it is called.
    """
    return _value_of(*_definition(module, name))


def default(module: str, name: str, argument: str) -> Any:
    """The default of an argument of a class.

    Args:
        module: where the class is, or what offers it.
        name: of the class.
        argument: of its constructor.
    """
    return _defaults(*_definition(module, name))[argument]


@functools.cache
def _tree(module: str) -> ast.Module:
    package, *parts = module.split(".")
    # Not the spec of the module itself: that would import the packages around it.
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations
    # A module of somebody's own may be one file.
    path = pathlib.Path(folders[0], *parts) if folders else pathlib.Path(spec.origin)
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def _definition(module: str, name: str) -> tuple[str, ast.AST]:
    """The class, or the value of the constant, of this name, and the module that defines it."""
    where, origin = _origin(module, name)
    if where != module:
        return _definition(where, origin)
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
    value = _assigned(_tree(module).body, name)
    if value is None:
        raise ValueError(f"{module} defines no {name!r}.")
    return module, value


def _assigned(body: list, name: str) -> ast.expr | None:
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node.value
    return None


def _origin(module: str, name: str) -> tuple[str, str | None]:
    """Where a name of a module comes from: the module that defines it, and its name there, None for a module."""
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    whole = f"{node.module}.{alias.name}"
                    return (whole, None) if _is_module(whole) else (node.module, alias.name)
    return module, name


def _is_module(name: str) -> bool:
    try:
        _tree(name)
    except FileNotFoundError:
        return False
    return True


def _table(module: str, kind: ast.ClassDef) -> dict[str, tuple[str, tuple, dict]]:
    """Argument → constraint's name, arguments and keyword arguments."""
    declared = _assigned(kind.body, "parameter_constraints")
    if declared is None:
        return _table(*_definition(module, kind.bases[0].id))
    return _entries(module, declared)


def _entries(module: str, node: ast.expr) -> dict[str, tuple[str, tuple, dict]]:
    match node:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _entries(module, left) | _entries(module, right)
        case ast.Attribute(value=ast.Name() as owner):
            return _table(*_definition(module, owner.id))
        case ast.Dict(keys=keys, values=values):
            entries = {}
            for key, value in zip(keys, values, strict=True):
                entries |= _entries(module, value) if key is None else {key.value: _constraint(module, value)}
            return entries
    raise ValueError(f"{module} declares its parameter_constraints in a way that is not understood here.")


def _constraint(module: str, node: ast.Call) -> tuple[str, tuple, dict]:
    kind = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
    options = {keyword.arg: _value_of(module, keyword.value) for keyword in node.keywords}
    if kind == "Settings":
        return kind, (_origin(module, node.args[0].id),), options
    arguments = []
    for argument in node.args:
        if isinstance(argument, ast.Starred):
            arguments.extend(_value_of(module, argument.value))
        else:
            arguments.append(_value_of(module, argument))
    return kind, tuple(arguments), options


def _value_of(module: str, node: ast.expr) -> Any:
    match node:
        case ast.Name(id=name):
            return constant(module, name)
        case ast.Attribute(value=ast.Name(id=owner), attr=name):
            return constant(_origin(module, owner)[0], name)
        case ast.Dict(keys=keys):
            # The values may be functions; what is chosen from are the keys.
            return tuple(_value_of(module, key) for key in keys)
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            return tuple(_value_of(module, element) for element in elements)
    return ast.literal_eval(node)


def _defaults(module: str, kind: ast.ClassDef) -> dict[str, Any]:
    for node in kind.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            names = [argument.arg for argument in (*node.args.args[1:], *node.args.kwonlyargs)]
            padding = [None] * (len(node.args.args) - 1 - len(node.args.defaults))
            values = [*padding, *node.args.defaults, *node.args.kw_defaults]
            return {
                name: None if value is None else _value_of(module, value)
                for name, value in zip(names, values, strict=True)
            }
    return {
        node.target.id: None if node.value is None else _value_of(module, node.value)
        for node in kind.body
        if isinstance(node, ast.AnnAssign)
    }


def _descriptions(kind: ast.ClassDef) -> dict[str, str]:
    """Argument → what the `Args` of the docstring say about it, on one line."""
    _, _, section = (ast.get_docstring(kind) or "").partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", section, maxsplit=1)[0]
    entries = re.split(r"^    (?=\w+: )", section, flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, _, text in (entry.partition(": ") for entry in entries)}


def _sentence(description: str) -> str:
    text = description.replace("`", "")
    return text[:1].upper() + text[1:] if text[:1].isascii() else text
