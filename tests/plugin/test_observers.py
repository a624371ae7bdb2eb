"""Observers: found and checked like methods, told of every hook, and unable to harm a run whatever they do."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from torch import nn

from hyocr_core.checkpoint.quant_report import ObserverRecord, read_report
from hyocr_core.cli.main import main
from hyocr_core.contract.observer import OBSERVED
from hyocr_core.contract.types import Block, HookCall, Layer, QuantizedLayer, Stat
from hyocr_core.errors import ConfigError, ObserverError
from hyocr_core.plugin.observers import installed_observers, load_observer
from hyocr_core.plugin.watch import Watch, choose_observers, watching
from hyocr_core.progress import Silent
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.settings.run_file import merge_run_config

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

pytestmark = pytest.mark.needs_methods

HEAD = """
from pathlib import Path
from typing import ClassVar
import torch
from pydantic import Field
from hyocr_core import Observer, ObserverConfig
"""
SEES_ALL = (
    HEAD
    + """
class Odd(Observer):
    api_version = 1
    hooks = ("calibrate", "settle", "quantize_layer", "quantize_group", "pack")

    def called(self, call):
        {}
"""
)


GROUPS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")
"""First layers of the groups that GPTQ calibrates, block by block."""
FIRST = ", ".join(f"model.layers.0.self_attn.{name}_proj" for name in "qkv")


def install(plugins: PluginFolder, name: str, source: str, value: str = "Odd") -> None:
    """Install an observer as `hyocr-observer-NAME 0.0.1`."""
    (plugins.folder / f"hostile_{name}.py").write_text(source, encoding="utf-8")
    points = {name: f"hostile_{name}:{value}"}
    plugins.metadata(f"hyocr-observer-{name}", "0.0.1", points, "an observer", group="hyocr.observers")


def refusal(selector: str) -> str:
    with pytest.raises(ObserverError) as caught:
        load_observer(selector)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Notes(Silent):
    """Keeps what a run says, but for its remark on how few pages these tests calibrate on."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        if "pages to calibrate on" not in text:
            self.lines.append(text)


@pytest.fixture
def run(demo: Path, calib: str, tmp_path: Path) -> RunConfig:
    return RunConfig(
        model=str(demo), output=tmp_path / "out", method="gptq", calib=calib, num_samples=4, options={"group_size": 64}
    )


@pytest.fixture(scope="module")
def plain(demo: Path, calib: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the weights of the same run without an observer."""
    output = tmp_path_factory.mktemp("plain") / "out"
    options = {"group_size": 64}
    run = RunConfig(model=str(demo), output=output, method="gptq", calib=calib, num_samples=4, options=options)
    return quantize(run).output_sha256


def observed(
    run: RunConfig, **observers: dict[str, Any]
) -> tuple[dict[str, str], dict[str, ObserverRecord], list[str]]:
    """The weights' digests, what the report says of the observers, and the lines a user read."""
    notes = Notes()
    report = quantize(run.model_copy(update={"observers": observers}), progress=notes)
    assert read_report(run.output) == report
    return report.output_sha256, {record.name: record for record in report.observers}, notes.lines


def test_the_observer_of_the_core_is_installed() -> None:
    entry = {entry.name: entry for entry in installed_observers()}["dump-stats"]
    assert (entry.distribution, load_observer("hyocr-core:dump-stats").entry) == ("hyocr-core", entry)


def test_dump_stats_writes_vectors_and_the_diagonals_of_matrices(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "stats"
    matrix = torch.arange(9.0).reshape(3, 3)
    shared = {
        "hessian": Stat(matrix, "sum"),
        "peak": Stat(torch.tensor([1.0, 2.0]), "max"),
        "wide": Stat(torch.ones(3, 2).T, "sum"),
        "tokens": Stat(torch.tensor(7), "sum"),
    }
    call = HookCall("calibrate", "model.layers.5", {}, {"q": shared, "k": shared}, 0.1)
    with watching(choose_observers({"dump-stats": {"folder": str(folder)}}), pytest.fail) as watch:
        watch(call)
        watch(HookCall("pack", "q", {}, {}, 0.1))
        assert [record.calls for record in watch.close()] == [1]
    found = load_file(folder / "model.layers.5.safetensors")
    assert {key: value.tolist() for key, value in found.items() if key.startswith("q.")} == {
        "q.hessian": [0.0, 4.0, 8.0],
        "q.peak": [1.0, 2.0],
        "q.wide": [[1.0] * 3] * 2,
        "q.tokens": 7,
    }
    assert sum(key.startswith("k.") for key in found) == 4
    assert [path.name for path in folder.iterdir()] == ["model.layers.5.safetensors"]


def test_dump_stats_in_a_run_changes_nothing(run: RunConfig, plain: dict[str, str], tmp_path: Path) -> None:
    digests, records, lines = observed(run, **{"dump-stats": {"folder": str(tmp_path / "stats")}})
    assert digests == plain
    seen = records["dump-stats"]
    assert (seen.calls, seen.failed) == (16, None)
    assert lines == []
    files = sorted(path.name for path in (tmp_path / "stats").iterdir())
    assert files == sorted(f"model.layers.{index}.{group}.safetensors" for index in range(4) for group in GROUPS)
    last, first = (load_file(tmp_path / "stats" / f"model.layers.3.{GROUPS[at]}.safetensors") for at in (3, 0))
    assert last["model.layers.3.mlp.down_proj.hessian"].shape == (512,)
    assert (first["model.layers.3.self_attn.q_proj.hessian"] > 0).all()


def test_an_observer_sees_arguments_results_and_seconds(plugins: PluginFolder, run: RunConfig, tmp_path: Path) -> None:
    source = SEES_ALL.format(
        "import json\n"
        "        line = [call.hook, call.layer, sorted(call.arguments), type(call.result).__name__, call.seconds]\n"
        f"        open({str(tmp_path / 'seen')!r}, 'a').write(json.dumps(line) + chr(10))"
    )
    install(plugins, "notes", source)
    observed(run, notes={})
    lines = [json.loads(line) for line in (tmp_path / "seen").read_text(encoding="utf-8").splitlines()]
    assert lines[0][:4] == ["calibrate", FIRST, ["config"], "dict"]
    assert lines[1][:4] == ["settle", FIRST, ["config", "seed", "stats"], "dict"]
    assert lines[2][:4] == ["quantize_group", FIRST, ["config", "layers", "seed", "stats"], "list"]
    packed = [["pack", name, ["config", "layer"], "dict"] for name in FIRST.split(", ")]
    assert [line[:4] for line in lines[3:6]] == packed
    assert all(line[4] > 0 for line in lines)


def test_one_that_is_installed_but_not_named_is_not_imported(plugins: PluginFolder, run: RunConfig) -> None:
    install(plugins, "shy", "raise SystemExit(3)\n")
    assert observed(run)[1:] == ({}, [])


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("raise ValueError('the sky fell\\nsecond line')", "ValueError: the sky fell second line"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("return call.nonsense", "AttributeError: 'HookCall' object has no attribute 'nonsense'"),
        ("call.result = None", "FrozenInstanceError: cannot assign to field 'result'"),
    ],
)
def test_one_that_fails_is_switched_off_and_the_run_goes_on(
    plugins: PluginFolder, run: RunConfig, plain: dict[str, str], tmp_path: Path, body: str, problem: str
) -> None:
    install(plugins, "odd", SEES_ALL.format(body))
    digests, records, lines = observed(run, odd={}, **{"dump-stats": {"folder": str(tmp_path / "stats")}})
    assert digests == plain
    where = f"hook calibrate, {FIRST}"
    off = "it is switched off, the run goes on without it"
    assert lines == [f"observer odd (hyocr-observer-odd 0.0.1), {where}: {problem}; {off}"]
    failed = f"calibrate, {FIRST}: {problem.partition(':')[0]}"
    assert (records["odd"].calls, records["odd"].failed) == (1, failed)
    assert (records["dump-stats"].calls, records["dump-stats"].failed) == (16, None)


def test_one_that_writes_into_everything_changes_nothing(
    plugins: PluginFolder, run: RunConfig, plain: dict[str, str]
) -> None:
    spoil = (
        "def spoil(value):\n"
        "    if isinstance(value, torch.Tensor):\n"
        "        value.data.fill_(0)\n"
        "    elif isinstance(value, dict):\n"
        "        [spoil(item) for item in value.values()]\n"
        "        value.clear()\n"
        "    elif isinstance(value, (list, tuple)):\n"
        "        [spoil(item) for item in value]\n"
        "    elif hasattr(value, '__dict__'):\n"
        "        spoil({key: item for key, item in vars(value).items() if key != 'ignore'})\n"
    )
    body = (
        "spoil(call.arguments); spoil(call.result); torch.manual_seed(3); torch.set_num_threads(3); "
        "torch.set_float32_matmul_precision('medium'); torch.set_grad_enabled(True)"
    )
    install(plugins, "odd", spoil + SEES_ALL.format(body))
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    random = torch.random.get_rng_state()
    digests, records, lines = observed(run, odd={})
    assert (digests, lines, records["odd"].failed) == (plain, [], None)
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (threads, precision)
    assert torch.equal(torch.random.get_rng_state(), random)


def test_each_observer_has_copies_of_its_own_and_sharing_is_kept(plugins: PluginFolder) -> None:
    body = "self.seen = call; call.result['a']['h'].zero_()"
    install(plugins, "one", SEES_ALL.format(body))
    install(plugins, "two", SEES_ALL.format("assert call.result['a']['h'].item() == 1; " + body))
    stats = {"h": torch.ones(1, requires_grad=True)}
    watch = Watch(choose_observers({"one": {}, "two": {}}), pytest.fail)
    layer = Layer("a", torch.ones(2, 2))
    block = Block(0, "b", nn.Module(), {}, (), lambda batch: batch.hidden_states)
    watch(HookCall("calibrate", "b", {"layer": layer, "block": block, "batches": ()}, {"a": stats, "k": stats}, 0.0))
    assert stats["h"].item() == 1
    seen = watch._running[1].observer.seen  # type: ignore[attr-defined]
    assert list(seen.arguments) == ["layer"]
    assert seen.arguments["layer"].weight.data_ptr() != layer.weight.data_ptr()
    assert seen.result["a"]["h"] is seen.result["k"]["h"]


def test_a_copied_result_is_what_the_hook_returned(plugins: PluginFolder) -> None:
    install(plugins, "one", SEES_ALL.format("self.seen = call"))
    result = QuantizedLayer("a", {"codes": torch.tensor([[1]])}, torch.tensor([[2.0]]), {"error": 0.5}, "worse")
    watch = Watch(choose_observers({"one": {}}), pytest.fail)
    watch(HookCall("quantize_layer", "a", {"stats": None}, result, 0.25))
    seen = watch._running[0].observer.seen  # type: ignore[attr-defined]
    assert (seen.hook, seen.layer, seen.arguments, seen.seconds) == ("quantize_layer", "a", {"stats": None}, 0.25)
    assert isinstance(seen.result, QuantizedLayer)
    assert (seen.result.metrics, seen.result.degraded) == ({"error": 0.5}, "worse")
    assert seen.result.tensors["codes"].tolist() == [[1]]


def test_one_that_cannot_close_is_reported(plugins: PluginFolder, run: RunConfig) -> None:
    install(
        plugins, "odd", SEES_ALL.format("pass") + "\n    def close(self):\n        raise OSError('/home/me is full')\n"
    )
    _, records, lines = observed(run, odd={})
    assert records["odd"].failed == "close: OSError"
    assert lines[0].startswith("observer odd (hyocr-observer-odd 0.0.1), hook close: OSError: /home/me is full; ")


def test_a_failing_run_closes_its_observers(plugins: PluginFolder, run: RunConfig, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    source = SEES_ALL.format("raise KeyboardInterrupt")
    install(plugins, "odd", source + f"\n    def close(self):\n        Path({str(closed)!r}).touch()\n")
    with pytest.raises(KeyboardInterrupt):
        observed(run, odd={})
    assert closed.exists()
    assert not run.output.exists()


def test_one_that_cannot_start_refuses_the_run(plugins: PluginFolder, run: RunConfig, tmp_path: Path) -> None:
    body = "pass\n\n    def __init__(self, config):\n        raise OSError('no space')\n"
    install(plugins, "odd", SEES_ALL.format(body))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ObserverError) as caught:
        observed(run, odd={})
    assert str(caught.value) == "observer odd (hyocr-observer-odd 0.0.1): cannot start: OSError: no space"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import a_package_nobody_has", "importing 'hostile_odd:Odd' failed: ModuleNotFoundError: No module named "),
        ("raise SystemExit(0)", "importing 'hostile_odd:Odd' failed: SystemExit: 0"),
        ("Odd = 3", "hostile_odd:Odd is no class that derives from hyocr_core.Observer"),
        ("class Odd: pass", "hostile_odd:Odd is no class that derives from hyocr_core.Observer"),
        (
            HEAD + "class Odd(Observer):\n    hooks = ('pack',)\n    def called(self, call): pass",
            "its class Odd does not say which plugin API it speaks; write api_version = 1",
        ),
        (
            HEAD + "class Odd(Observer):\n    api_version = 2\n    hooks = ('pack',)\n    def called(self, call): pass",
            "it speaks plugin API 2, this hyocr-core speaks 1; try: pip install --upgrade hyocr-core",
        ),
        (
            HEAD + "class Odd(Observer):\n    api_version = 1\n    hooks = ('pack',)\n    def caled(self, call): pass",
            "its class Odd has no method called; rename caled",
        ),
        (
            HEAD + "class Odd(Observer):\n    api_version = 1\n    def called(self, call): pass",
            "its class Odd names no hooks; write such as hooks = ('calibrate',)",
        ),
        (
            HEAD + "class Odd(Observer):\n    api_version = 1\n    hooks = 'pack'\n    def called(self, call): pass",
            "its class Odd names no hooks; write such as hooks = ('calibrate',)",
        ),
        (
            HEAD + "class Odd(Observer):\n    api_version = 1\n    hooks = ('quantise_layer',)\n"
            "    def called(self, call): pass",
            "there is no hook quantise_layer to observe; did you mean quantize_layer?",
        ),
        (
            HEAD + "class C(ObserverConfig):\n    a: int = 1\nclass Odd(Observer):\n    api_version = 1\n"
            "    hooks = ('pack',)\n    config_class = C\n    def called(self, call): pass",
            "the key a of its config class C has no description",
        ),
        (
            HEAD + "class Odd(Observer):\n    api_version = 1\n    hooks = ('pack',)\n    config_class = dict\n"
            "    def called(self, call): pass",
            "its config class <class 'dict'> does not derive from hyocr_core.ObserverConfig",
        ),
    ],
)
def test_a_broken_observer_is_refused_by_name(plugins: PluginFolder, source: str, problem: str) -> None:
    install(plugins, "odd", source + "\n")
    assert refusal("odd").startswith(f"observer odd (hyocr-observer-odd 0.0.1): {problem}")


def test_unknown_and_twofold_names(plugins: PluginFolder) -> None:
    assert refusal("dump-stat") == "no observer 'dump-stat' (installed: dump-stats); did you mean dump-stats?"
    plugins.metadata("other", "3", {"dump-stats": "nowhere"}, "", group="hyocr.observers")
    assert refusal("dump-stats").endswith("; say --observe hyocr-core:dump-stats or --observe other:dump-stats")


def test_a_wrong_option_names_the_observer() -> None:
    with pytest.raises(ConfigError) as caught:
        choose_observers({"dump-stats": {"folder": "x", "foldr": "y"}})
    assert str(caught.value).endswith(": options: foldr: unknown key; did you mean folder?")
    assert str(caught.value).startswith("observer dump-stats (hyocr-core ")


def test_arguments_of_the_command_line_join_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model: m\nmethod: rtn\noutput: o\nobservers: {a: {x: 1}, b: {}}\n", encoding="utf-8")
    arguments = ["a:y=[1, 2]", "a:x=2", "some-dist:c:path=C:/x=y", "d"]
    run = merge_run_config(file, {}, (), arguments).run
    assert run.observers == {"a": {"x": 2, "y": [1, 2]}, "b": {}, "some-dist:c": {"path": "C:/x=y"}, "d": {}}
    with pytest.raises(ConfigError, match=r"^--observe =x: write NAME or NAME:KEY=VALUE, such as dump-stats:"):
        merge_run_config(file, {}, (), ["=x"])


def hyocr(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_a_run_of_the_command_line(plugins: PluginFolder, demo: Path, tmp_path: Path) -> None:
    install(plugins, "odd", SEES_ALL.format("print('seen'); raise ValueError('the sky fell')"))
    output = str(tmp_path / "out")
    result = hyocr("quant", "--method=rtn", f"--model={demo}", f"--output={output}", "--observe=odd", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["observers"][0]["failed"].endswith(": ValueError")
    assert result.stderr.count("the sky fell") == 1
    assert "observer odd was switched off: " in " ".join(result.stderr.split())
    assert result.stderr.count("seen\n") == 1


def test_a_dry_run_checks_observers_and_starts_none(demo: Path, tmp_path: Path) -> None:
    arguments = ["quant", "--method=rtn", f"--model={demo}", f"--output={tmp_path / 'out'}", "--dry-run"]
    folder = tmp_path / "stats"
    assert hyocr(*arguments, f"--observe=dump-stats:folder={folder}").exit_code == 0
    assert not folder.exists()
    result = hyocr(*arguments, "--observe=dump-stats")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_the_command_lists_and_explains(plugins: PluginFolder) -> None:
    result = hyocr("observers")
    assert result.exit_code == 0
    line = next(line for line in result.stdout.splitlines() if line.startswith("dump-stats "))
    assert line.endswith("one safetensors file for each block, or for each group it saw.")
    assert hyocr("observers", "dump-stats").stdout.splitlines()[1].split()[:3] == ["folder", "string", "required"]
    assert "folder" in json.loads(hyocr("observers", "dump-stats", "--json").stdout)["properties"]
    install(plugins, "odd", "Odd = 3\n")
    install(plugins, "bare", SEES_ALL.format("pass"))
    result = hyocr("observers")
    assert result.exit_code == 1
    assert "broken: hostile_odd:Odd is no class that derives from hyocr_core.Observer" in result.stdout
    problems = {entry["name"]: entry["problem"] for entry in json.loads(hyocr("observers", "--json").stdout)}
    assert (problems["dump-stats"], problems["bare"]) == (None, None)
    assert "observer bare (hyocr-observer-bare 0.0.1) has no options" in hyocr("observers", "bare").stderr


def test_the_documented_observer_works(plugins: PluginFolder, run: RunConfig, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "observers.md").read_text(encoding="utf-8")
    example = re.search(r"(?ms)^```python\n(.*?)^```", page)
    assert example is not None
    install(plugins, "slowest", example[1], "Slowest")
    run = run.model_copy(update={"method": "rtn"})
    _, records, lines = observed(run, slowest={"file": str(tmp_path / "slowest.txt")})
    assert (lines, records["slowest"].calls, records["slowest"].failed) == ([], 28, None)
    rows = [row.split() for row in (tmp_path / "slowest.txt").read_text(encoding="utf-8").splitlines()]
    assert len({row[1] for row in rows}) == 28
    assert all(float(row[2]) > 0 for row in rows)


def test_the_documentation_names_every_hook() -> None:
    page = (Path(__file__).parents[2] / "docs" / "observers.md").read_text(encoding="utf-8")
    assert [hook for hook in OBSERVED if f"`{hook}`" not in page] == []
    assert [field.name for field in fields(HookCall) if f"| `{field.name}` |" not in page] == []
