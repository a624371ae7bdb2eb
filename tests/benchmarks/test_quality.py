"""The quality benchmark pairs draws, goes on where it stopped, and measures what `hyocr eval` does."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from hyocr_core.errors import RunError
from hyocr_core.kit import fit_grid
from hyocr_core.models.load import load_model
from hyocr_core.pages.sources import open_source
from tests.evaluating import evaluate
from tests.tiny import save_tiny

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import candidates
import quality
from candidates import OF_DOCUMENTS, OWN, FewBits, Given, Own, Peer, named
from instrument import Baseline
from quality import Bench, Conditions, Finished, Measured, Subject, difference, spread, table

CONDITIONS = Conditions("demo", "transformers", "gptq", "model", "code", 4, 3)
needs_fonts = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib has the fonts")


class Noisy:
    """Stands in for a method: its checkpoint differs from the original by noise."""

    default = "noisy"

    def __init__(self, demo: Path, name: str = "noisy", code: str = "1", *, calibrated: bool = True) -> None:
        self.name, self.code, self.calibrated, self._demo = name, code, calibrated, demo
        self.calls: list[Given] = []

    def quantize(self, given: Given, output: Path) -> None:
        self.calls.append(given)
        save_tiny(self._demo, output, noise=0.02 * len(self.calls))


class Failing(Noisy):
    def quantize(self, given: Given, output: Path) -> None:  # noqa: ARG002
        raise RunError("no such kernel")


@pytest.fixture(scope="module")
def subject(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("subject")
    checkpoint, data = save_tiny(demo, folder / "checkpoint"), folder / "data"
    data.mkdir()
    torch.manual_seed(0)
    for split, count in {"heldout": 4, "calib": 9}.items():
        rows = []
        for index in range(count):
            name = f"{split}-{index}.png"
            Image.fromarray(torch.randint(256, (32, 256), dtype=torch.uint8).numpy()).save(data / name)
            rows.append({"question": "Extract the text in the image.", "answer": f"text {index}", "img_path": name})
        (data / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return Subject("demo", checkpoint, data)


def bench(subject: Subject, finished: Path) -> Bench:
    return Bench(subject, "transformers", 4, 3, Finished(finished))


def measured(kl: Sequence[float], name: str = "gptq") -> list[Measured]:
    conditions = replace(CONDITIONS, candidate=name)
    return [Measured(conditions, draw, each / 1e4, 0.99, 0.02, 0.01) for draw, each in enumerate(kl)]


def test_what_is_above_the_default_is_taken_draw_by_draw() -> None:
    own, default = measured([3, 5, 10]), measured([1, 4, 6])
    mean, error = difference(own[::-1], default)
    assert mean == pytest.approx(fmean([2, 1, 4]) / 1e4)
    assert error == pytest.approx(stdev([2, 1, 4]) / 3**0.5 / 1e4)
    # A draw that only one of them has says nothing.
    assert difference(own[:1], default) == pytest.approx((2e-4, 0.0))


def test_the_spread_is_the_standard_deviation() -> None:
    assert spread([1, 2, 6]) == f"3.00 ± {stdev([1, 2, 6]):.2f}"
    assert spread([1.234]) == "1.23"


def test_the_table_compares_with_the_default_of_the_method() -> None:
    found = [*measured([1, 4, 6]), *measured([3, 5, 10], "gptq bits=8"), *measured([7, 7, 7], "awq search=module")]
    defaults = {"gptq": "gptq", "gptq bits=8": "gptq", "awq search=module": "awq"}
    _, _, full, plain, eight, lone = table(found, defaults)
    assert full == "| full precision |  |  |  | 1.00% |"
    assert plain == "| `gptq` | 3.67 ± 2.52 |  | 99.000% | 2.00% |"
    assert eight == "| `gptq bits=8` | 6.00 ± 3.61 | +2.33 ± 0.88 | 99.000% | 2.00% |"
    assert lone == "| `awq search=module` | 7.00 ± 0.00 |  | 99.000% | 2.00% |"


def test_a_draw_takes_its_own_lines_of_the_pool(subject: Subject) -> None:
    pool = (subject.data / "calib.jsonl").read_text(encoding="utf-8").splitlines()
    drawn = [subject.draw(seed, 4).read_text(encoding="utf-8").splitlines() for seed in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]
    for lines in drawn:
        assert len(set(lines)) == 4
        assert sorted(lines, key=pool.index) == lines


def test_a_rerun_measures_only_what_is_missing(subject: Subject, demo: Path, tmp_path: Path) -> None:
    method, file = Noisy(demo), tmp_path / "finished.jsonl"
    first = list(bench(subject, file).measure(method, 2))
    assert [one.draw for one in first] == [0, 1]
    assert first[1].kl > first[0].kl > 0
    again = Noisy(demo)
    assert list(bench(subject, file).measure(again, 3))[:2] == first
    assert [given.lines.name for given in again.calls] == ["calib-4-2.jsonl"]
    other = Noisy(demo, code="2")
    assert [one.draw for one in bench(subject, file).measure(other, 1)] == [0]
    assert len(other.calls) == 1


def test_a_method_that_looks_at_no_lines_is_measured_once(subject: Subject, demo: Path, tmp_path: Path) -> None:
    method = Noisy(demo, calibrated=False)
    found = list(bench(subject, tmp_path / "finished.jsonl").measure(method, 3))
    assert len(method.calls) == 1
    assert [one.draw for one in found] == [0, 1, 2]
    assert len({one.kl for one in found}) == 1


def test_one_that_fails_is_named_and_the_others_go_on(
    subject: Subject, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failures: list[str] = []
    methods = [Failing(demo, "broken"), Noisy(demo)]
    found = list(quality._measure_all(bench(subject, tmp_path / "finished.jsonl"), methods, 1, failures))
    assert [one.conditions.candidate for one in found] == ["noisy"]
    assert failures == ["demo broken"]
    assert "demo broken: no such kernel" in capsys.readouterr().err


def test_the_instrument_measures_what_an_evaluation_does(subject: Subject, demo: Path, tmp_path: Path) -> None:
    other = save_tiny(demo, tmp_path / "other", noise=0.05)
    heldout = subject.data / "heldout.jsonl"
    baseline = Baseline(subject.checkpoint, heldout, None, "transformers", torch.float32)
    result = evaluate(other, open_source(str(heldout)), baseline=subject.checkpoint, forward="transformers")
    assert result.comparison is not None
    assert result.baseline is not None
    found = baseline.compare(baseline.open(other))
    assert found.kl == pytest.approx(result.comparison.kl, rel=1e-3)
    assert found.agreement == pytest.approx(result.comparison.agreement)
    assert baseline.read(baseline.open(other)).cer == pytest.approx(result.model.cer)
    assert baseline.score.cer == pytest.approx(result.baseline.cer)
    same = baseline.compare(baseline.open(subject.checkpoint))
    assert same.kl == pytest.approx(0, abs=1e-9)
    assert same.agreement == 1


@pytest.mark.needs_methods
def test_every_candidate_of_the_table_is_one_and_is_compared_with_another() -> None:
    found = {name: Own(name) for name in OWN}
    assert len(found) == len(OWN)
    assert {each.default for each in found.values()} <= set(found)
    assert not found["rtn"].calibrated
    assert not found["fp8 activation_scheme=dynamic"].calibrated
    assert found["gptq"].calibrated
    assert found["gptq"].code != found["awq"].code


def test_another_tool_is_run_by_its_own_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shared in ("peer.py", "saved.py"):
        (tmp_path / shared).touch()
    (tmp_path / "with_pytest.py").write_text(
        "import pathlib, sys\n"
        "at = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
        "sys.exit('no such setting') if at['--setting'] == 'awq' else None\n"
        "pathlib.Path(at['--output']).write_text(' '.join(sorted(at)) + ' ' + at['--calib'])\n"
    )
    monkeypatch.setattr(candidates, "PEERS", tmp_path)
    given = Given(tmp_path / "checkpoint", tmp_path / "lines.jsonl", "transformers")
    peer = Peer("pytest", "gptq-best", Path(sys.executable))
    peer.quantize(given, tmp_path / "output")
    assert (tmp_path / "output").read_text() == f"--calib --model --output --setting {given.lines}"
    assert (peer.name, peer.default, peer.version) == ("pytest gptq-best", "gptq", pytest.__version__)
    with pytest.raises(RunError, match=r"pytest awq: .* ends with 1: no such setting"):
        Peer("pytest", "awq", Path(sys.executable)).quantize(given, tmp_path / "output")


@pytest.mark.needs_methods
def test_fewer_bits_leave_fewer_values_in_a_group(subject: Subject, tmp_path: Path) -> None:
    found = {name: named(name) for name in OF_DOCUMENTS}
    assert {name for name, each in found.items() if isinstance(each, FewBits)} == set(OF_DOCUMENTS[-4:])
    assert {each.default for each in found.values()} <= set(found)
    from hyocr_plugin_gptq import layers

    values = {}
    for bits in (2, 3):
        found[f"rtn in {bits} bits"].quantize(Given(subject.checkpoint, Path(), "transformers"), tmp_path / f"{bits}")
        model = load_model(tmp_path / f"{bits}", torch.device("cpu"), "transformers")
        groups = model.model.language_model.layers[0].mlp.up_proj.weight.unflatten(1, (-1, 128)).flatten(0, 1)
        values[bits] = max(len(group.unique()) for group in groups)
    assert values == {2: 4, 3: 8}
    assert vars(layers)["fit_grid"] is fit_grid, "others keep their bits"


def test_parts_are_columns_of_the_table() -> None:
    full = {"teds": 1.0, "formula": 0.0}
    found = [replace(one, parts={"teds": 0.5, "formula": 0.25}, full_parts=full) for one in measured([1, 2])]
    title, _, whole, row = table(found, {"gptq": "gptq"})
    assert title == "| candidate | KL, 10^-4 | above the default | agreement | CER | `teds` | `formula` |"
    assert whole.endswith("| 1.00% | 100.00% | 0.00% |")
    assert row.endswith("| 2.00% | 50.00% | 25.00% |")


@pytest.mark.needs_methods
def test_the_reader_of_documents_is_measured_by_part(tmp_path: Path) -> None:
    pytest.importorskip("apted")
    counts = ["--draws", "1", "--lines", "4", "--samples", "9"]
    command = ["--reader", "documents", *counts, "--candidate", "rtn in 2 bits", "--work", str(tmp_path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "POOL", 4)
        done = CliRunner().invoke(quality.main, command)
    assert done.exit_code == 0, done.output
    title, _, full, damaged = done.stdout.strip().splitlines()[-4:]
    teds = title.split(" | ").index("`teds`")
    assert full.split(" | ")[teds] == "100.00%"
    assert float(damaged.split(" | ")[teds].removesuffix("%")) < 100


@needs_fonts
@pytest.mark.needs_methods
def test_the_command_measures_and_goes_on(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "POOL", 6)
    where = ["--reader", "demo", "--checkpoint", f"demo={subject.checkpoint}", "--work", str(tmp_path / "work")]
    counts = ["--draws", "2", "--lines", "4", "--samples", "3"]
    command = [
        *where,
        *counts,
        "--candidate",
        "rtn",
        "--candidate",
        "rtn mse=false",
        "--json",
        str(tmp_path / "result"),
    ]
    done = CliRunner().invoke(quality.main, command)
    assert done.exit_code == 0, done.output
    assert "left out llmcompressor: no --llmcompressor PYTHON was given" in done.stderr
    assert "demo, forward of transformers" in done.stdout
    assert "| `rtn mse=false` |" in done.stdout
    result = json.loads((tmp_path / "result").read_text(encoding="utf-8"))
    assert len(result["measured"]) == 4
    assert {"cpu", "torch", "command", "peers"} <= result["how"].keys()
    monkeypatch.setattr(Own, "quantize", lambda *_: pytest.fail("is measured already"))
    assert CliRunner().invoke(quality.main, command).stdout == done.stdout


@needs_fonts
def test_a_reader_without_a_checkpoint_and_the_one_kept_aside_are_left_out(tmp_path: Path) -> None:
    command = ["--checkpoint", f"deep={tmp_path}", "--reader", "deep", "--work", str(tmp_path / "work"), "--draws", "1"]
    done = CliRunner().invoke(quality.main, command)
    assert done.exit_code == 0, done.output
    assert f"left out deep: no checkpoint in {tmp_path}; train it, or give --checkpoint" in done.stderr
    assert "aside" not in done.stdout + done.stderr
    refused = CliRunner().invoke(quality.main, ["--reader", "aside"])
    assert refused.exit_code == 2
