"""Finding, loading and validating plugins, against real distributions on sys.path."""

from __future__ import annotations

import sys
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING

import pytest

from hyocr_core.contract.config import MethodConfig
from hyocr_core.errors import MethodError
from hyocr_core.plugin.registry import installed_methods, load_method

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

BASE = """
from hyocr_core import MethodConfig, MethodSpec, hookimpl
from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, quantize_layer, unpack
"""
SPEC = """
@hookimpl
def method_spec():
    return MethodSpec("odd", {config}, "odd", api_version=1, needs_calibration={calibration})
"""


def odd(plugins: PluginFolder, source: str, config: str = "ToyConfig", calibration: bool = False) -> None:
    """Install a method `odd` whose module is BASE, `source` and a method_spec."""
    plugins.toy()
    plugins.module("odd", BASE + source + SPEC.format(config=config, calibration=calibration))


def refusal(selector: str) -> str:
    with pytest.raises(MethodError) as caught:
        load_method(selector)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_lists_a_distribution_once_and_imports_nothing(plugins: PluginFolder) -> None:
    plugins.hostile("import_error")
    listed = {entry.name: entry for entry in installed_methods()}
    assert listed["toy"].source == "hyocr-plugin-toy 1.2.3"
    assert listed["toy"].summary == "Round-to-nearest int8 for hyocr, one scale per output channel"
    assert listed["toy"].value == "hyocr_plugin_toy.plugin"
    assert not listed["toy"].conflict
    assert listed["import_error"].source == "hyocr-plugin-import-error 0.0.1"


def test_an_editable_install_beside_a_stale_copy_is_no_conflict(
    plugins: PluginFolder, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins.toy()
    stale = tmp_path_factory.mktemp("stale")
    type(plugins)(stale).metadata("Hyocr_Plugin.Toy", "0.9", {"toy": "hyocr_plugin_toy.plugin"}, "old")
    monkeypatch.setattr(sys, "path", [*sys.path, str(stale)])
    toys = [entry for entry in installed_methods() if entry.name == "toy"]
    assert [entry.version for entry in toys] == ["1.2.3"]
    assert not toys[0].conflict


def test_metadata_that_cannot_be_read_hides_no_other_method(plugins: PluginFolder) -> None:
    plugins.toy()
    plugins.metadata("broken-neighbour", "1", {}, "")
    (plugins.folder / "broken_neighbour-1.dist-info" / "entry_points.txt").write_bytes(b"[hyocr.methods]\n\xff = \xfe")
    plugins.metadata("nameless", "1", {"nameless": "nameless"}, "")
    (plugins.folder / "nameless-1.dist-info" / "METADATA").unlink()
    assert load_method("toy").entry.version == "1.2.3"
    nameless = [entry for entry in installed_methods() if entry.name == "nameless"]
    assert [entry.source for entry in nameless] == ["unnamed-distribution without version"]


@pytest.mark.parametrize("selector", ["toy", "hyocr-plugin-toy:toy", "Hyocr_Plugin_Toy:toy"])
def test_loads_one_method(plugins: PluginFolder, selector: str) -> None:
    plugins.toy()
    method = load_method(selector)
    assert (method.spec.name, method.entry.selector) == ("toy", "hyocr-plugin-toy:toy")
    assert isinstance(method.config({"clip": 0.9}), MethodConfig)
    with pytest.raises(FrozenInstanceError):
        method.spec = method.spec  # type: ignore[misc]


def test_an_entry_point_may_name_an_instance(plugins: PluginFolder) -> None:
    plugins.toy()
    source = BASE + (
        "class Plugin:\n"
        "    @hookimpl\n"
        "    def method_spec(self):\n"
        "        return MethodSpec('instance', ToyConfig, 'i', api_version=1, needs_calibration=False)\n"
        "    quantize_layer, pack, unpack = map(staticmethod, (quantize_layer, pack, unpack))\n"
        "    checkpoint_config = staticmethod(checkpoint_config)\n"
        "plugin = Plugin()\n"
    )
    plugins.module("instance", source, value="hostile_instance:plugin")
    assert load_method("instance").spec.name == "instance"


def test_unknown_method_names_the_nearest(plugins: PluginFolder) -> None:
    plugins.toy()
    message = refusal("toyy")
    assert message.startswith("no method 'toyy' (installed: ")
    assert message.endswith("; did you mean toy?")


def test_unknown_method_suggests_the_package(plugins: PluginFolder) -> None:
    plugins.toy()
    message = refusal("squeeze_llm")
    assert "toy" in message
    assert message.endswith("; try: pip install hyocr-plugin-squeeze-llm")


@pytest.mark.parametrize("name", ["", "../x", "rm -rf /"])
def test_no_command_is_suggested_for_a_name_that_is_no_package(plugins: PluginFolder, name: str) -> None:
    assert "pip install" not in refusal(name)


def test_two_distributions_offer_one_name(plugins: PluginFolder) -> None:
    plugins.hostile("wrong_name", method="toy")
    assert refusal("toy") == (
        "the method toy is offered by hyocr-plugin-toy 1.2.3 and hyocr-plugin-wrong-name 0.0.1; "
        "say --method hyocr-plugin-toy:toy or --method hyocr-plugin-wrong-name:toy"
    )
    assert [entry.conflict for entry in installed_methods() if entry.name == "toy"] == [True, True]
    assert load_method("hyocr-plugin-toy:toy").entry.version == "1.2.3"


def test_distribution_that_does_not_offer_the_method(plugins: PluginFolder) -> None:
    plugins.toy()
    expected = "no distribution 'hyocr-core' offers the method toy; hyocr-plugin-toy 1.2.3 does"
    assert refusal("hyocr-core:toy") == expected


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            "import_error",
            "importing 'hostile_import_error' failed: ModuleNotFoundError: No module named 'a_package_nobody_has'",
        ),
        ("import_exits", "importing 'hostile_import_exits' failed: SystemExit: 0"),
        ("missing_hook", "it has no hook unpack"),
        ("misspelt_hook", "there is no hook quantise_layer; did you mean quantize_layer?"),
        ("misspelt_optional", "there is no hook check_layer; did you mean check_layers?"),
        ("wrong_api", "it speaks plugin API 2, this hyocr-core speaks 1; try: pip install --upgrade hyocr-core"),
        (
            "unknown_argument",
            "hook quantize_layer has the unknown argument hessian; it may take: layer, stats, config, seed",
        ),
        ("default_argument", "hook quantize_layer: the argument stats has a default, so it is never passed"),
        ("wrong_name", "its method_spec says the name 'another', its entry point 'wrong_name'"),
        (
            "names_a_class",
            "its entry point names the class Plugin; make an instance in hostile_names_a_class,"
            " such as `plugin = Plugin()`, and name hostile_names_a_class:plugin",
        ),
    ],
)
def test_a_broken_plugin_is_refused_and_its_neighbour_is_not(plugins: PluginFolder, name: str, problem: str) -> None:
    plugins.hostile(name)
    distribution = f"hyocr-plugin-{name.replace('_', '-')}"
    assert refusal(name) == f"method {name} ({distribution} 0.0.1): {problem}"
    assert load_method("toy").spec.name == "toy"


@pytest.mark.parametrize(
    ("source", "config", "problem"),
    [
        ("@hookimpl\ndef check_layers(**kwargs): pass\n", "ToyConfig", "unknown argument **kwargs"),
        ("@hookimpl\ndef check_layers(*, config): pass\n", "ToyConfig", "config must be a plain one"),
        ("@hookimpl(specname='pack')\ndef pack_again(layer): pass\n", "ToyConfig", "two functions implement the hook"),
        ("@hookimpl(wrapper=True)\ndef calibrate(config): yield\n", "ToyConfig", "hook calibrate is a wrapper"),
        ("", "dict", "does not derive from hyocr_core.MethodConfig"),
        ("", "ToyConfig()", "does not derive from hyocr_core.MethodConfig"),
        (
            "class C(MethodConfig, extra='allow'): pass\n",
            "C",
            'config class C must keep frozen=True and extra="forbid"',
        ),
        ("class C(MethodConfig, frozen=False): pass\n", "C", 'config class C must keep frozen=True and extra="forbid"'),
        ("class C(MethodConfig):\n    bits: int = 4\n", "C", "the key bits of its config class C has no description"),
        (
            "from pydantic import BaseModel, Field\nclass Inner(BaseModel):\n    a: int = Field(1, description='d')\n"
            "class C(MethodConfig):\n    inner: Inner = Field(Inner(), description='d')\n",
            "C",
            'the model Inner in its config class C must have extra="forbid"',
        ),
        (
            "class C(MethodConfig, arbitrary_types_allowed=True):\n    a: object\n    b: type(pack)\n",
            "C",
            "no JSON Schema",
        ),
        ("raise_it = 1 / 0\n", "ToyConfig", "importing 'hostile_odd' failed: ZeroDivisionError: division by zero"),
    ],
)
def test_small_breaches_of_the_contract(plugins: PluginFolder, source: str, config: str, problem: str) -> None:
    odd(plugins, source, config)
    assert problem in refusal("odd")


def test_a_method_that_calibrates_needs_the_hook(plugins: PluginFolder) -> None:
    odd(plugins, "", calibration=True)
    assert refusal("odd").endswith("it has no hook calibrate")


def with_spec(plugins: PluginFolder, said: str) -> None:
    """Install a method `odd` whose method_spec says this besides its name."""
    plugins.toy()
    spec = f"    return MethodSpec('odd', ToyConfig, 'odd', needs_calibration=False, {said})\n"
    plugins.module("odd", BASE + "@hookimpl\ndef method_spec():\n" + spec)


@pytest.mark.parametrize("versions", ["1", "(1,)", "(1, 2)", "(0, 1)"])
def test_a_method_may_speak_several_versions(plugins: PluginFolder, versions: str) -> None:
    with_spec(plugins, f"api_version={versions}")
    assert load_method("odd").spec.name == "odd"


@pytest.mark.parametrize(
    ("versions", "said", "upgrade"),
    [
        ("2", "2", "hyocr-core"),
        ("(2, 3)", "2 and 3", "hyocr-core"),
        ("0", "0", "hyocr-plugin-odd"),
        ("(0, 2)", "0 and 2", "hyocr-plugin-odd"),
        ("'one'", "one", "hyocr-plugin-odd"),
    ],
)
def test_a_method_that_does_not_speak_this_version_is_refused(
    plugins: PluginFolder, versions: str, said: str, upgrade: str
) -> None:
    with_spec(plugins, f"api_version={versions}")
    assert refusal("odd") == (
        f"method odd (hyocr-plugin-odd 0.0.1): it speaks plugin API {said}, this hyocr-core speaks 1; "
        f"try: pip install --upgrade {upgrade}"
    )


def test_only_a_whole_block_can_be_rescaled(plugins: PluginFolder) -> None:
    with_spec(plugins, "api_version=1, rescales_block=True, inputs='group'")
    assert refusal("odd") == (
        'method odd (hyocr-plugin-odd 0.0.1): its method_spec says rescales_block and inputs="group"; '
        "only a whole block can be rescaled"
    )


def test_only_whole_blocks_are_run_once(plugins: PluginFolder) -> None:
    with_spec(plugins, "api_version=1, inputs='group', original_inputs=True")
    assert refusal("odd") == (
        'method odd (hyocr-plugin-odd 0.0.1): its method_spec says original_inputs and inputs="group"; '
        "only whole blocks are run once"
    )


@pytest.mark.parametrize(
    "said",
    [
        "rescales_block=True, inputs='block'",
        "inputs='group', reference_inputs=True",
        "original_inputs=True, rescales_block=True",
    ],
)
def test_what_a_method_asks_to_see(plugins: PluginFolder, said: str) -> None:
    with_spec(plugins, f"api_version=1, {said}")
    assert load_method("odd").spec.name == "odd"


def test_an_optional_hook_of_a_later_core_is_let_be(plugins: PluginFolder) -> None:
    odd(plugins, "@hookimpl(optionalhook=True)\ndef hook_of_2030(layer): pass\n")
    assert load_method("odd").spec.name == "odd"


def test_method_spec_that_raises_or_describes_nothing(plugins: PluginFolder) -> None:
    plugins.toy()
    plugins.module("odd", BASE + "@hookimpl\ndef method_spec():\n    raise OSError('disk')\n")
    assert refusal("odd").endswith("hook method_spec: OSError: disk")
    plugins.module("even", BASE + "@hookimpl\ndef method_spec():\n    return None\n")
    assert refusal("even").endswith("hook method_spec must return a MethodSpec, not NoneType")


def test_a_plugin_without_method_spec_or_with_a_misspelt_one(plugins: PluginFolder) -> None:
    plugins.toy()
    plugins.module("odd", "x = 1\n")
    assert refusal("odd").endswith("(hyocr-plugin-odd 0.0.1): it has no hook method_spec")
    plugins.module("even", BASE + "@hookimpl\ndef methods_spec():\n    return None\n")
    assert refusal("even").endswith("it has no hook method_spec; methods_spec is no hook, rename it to method_spec")


def test_a_failed_load_leaves_nothing_behind(plugins: PluginFolder) -> None:
    plugins.hostile("missing_hook")
    for _ in range(2):
        assert refusal("missing_hook").endswith("it has no hook unpack")
    assert load_method("toy").spec.name == "toy"
