"""A run that reads before it publishes: what its gate lets through, what it leaves beside, and killing it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hyocr_core.checkpoint.quant_report import read_report
from hyocr_core.checkpoint.writer import stage_folder
from hyocr_core.contract.page_source import Record
from hyocr_core.errors import BadInputError, CalibrationError, OutputError, RunError
from hyocr_core.evaluation.reading.local import Reader
from hyocr_core.evaluation.recorded.record_folder import load_evaluation
from hyocr_core.pages import samples
from hyocr_core.plugin.method import Method
from hyocr_core.progress import Silent
from hyocr_core.run.job import estimate, prepare
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from tests.evaluating import evaluate
from tests.run.test_quantize import KILLER, contents

pytestmark = pytest.mark.needs_methods

PAGES = 12
PASSES = {"cer": 0.5, "agreement": 0.98, "loops": 0, "identical": 0.5}
FAILS = {"cer": 0.5, "kl": 1e-9}

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def make_run(demo: Path, calib: str, heldout: str, tmp_path: Path) -> MakeRun:
    def make(**changes: Any) -> RunConfig:
        given = {"model": str(demo), "output": tmp_path / "out", "method": "gptq", "calib": calib, "num_samples": 3}
        return RunConfig(**(given | {"device": "cpu", "eval": heldout, "eval_samples": PAGES} | changes))

    return make


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def unread(demo: Path, calib: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without an evaluation."""
    output = tmp_path_factory.mktemp("unread") / "out"
    quantize(RunConfig(model=str(demo), output=output, method="gptq", calib=calib, num_samples=3, device="cpu"))
    return output


def weights(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in contents(folder).items() if name != "README.md"}


def test_a_gate_that_holds_publishes_the_same_checkpoint_with_its_numbers(
    make_run: MakeRun, unread: Path, demo: Path, tmp_path: Path
) -> None:
    run = make_run(gate=PASSES)
    report = quantize(run)
    assert names(tmp_path) == ["out"]
    assert read_report(run.output) == report
    assert weights(run.output) == weights(unread)
    assert report.gate is not None
    assert report.gate.accepted
    numbers = report.evaluation
    assert numbers is not None
    assert (numbers.data, numbers.seed, numbers.pages) == ("heldout.jsonl", 0, PAGES)
    assert numbers.baseline is not None
    assert numbers.rounded is not None
    assert [score.runtime for score in (numbers.model, numbers.baseline, numbers.rounded)] == [
        "dequant",
        "transformers",
        "dequant",
    ]
    assert numbers.model.weight_bytes == (run.output / "model.safetensors").stat().st_size
    assert numbers.baseline.weight_bytes == (demo / "model.safetensors").stat().st_size
    assert report.phases["evaluate"] > 0


def test_the_numbers_are_those_of_an_evaluation_of_the_published_checkpoint(
    make_run: MakeRun, demo: Path, heldout: str
) -> None:
    from hyocr_core.pages.sources import open_source, select

    run = make_run(seed=3)
    report = quantize(run)
    result = evaluate(run.output, select(open_source(heldout), PAGES, 3), baseline=demo, seed=3)
    numbers = report.evaluation
    assert numbers is not None
    assert result.comparison is not None
    assert result.comparison.kl is not None
    assert 0 < result.comparison.kl < 1
    assert (numbers.model.cer, numbers.model.kl, numbers.model.agreement) == (
        result.model.cer,
        result.comparison.kl,
        result.comparison.agreement,
    )
    recorded = load_evaluation(run.output)
    assert recorded is not None
    assert [page.text for page in recorded.pages] == [page.text for page in result.pages]
    assert (recorded.model.model, report.gate) == (str(run.output), None)


def test_a_checkpoint_that_fails_is_left_beside_the_output(make_run: MakeRun, unread: Path, tmp_path: Path) -> None:
    run = make_run(gate=FAILS)
    report = quantize(run)
    assert names(tmp_path) == ["out.unaccepted"]
    left = tmp_path / "out.unaccepted"
    assert weights(left) == weights(unread)
    assert read_report(left) == report
    assert report.gate is not None
    assert [(figure.metric, figure.passed) for figure in report.gate.figures] == [("cer", True), ("kl", False)]
    assert not report.gate.accepted
    recorded = load_evaluation(left)
    assert recorded is not None
    assert recorded.model.model == str(left)
    card = (left / "README.md").read_text(encoding="utf-8")
    assert "**not held**: kl " in card
    assert str(tmp_path) not in card + (left / "hyocr_report.json").read_text(encoding="utf-8")


def test_keep_publishes_it_all_the_same(make_run: MakeRun, tmp_path: Path) -> None:
    report = quantize(make_run(gate=FAILS, keep=True))
    assert names(tmp_path) == ["out"]
    assert report.gate is not None
    assert not report.gate.accepted


def test_a_checkpoint_that_failed_before_is_in_the_way_from_the_start(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "out.unaccepted" / "precious"
    old.parent.mkdir()
    old.write_text("precious")
    with monkeypatch.context() as patch:
        patch.setattr(Method, "quantize_group", lambda *_: pytest.fail("the run began"))
        with pytest.raises(OutputError, match=r"out\.unaccepted is there"):
            quantize(make_run(gate=FAILS))
    assert names(tmp_path) == ["out.unaccepted"]
    quantize(make_run(gate=FAILS, keep=True))
    assert old.read_text() == "precious"


def lines(heldout: str, edit: Callable[[list[dict[str, Any]]], None], folder: Path) -> str:
    """Four pages of the held-out data, edited."""
    rows = [json.loads(line) for line in Path(heldout).read_text().splitlines()[:4]]
    folder.mkdir()
    for row in rows:
        image = Path(heldout).parent / row["img_path"]
        row["img_path"] = shutil.copy(image, folder) and image.name
    edit(rows)
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder / "rows.jsonl")


@pytest.fixture
def mixed(heldout: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four pages of two widths, which are read in two batches."""

    def narrow(rows: list[dict[str, Any]]) -> None:
        for row in rows[:2]:
            with Image.open(folder / row["img_path"]) as image:
                image.crop((0, 0, 128, 32)).save(folder / row["img_path"])

    folder = tmp_path_factory.mktemp("mixed") / "data"
    return lines(heldout, narrow, folder)


def drop_answers(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        del row["answer"]


def empty_answers(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["answer"] = " "


def break_an_image(rows: list[dict[str, Any]]) -> None:
    rows[1]["img_path"] = "rows.jsonl"


@pytest.mark.parametrize(
    ("edit", "gate", "message"),
    [
        (drop_answers, PASSES, "no transcript"),
        (empty_answers, None, "transcript is empty"),
        (break_an_image, None, "1 of 4 samples cannot be used"),
    ],
)
def test_pages_that_cannot_be_judged_on_are_refused_before_the_run(
    edit: Any, gate: Any, message: str, make_run: MakeRun, heldout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = lines(heldout, edit, tmp_path / "data")
    monkeypatch.setattr(Method, "quantize_group", lambda *_: pytest.fail("the run began"))
    with pytest.raises(CalibrationError, match=message):
        quantize(make_run(eval=data, eval_samples=None, gate=gate))
    assert names(tmp_path) == ["data"]


def test_without_transcripts_the_other_bounds_remain(make_run: MakeRun, heldout: str, tmp_path: Path) -> None:
    data = lines(heldout, drop_answers, tmp_path / "data")
    report = quantize(make_run(eval=data, eval_samples=None, gate={"agreement": 0.9, "loops": 0}))
    assert report.gate is not None
    assert report.gate.accepted
    assert report.evaluation is not None
    assert report.evaluation.model.cer is None


def test_too_little_memory_for_the_reading_is_said_before_the_start(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Enough for the run, which never holds the model, and not for three of it.
    enough = estimate(prepare(make_run(), Silent())).memory
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": enough}))
    with pytest.raises(BadInputError, match=r"MB of memory.*leave --eval out"):
        quantize(make_run())
    assert names(tmp_path) == []


def test_a_run_without_calibration_is_not_read_twice(make_run: MakeRun) -> None:
    report = quantize(make_run(method="rtn"))
    assert report.evaluation is not None
    assert report.evaluation.rounded is None


class Counted:
    """Counts the batches that readers read; may stop them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_at: int = -1) -> None:
        self.batches = 0
        read = Reader.read

        def counted(*args: Any, **options: Any) -> Any:
            if self.batches == stop_at:
                raise KeyboardInterrupt
            self.batches += 1
            return read(*args, **options)

        monkeypatch.setattr(Reader, "read", counted)


def test_an_interrupted_evaluation_goes_on_without_quantizing_or_reading_again(
    make_run: MakeRun, unread: Path, mixed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = {"eval": mixed, "eval_samples": None}
    with monkeypatch.context() as patch:
        every = Counted(patch)
        expected = quantize(make_run(**source, output=tmp_path / "expected", gate=FAILS))
    assert every.batches == 2 * 3
    with monkeypatch.context() as patch:
        Counted(patch, stop_at=4)
        with pytest.raises(KeyboardInterrupt):
            quantize(make_run(**source, gate=PASSES))
    assert not (tmp_path / "out").exists()
    with monkeypatch.context() as patch:
        rest = Counted(patch)
        patch.setattr(Method, "quantize_group", lambda *_: pytest.fail("a block was quantized again"))
        # Gate and keep may change: no byte of the weights depends on them.
        report = quantize(make_run(**source, gate=FAILS), resume=True)
    assert rest.batches == 3
    assert names(tmp_path) == ["expected.unaccepted", "out.unaccepted"]
    assert weights(tmp_path / "out.unaccepted") == weights(unread)
    assert expected.evaluation is not None
    assert report.evaluation is not None
    assert report.evaluation.model.kl == expected.evaluation.model.kl
    assert report.gate == expected.gate


def test_an_evaluation_that_fails_can_be_left_out_by_resuming(
    make_run: MakeRun, unread: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RunError("logits are NaN")

    run = make_run(gate=PASSES)
    with monkeypatch.context() as patch:
        patch.setattr(Reader, "read", fail)
        with pytest.raises(RunError, match=r"logits are NaN; .*the same command without --eval"):
            quantize(run)
    quantize(make_run(eval=None, eval_samples=None), resume=True)
    assert contents(run.output) == contents(unread)


def test_pages_are_built_once(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was checked before the run is what is read after it."""
    built: list[str] = []
    build = samples.build_sample

    def counted(record: Record, *arguments: Any, **options: Any) -> Any:
        built.append(record.name)
        return build(record, *arguments, **options)

    monkeypatch.setattr(samples, "build_sample", counted)
    monkeypatch.setattr("hyocr_core.pages.checked.build_sample", counted)
    report = quantize(make_run(method="rtn"))
    assert report.evaluation is not None
    assert len(built) == report.evaluation.pages == PAGES


@pytest.mark.parametrize(
    ("module", "cls", "function", "count"),
    [
        pytest.param("evaluation.reading.kept", "Kept", "add", 1, id="between two batches of pages"),
        pytest.param("checkpoint.writer", "StagedCheckpoint", "add_file", 3, id="while the numbers are written"),
    ],
)
def test_killed_while_it_reads_and_resumed_is_byte_identical(
    module: str, cls: str, function: str, count: int, demo: Path, calib: str, mixed: str, unread: Path, tmp_path: Path
) -> None:
    arguments = ["quant", "--method", "gptq", "--model", str(demo), "--output", str(tmp_path / "out")]
    arguments += ["--device", "cpu", "--calib", calib, "--num-samples", "3", "--eval", mixed]
    arguments += ["--gate", "loops=0"]
    script = KILLER.format(module=module, cls=cls, function=function, count=count)
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run([sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert names(tmp_path) == [stage_folder(tmp_path / "out").name]
    command = [str(Path(sys.executable).with_name("hyocr")), *arguments, "--resume"]
    resumed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert weights(tmp_path / "out") == weights(unread)
    assert names(tmp_path) == ["out"]
