"""Every hostile plugin ends `hyocr quant` in one line that names distribution, version and, where it has one, hook and
layer; nothing is published, and no other method suffers from its being installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from hyocr_core.cli.main import main

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

HOSTILE = Path(__file__).parents[1] / "distributions" / "hostile"
FIRST = "model.layers.0.self_attn.q_proj"
LOADING = {
    "default_argument": "hook quantize_layer: the argument stats has a default",
    "import_error": "importing 'hostile_import_error' failed: ModuleNotFoundError",
    "import_exits": "importing 'hostile_import_exits' failed: SystemExit: 0",
    "missing_hook": "it has no hook unpack",
    "misspelt_hook": "there is no hook quantise_layer; did you mean quantize_layer?",
    "misspelt_optional": "there is no hook check_layer; did you mean check_layers?",
    "names_a_class": "its entry point names the class Plugin",
    "rescales_groups": 'its method_spec says rescales_block and inputs="group"',
    "unknown_argument": "hook quantize_layer has the unknown argument hessian",
    "wrong_api": "it speaks plugin API 2",
    "wrong_name": "its method_spec says the name 'another'",
}
RUNNING = {
    "calibrate_writes": "hook calibrate, model.layers.0: changed self_attn.q_proj.weight, but calibrate only gathers",
    "exits": f"hook quantize_layer, {FIRST}: SystemExit: 0",
    "pack_nan": f"hook pack, {FIRST}: returned NaN or infinite values",
    "pack_raises": f"hook pack, {FIRST}: KeyError: '{FIRST}'",
    "pack_zeroes": f"hook pack, {FIRST}: lost something: unpack does not give the weight back",
    "raises": f"hook quantize_layer, {FIRST}: ValueError: the sky fell",
    "returns_none": f"hook quantize_layer, {FIRST}: must return a QuantizedLayer",
    "settle_writes": "hook settle, model.layers.0: changed self_attn.q_proj.weight, but its method_spec does not say",
    "writes_input": f"hook quantize_layer, {FIRST}: wrote into the weight it was given",
}
UNUSABLE = {
    "exports_outside": "model.gguf, outside of the folder it was given",
    "plain_stats": f"hook calibrate, model.layers.0: {FIRST}: 'mean' is a value of type Tensor, which does not say how "
    'it merges with that of other samples; return Stat(tensor, "sum") or Stat(tensor, "max")',
}
OTHERS = {"duplicate_name", "slow_import"}

Quant = Callable[[str], Result]


@pytest.fixture
def quant(demo: Path, tmp_path: Path) -> Quant:
    def run(method: str) -> Result:
        given = ["--model", str(demo), "--output", str(tmp_path / "out"), "--device", "cpu", "--num-samples", "2"]
        return CliRunner().invoke(main, ["quant", "--method", method, *given])

    return run


def error_of(result: Result) -> str:
    """The one line that is an error; a run's progress may stand before it."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("hyocr: error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.rstrip().endswith(lines[0])
    return lines[0].removeprefix("hyocr: error: ")


def test_every_hostile_plugin_is_tried() -> None:
    assert {path.stem for path in HOSTILE.glob("*.py")} == LOADING.keys() | RUNNING.keys() | UNUSABLE.keys() | OTHERS


@pytest.mark.parametrize("name", [*LOADING, *RUNNING, *UNUSABLE])
def test_it_ends_in_one_line_that_says_who_failed_where(
    name: str, plugins: PluginFolder, quant: Quant, tmp_path: Path
) -> None:
    plugins.hostile(name)
    result = quant(name)
    source = f"hyocr-plugin-{name.replace('_', '-')} 0.0.1"
    problem = (LOADING | RUNNING | UNUSABLE)[name]
    assert error_of(result).startswith(f"method {name} ({source})")
    assert problem in error_of(result)
    # What cannot be loaded, or breaks what can be relied on, is bad input; what fails at work is a failed run.
    assert result.exit_code == (1 if name in RUNNING else 2)
    assert not (tmp_path / "out").exists()


def test_of_two_distributions_with_one_name_both_are_named_and_either_can_be_chosen(
    plugins: PluginFolder, quant: Quant
) -> None:
    plugins.hostile("duplicate_name", method="toy")
    result = quant("toy")
    assert result.exit_code == 2
    assert error_of(result) == (
        "the method toy is offered by hyocr-plugin-duplicate-name 0.0.1 and hyocr-plugin-toy 1.2.3; "
        "say --method hyocr-plugin-duplicate-name:toy or --method hyocr-plugin-toy:toy"
    )
    assert quant("hyocr-plugin-duplicate-name:toy").exit_code == 0


def test_a_slow_import_delays_only_who_asks_for_it_and_is_remarked_on(plugins: PluginFolder, quant: Quant) -> None:
    plugins.hostile("slow_import")
    assert "slow_import" in CliRunner().invoke(main, ["methods"]).stdout
    assert quant("toy").exit_code == 0
    assert "hostile_slow_import" not in sys.modules
    checked = CliRunner().invoke(main, ["methods", "check"])
    [line] = [line for line in checked.stdout.splitlines() if line.startswith("slow_import")]
    assert " ok, but importing it takes " in line
    assert line.endswith(" s: import what is slow inside the hooks")
    assert "hostile_slow_import" in sys.modules
