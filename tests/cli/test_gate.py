"""The gate on the command line: `hyocr quant --eval --gate` and `hyocr eval --gate`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from hyocr_core.checkpoint.quant_report import read_report
from hyocr_core.cli.main import main
from hyocr_core.evaluation.reading.local import Reader
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig

pytestmark = pytest.mark.needs_methods

Quant = Callable[..., Result]

GATE = "cer=0.5,kl=0.01,loops=0"
NARROW = "cer=0.5,kl=0.003,loops=0"
"""For pages enough, and a checkpoint that was calibrated with pages enough."""
FAILS = "cer=0.5,kl=0.000000001"


@pytest.fixture
def quant(demo: Path, calib: str, heldout: str, tmp_path: Path) -> Quant:
    def run(*arguments: str, reading: bool = True) -> Result:
        given = ["--model", str(demo), "--output", str(tmp_path / "out"), "--method", "gptq", "--calib", calib]
        pages = ["--eval", heldout, "--eval-samples", "8"] if reading else []
        return CliRunner().invoke(main, ["quant", *given, "--num-samples", "3", *pages, *arguments])

    return run


def last_line(result: Result) -> str:
    return result.stderr.splitlines()[-1]


def test_a_gate_that_holds_is_exit_code_0_and_the_page_is_drawn(quant: Quant, tmp_path: Path) -> None:
    result = quant("--gate", GATE, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report == read_report(tmp_path / "out").model_dump(mode="json")
    assert report["gate"]["accepted"]
    text = " ".join(result.stderr.split())
    assert "read 8 pages of heldout.jsonl" in text
    assert "gate held" in text
    assert f"\nreport {tmp_path / 'out' / 'report' / 'index.html'}\n" in result.stderr
    # The verdict is what is to be remembered.
    assert last_line(result) == report["evaluation"]["verdict"]["text"]
    assert (tmp_path / "out" / "report" / "index.html").is_file()


def test_the_command_is_kept_with_the_page(quant: Quant, tmp_path: Path) -> None:
    quant(reading=False)
    commands = json.loads((tmp_path / "out" / "report" / "commands.json").read_text())
    assert commands["quant"].startswith("hyocr quant --model ")
    assert commands["quant"].endswith("--num-samples 3")


def test_a_gate_that_fails_is_exit_code_1_and_one_line(quant: Quant, tmp_path: Path) -> None:
    result = quant("--gate", FAILS, "--json")
    assert result.exit_code == 1
    assert not json.loads(result.stdout)["gate"]["accepted"]
    line = last_line(result)
    assert line.startswith("hyocr: error: gate failed: kl ")
    assert result.stderr.count("gate failed") == 1, "said once, last"
    assert line.endswith(f" > 1e-09 nats per token; the checkpoint is in {tmp_path / 'out.unaccepted'}")
    assert "cer" not in line
    assert [path.name for path in tmp_path.iterdir()] == ["out.unaccepted"]
    assert (tmp_path / "out.unaccepted" / "report" / "index.html").is_file()


def test_keep_publishes_it_and_is_exit_code_1_still(quant: Quant, tmp_path: Path) -> None:
    result = quant("--gate", FAILS, "--keep")
    assert result.exit_code == 1
    assert last_line(result).endswith(f"; the checkpoint is in {tmp_path / 'out'}")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_may_hold_the_gate_and_a_flag_wins(quant: Quant, heldout: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"eval: {heldout}\neval_samples: 4\ngate: {{kl: 0.000000001}}\n")
    result = quant("-c", str(file), "--gate", "loops=0", "--json", reading=False)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["evaluation"]["pages"] == 4
    assert [figure["metric"] for figure in report["gate"]["figures"]] == ["loops"]


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["run", "dry run"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--eval", "HELDOUT", "--gate", "speed=3"],
            "speed: unknown key; valid keys: cer, edit-distance, exact, field-f1, ",
        ),
        (["--eval", "HELDOUT", "--gate", "cer=much"], "cer = 'much': should be a valid number"),
        (["--gate", "cer=1"], "gate needs eval"),
        (["--eval", "HELDOUT", "--keep"], "keep needs a gate"),
        (["--eval", "pages.csv.d"], "pages.csv.d: no such file or folder"),
        (
            ["--eval", "IMAGES", "--eval-samples", "2", "--gate", "wer=1"],
            "no transcript, and none of the 2 pages",
        ),
    ],
)
def test_what_cannot_be_judged_is_one_line_and_exit_code_2(
    quant: Quant, arguments: list[str], message: str, dry_run: tuple[str, ...], heldout: str, tmp_path: Path
) -> None:
    places = {"HELDOUT": heldout, "IMAGES": str(Path(heldout).parent / "images")}
    result = quant(*(places.get(argument, argument) for argument in arguments), *dry_run, reading=False)
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("hyocr: error: ")]
    assert message in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_an_unaccepted_checkpoint_of_before_is_not_lost(quant: Quant, dry_run: tuple[str, ...], tmp_path: Path) -> None:
    old = tmp_path / "out.unaccepted" / "precious"
    old.parent.mkdir()
    old.touch()
    result = quant("--gate", GATE, *dry_run)
    assert result.exit_code == 2
    assert f"{old.parent} is there, where this checkpoint would go if it failed its gate" in last_line(result)
    assert [path.name for path in tmp_path.rglob("*")] == ["out.unaccepted", "precious"]


def test_a_dry_run_shows_what_would_be_read(quant: Quant) -> None:
    result = quant("--gate", GATE, "--dry-run")
    assert result.exit_code == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    (row,) = [line for line in lines if line.startswith("evaluation 8 pages of ")]
    assert row.endswith("; cer=0.5, kl=0.01, loops=0")


def test_ctrl_c_while_it_reads_says_how_to_go_on(quant: Quant, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "read", stop)
        result = quant()
    assert result.exit_code == 130
    assert last_line(result).startswith("hyocr: interrupted; the same command goes on")
    assert quant("--resume").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_page_that_cannot_be_drawn_is_a_warning(
    quant: Quant, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: Any) -> Any:
        raise ZeroDivisionError("a bug\nin two lines")

    monkeypatch.setattr("hyocr_core.report.page.write_page", fail)
    result = quant(reading=False)
    assert result.exit_code == 0
    assert last_line(result) == (
        "warning: the report page could not be drawn (ZeroDivisionError: a bug in two lines); "
        f"`hyocr report {tmp_path / 'out'}` tries again"
    )
    assert (tmp_path / "out" / "config.json").is_file()


@pytest.fixture(scope="module")
def quantized(demo: Path, calib: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("gate") / "out"
    quantize(RunConfig(model=str(demo), output=output, method="gptq", calib=calib, num_samples=16, device="cpu"))
    return output


def damaged(quantized: Path, folder: Path, pattern: str) -> Path:
    """A copy in which the scales of the linears that match are doubled."""
    shutil.copytree(quantized, folder)
    tensors = load_file(folder / "model.safetensors")
    scales = [name for name in tensors if fnmatchcase(name, f"{pattern}.scales")]
    assert scales
    save_file(tensors | {name: tensors[name] * 2 for name in scales}, folder / "model.safetensors")
    return folder


def evaluated(model: Path, demo: Path, heldout: str, *arguments: str) -> Result:
    given = ["--data", heldout, "--num-samples", "32", "--baseline", str(demo), "--gate", NARROW]
    return CliRunner().invoke(main, ["eval", str(model), *given, *arguments])


def test_a_sound_checkpoint_passes(quantized: Path, demo: Path, heldout: str) -> None:
    result = evaluated(quantized, demo, heldout, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["comparison"]["kl"] < 0.01


@pytest.mark.parametrize(
    ("pattern", "failing"),
    [
        ("model.layers.0.*", ["cer", "kl"]),
        ("model.layers.3.*", ["cer", "kl"]),
        ("model.layers.1.self_attn.o_proj", ["kl"]),
    ],
)
def test_doubled_scales_fail(
    quantized: Path, demo: Path, heldout: str, tmp_path: Path, pattern: str, failing: list[str]
) -> None:
    result = evaluated(damaged(quantized, tmp_path / "damaged", pattern), demo, heldout)
    assert result.exit_code == 1
    line = last_line(result)
    assert line.startswith("hyocr: error: gate failed: ")
    named = line.removeprefix("hyocr: error: gate failed: ").split(", ")
    assert [figure.split()[0] for figure in named] == failing
    assert "CER" in result.stdout


def test_a_recorded_evaluation_refreshes_report_and_card(
    quantized: Path, demo: Path, heldout: str, tmp_path: Path
) -> None:
    folder = damaged(quantized, tmp_path / "damaged", "model.layers.3.*")
    assert "Not measured yet" in (folder / "README.md").read_text(encoding="utf-8")
    result = evaluated(folder, demo, heldout, "--record")
    assert result.exit_code == 1
    report = read_report(folder)
    assert report.gate is not None
    assert not report.gate.accepted
    assert report.evaluation is not None
    assert (report.evaluation.data, report.evaluation.pages) == ("heldout.jsonl", 32)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "32 pages of heldout.jsonl" in card
    assert "**not held**: cer " in card
    assert "Not measured yet" not in card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gate", "cer=1"], "evaluation: gate needs a baseline"),
        (["--baseline", "DEMO", "--gate", "speed=1"], "speed: unknown key; valid keys: cer, "),
        (["--baseline", "DEMO", "--gate", "cer=1", "--data", "IMAGES"], "no transcript"),
    ],
)
def test_a_gate_that_eval_cannot_judge_is_exit_code_2(
    arguments: list[str], message: str, demo: Path, heldout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reader, "read", lambda *_: pytest.fail("pages were read"))
    places = {"DEMO": str(demo), "IMAGES": str(Path(heldout).parent / "images")}
    given = [places.get(argument, argument) for argument in arguments]
    result = CliRunner().invoke(main, ["eval", str(demo), "--data", heldout, "--num-samples", "2", *given])
    assert result.exit_code == 2
    assert message in last_line(result)
