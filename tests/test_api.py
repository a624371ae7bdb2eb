"""What plugins may rely on, frozen in tests/api.txt; written anew by `python tests/test_api.py > tests/api.txt`."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from hyocr_core import API_VERSION
from hyocr_core.cli.methods import methods
from hyocr_core.contract import hookspecs
from hyocr_core.contract.hookspecs import hookspec
from hyocr_core.plugin import registry
from hyocr_core.plugin.registry import load_method

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

FROZEN = Path(__file__).with_name("api.txt")
MODULES = ("", ".formats", ".kit", ".testing")
FIXTURE = type(pytest.fixture(lambda: None))
REGENERATE = "python tests/test_api.py > tests/api.txt"


def surface() -> Iterator[str]:
    """One line for each thing a plugin can name: hooks, functions, classes, and each of their fields and methods."""
    yield f"API_VERSION = {API_VERSION}"
    for name in registry.HOOKS:
        yield f"hook {name}{_signature(getattr(hookspecs, name))}"
    for suffix in MODULES:
        module = import_module(f"hyocr_core{suffix}")
        for name in sorted(_public(module)):
            yield from _describe(f"{module.__name__}.{name}", getattr(module, name))


def _public(module: ModuleType) -> list[str]:
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = (name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__)
    constants = (name for name in vars(module) if name.isupper() and name != "TYPE_CHECKING")
    return [name for name in (*own, *constants) if not name.startswith("_")]


def _describe(path: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        yield f"class {path}({bases})"
        yield from sorted(set(_members(path, value)))
    elif inspect.isroutine(value):
        yield f"def {path}{_signature(value)}"
    elif isinstance(value, str | int | float | tuple):
        yield f"{path} = {value!r}"
    else:
        yield f"{path}: {type(value).__name__}"


def _members(path: str, cls: type) -> Iterator[str]:
    """Fields with their types and defaults, methods, properties; inherited ones too, where the core defines them."""
    if dataclasses.is_dataclass(cls):
        for field in dataclasses.fields(cls):
            yield f"    {path}.{field.name}: {field.type}{_default(field.default, field.default_factory)}"
    elif issubclass(cls, BaseModel):
        for name, info in cls.model_fields.items():
            kind = _everywhere(re.sub("<class '(.+)'>", r"\1", str(info.annotation)))
            default = info.get_default(call_default_factory=True)
            yield f"    {path}.{name}: {kind}{'' if info.is_required() else f' = {default!r}'}"
    for owner in cls.__mro__:
        if owner.__module__.startswith("hyocr_core") and owner.__name__ != "FrozenModel":
            yield from _own_members(path, owner, cls)


def _own_members(path: str, owner: type, cls: type) -> Iterator[str]:
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    if issubclass(cls, BaseModel):
        fields = set(cls.model_fields)
    annotations = inspect.get_annotations(owner)
    for name, value in list(vars(owner).items()):
        if name.startswith(("_", "test_")) or name in {*fields, "model_config"} or isinstance(value, FIXTURE):
            continue
        if isinstance(value, property):
            yield f"    property {path}.{name}"
        elif inspect.isroutine(value):
            yield f"    def {path}.{name}{_signature(getattr(owner, name))}"
        elif name in annotations:
            yield f"    {path}.{name}: {annotations[name]} = {value!r}"


def _default(value: Any, factory: Any) -> str:
    if factory is not dataclasses.MISSING:
        return f" = {factory.__name__}()"
    return "" if value is dataclasses.MISSING else f" = {_everywhere(repr(value))}"


def _signature(function: Any) -> str:
    return _everywhere(str(inspect.signature(function)).replace("'", ""))


def _everywhere(text: str) -> str:
    """A value as text without the address it happens to have in this process."""
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def advice(frozen: list[str], now: list[str]) -> str:
    """What to do about a change of the surface; empty when there is none."""
    if frozen == now:
        return ""
    changes = [line for line in difflib.ndiff(frozen, now) if line[0] in "+-"]
    gone = [line for line in frozen if line not in now]
    if not gone or frozen[0] != now[0]:
        todo = "Nothing that plugins rely on is gone, or API_VERSION was raised for it: say it in CHANGELOG.md, and run"
    else:
        todo = (
            "Plugins may rely on what is gone or changed. Keep it and deprecate it (docs/plugin-api.md), or, where "
            "that cannot be, raise hyocr_core.API_VERSION; an argument with a default is an addition. Then run"
        )
    return "\n".join(["what plugins may rely on has changed:", *changes, todo, f"    {REGENERATE}"])


def test_the_public_surface_is_the_frozen_one() -> None:
    problem = advice(FROZEN.read_text(encoding="utf-8").splitlines(), list(surface()))
    assert not problem, problem


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (["API_VERSION = 1", "def a()", "def b()"], "say it in CHANGELOG.md"),
        (["API_VERSION = 1"], "Keep it and deprecate it"),
        (["API_VERSION = 1", "def a(x)"], "Keep it and deprecate it"),
        (["API_VERSION = 2"], "say it in CHANGELOG.md"),
    ],
)
def test_a_change_is_told_from_an_addition(now: list[str], told: str) -> None:
    said = advice(["API_VERSION = 1", "def a()"], now)
    assert told in said
    assert said.endswith(REGENERATE)


def test_the_rules_are_written_down() -> None:
    text = (Path(__file__).parents[1] / "docs" / "plugin-api.md").read_text(encoding="utf-8")
    assert f"The current API version is **{API_VERSION}**" in text


@pytest.fixture
def deprecated_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    """The contract as if a later version of it were to drop the argument `config` of `quantize_layer`."""
    later = SimpleNamespace(**{name: getattr(hookspecs, name) for name in registry.HOOKS})
    text = "hook quantize_layer: the argument config goes with plugin API 2; take what it holds from layer"
    marker = hookspec(firstresult=True, warn_on_impl_args={"config": DeprecationWarning(text)})

    def quantize_layer(layer: object, stats: object, config: object) -> None: ...

    later.quantize_layer = marker(quantize_layer)
    monkeypatch.setattr(registry, "hookspecs", later)


def test_a_deprecated_argument_is_still_passed_and_warned_of_by_name(
    plugins: PluginFolder, deprecated_argument: None
) -> None:
    from click.testing import CliRunner

    plugins.toy()
    text = "hook quantize_layer: the argument config goes with plugin API 2; take what it holds from layer"
    with pytest.warns(DeprecationWarning, match=re.escape(f"method toy (hyocr-plugin-toy 1.2.3): {text}")):
        method = load_method("toy")
    assert method.spec.name == "toy"
    result = CliRunner().invoke(methods, ["check"])
    [line] = [line for line in result.stdout.splitlines() if line.startswith("toy ")]
    assert line.endswith(f" ok, but {text}")


def test_a_plugin_without_the_argument_is_not_warned_of(plugins: PluginFolder, deprecated_argument: None) -> None:
    plugins.toy()
    plugins.module(
        "modern",
        "from hyocr_core import MethodSpec, hookimpl\n"
        "from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, unpack\n"
        "@hookimpl\ndef method_spec():\n"
        "    return MethodSpec('modern', ToyConfig, 'm', api_version=1, needs_calibration=False)\n"
        "@hookimpl\ndef quantize_layer(layer): pass\n",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_method("modern").spec.name == "modern"


if __name__ == "__main__":
    print(*surface(), sep="\n")
