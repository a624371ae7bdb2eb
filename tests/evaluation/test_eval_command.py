from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from hyocr_core.cli.eval import eval_command
from hyocr_core.cli.main import main
from hyocr_core.evaluation.reading.local import read_batch
from hyocr_core.evaluation.recorded.record_folder import load_evaluation, load_evaluations
from hyocr_core.evaluation.scores.result import EvalResult
from hyocr_core.settings.eval_config import EvalConfig
from hyocr_core.shown import spreadsheet
from hyocr_core.terminal.console import PlainConsole
from hyocr_core.terminal.evaluation_table import eval_table
from hyocr_core.terminal.fitting_tables import fitted

pytestmark = pytest.mark.needs_methods


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "pages"
    data.mkdir()
    for index in range(4):
        Image.new("RGB", (256, 32), (index * 60, 9, 200)).save(data / f"{index}.png")
        (data / f"{index}.txt").write_text("abc\n")
    return data


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["eval", *map(str, arguments)])


def test_json_is_one_object_on_stdout(tiny: Path, noisy: Path, folder: Path) -> None:
    result = run(noisy, "--data", folder, "--baseline", tiny, "--json", "--max-new-tokens", 5)
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["data"] == str(folder)
    assert data["decoding"]["max_new_tokens"] == 5
    assert [page["name"] for page in data["pages"]] == ["0.png", "1.png", "2.png", "3.png"]
    assert set(data["comparison"]) == {
        "cer_difference",
        "cer_difference_interval",
        "identical_pages",
        "length_ratio",
        "tokens",
        "agreement",
        "agreement_interval",
        "kl",
        "metrics",
    }
    assert data["model"]["model"] == str(noisy)
    assert data["baseline"]["model"] == str(tiny)
    assert data["verdict"]["outcome"] == "unknown"
    assert data["verdict"]["text"].endswith(" on 4 pages, too few to say what was lost.")


def test_table_goes_to_stdout_and_talk_to_stderr(tiny: Path, noisy: Path, folder: Path) -> None:
    result = run(noisy, "--data", folder, "--baseline", tiny)
    assert result.exit_code == 0, result.output
    for word in ("4 pages", "CER", "95 % interval", "identical pages", "next-token agreement", "KL, nats per token"):
        assert word in result.stdout
    assert "read pages" in result.stderr
    assert "read pages" not in result.stdout
    assert result.stdout.splitlines()[-1].endswith(" on 4 pages, too few to say what was lost.")


def test_table_without_baseline_has_one_column(tiny: Path, folder: Path) -> None:
    result = run(tiny, "--data", folder)
    assert result.exit_code == 0, result.output
    assert "exact match" in result.stdout
    assert "baseline" not in result.stdout.splitlines()[1]
    assert result.stdout.endswith(" on 4 pages; only a baseline can tell what was lost.\n")


def test_table_shows_every_measure_and_fits_80_columns(
    tiny: Path, noisy: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = EvalResult.model_validate_json(run(noisy, "--data", folder, "--baseline", tiny, "--json").stdout)
    text = narrow(result)
    labels = [line[:22].strip() for line in text.splitlines()]
    for label in (
        *("runtime", "CER", "CER, mean of pages", "WER", "WER, mean of pages", "norm. edit distance", "exact match"),
        *("length / reference", "length / baseline", "repetition loops", "cut at token limit", "pages per second"),
        *("tokens per second", "first token after", "weights", "decoder", "vision", "embeddings", "rest"),
        *("peak memory", "identical pages", "next-token agreement"),
    ):
        assert labels.count(label) == 1, label
    assert labels.count("95 % interval") == 5
    assert max(map(len, text.splitlines())) <= 80
    named = next(line.split()[1:] for line in text.splitlines() if line.startswith("checkpoint"))
    assert named == [noisy.name, tiny.name], "the last part of a path, which was typed whole"


def test_what_pages_were_asked_is_shown_and_recorded(tiny: Path, folder: Path) -> None:
    asked = ("--data", folder, "--task", "table:en", "--system", "Be\n[exact].", "--max-new-tokens", 2)
    lines = [" ".join(line.split()) for line in run(tiny, *asked).stdout.splitlines()]
    assert "task table:en" in lines
    assert r"system message 'Be\n[exact].'" in lines
    result = EvalResult.model_validate_json(run(tiny, *asked, "--json").stdout)
    assert (result.task, result.system) == ("table:en", "Be\n[exact].")


def narrow(result: EvalResult) -> str:
    """The table on a terminal of 80 columns."""
    console = PlainConsole(width=80)
    with console.capture() as capture:
        console.print(fitted(eval_table(result), console, 80))
    return capture.get()


def test_rounding_to_nearest_has_its_column(tiny: Path, by_rtn: Path, folder: Path) -> None:
    arguments = (by_rtn, "--data", folder, "--baseline", tiny, "--rtn", "--max-new-tokens", 3)
    shown = run(*arguments)
    assert shown.exit_code == 0, shown.output
    lines = {line[:22].strip(): line[22:].split() for line in shown.stdout.splitlines()}
    assert lines["4 pages"] == ["model", "baseline", "round", "to", "nearest", "(RTN)", "difference"]
    assert lines["runtime"] == ["dequant", "transformers", "dequant"]
    assert len(lines["next-token agreement"]) == 4, "per cent, of the model and of what was rounded"
    assert lines["most changed block"][0].startswith("model.layers.")
    result = EvalResult.model_validate_json(run(*arguments, "--json").stdout)
    assert result.rounded is not None
    assert result.rounded_comparison == result.comparison
    assert max(map(len, narrow(result).splitlines())) <= 80


def test_rounding_to_nearest_without_a_baseline_is_refused(by_rtn: Path, folder: Path) -> None:
    result = run(by_rtn, "--data", folder, "--rtn")
    assert result.exit_code == 2
    assert "evaluation: rounded needs a baseline" in result.stderr
    assert "check pages" not in result.stderr


def test_a_recorded_evaluation_lies_in_the_checkpoint(tiny: Path, by_rtn: Path, folder: Path, tmp_path: Path) -> None:
    for checkpoint, page in ((by_rtn, "report/index.html"), (tiny, "report")):
        mine = shutil.copytree(checkpoint, tmp_path / checkpoint.parent.name)
        result = run(mine, "--data", folder, "--baseline", tiny, "--max-new-tokens", 3, "--record", "--json")
        assert result.exit_code == 0, result.output
        assert load_evaluation(mine) == EvalResult.model_validate_json(result.stdout)
        expected = ["hyocr", "eval", str(mine), "--data", str(folder), "--baseline", str(tiny)]
        assert shlex.split(load_evaluations(mine)[0].command or "")[:7] == expected
        assert f"report {mine / page}" in result.stderr
        assert ("no page is drawn" in result.stderr) == (checkpoint is tiny)
        assert (mine / page).exists()
        again = run(mine, "--data", folder, "--max-new-tokens", 2, "--record")
        assert again.exit_code == 0, again.output
        recorded = load_evaluation(mine)
        assert recorded is not None
        assert recorded.baseline is None


def test_recording_where_nothing_can_be_written_stops_before_reading(
    tiny: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyocr_core.evaluation.evaluate.evaluated", lambda *_, **__: pytest.fail("pages were read"))
    mine = shutil.copytree(tiny, tmp_path / "mine")
    (mine / "report").write_text("")
    for model, reason in ((mine, "is in the way and no folder"), ("tencent/HunyuanOCR", "is no local folder")):
        result = run(model, "--data", folder, "--record")
        assert result.exit_code == 2
        assert reason in result.stderr


def test_csv_holds_a_row_for_each_page(tiny: Path, noisy: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "1.txt").write_text('two "lines",\nof 漢字\n')
    path = tmp_path / "pages.csv"
    result = run(noisy, "--data", folder, "--baseline", tiny, "--json", "--csv", path)
    assert result.exit_code == 0, result.output
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    pages = json.loads(result.stdout)["pages"]
    assert [row["reference"] for row in rows] == ["abc", 'two "lines",\nof 漢字', "abc", "abc"]
    named = ("metrics", "baseline_metrics", "notes", "baseline_notes")
    shown = [{key: spreadsheet(str(value)) for key, value in page.items() if key not in named} for page in pages]
    assert shown == rows


def test_csv_without_a_baseline_has_no_columns_for_one(tiny: Path, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "pages.csv"
    for _ in range(2):
        assert run(tiny, "--data", folder, "--csv", path).exit_code == 0
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["name", "reference", "text", "errors", "cer", "wer", "loop", "cut"]
    assert len(rows) == 4
    assert not list(tmp_path.glob(".pages.csv*")), "the file is replaced as a whole"


@pytest.mark.parametrize("name", ["none/pages.csv", "pipe"])
def test_a_csv_that_cannot_be_written_stops_before_reading(tiny: Path, folder: Path, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    result = run(tiny, "--data", folder, "--csv", tmp_path / name)
    assert result.exit_code == 2
    assert f"cannot write {tmp_path / name}" in result.stderr
    assert "check pages" not in result.stderr


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(
    tiny: Path, noisy: Path, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (noisy, "--data", folder, "--baseline", tiny, "--batch-size", 1, "--json")
    expected = json.loads(run(*arguments).stdout)
    assert list((cache / "hyocr" / "eval").iterdir()) == [], "nothing stays of a finished evaluation"
    read: list[list[int]] = []

    def interrupted(pages: list[int], *others: Any, **options: Any) -> Any:
        if len(read) == 3:
            raise KeyboardInterrupt
        read.append(pages)
        return read_batch(pages, *others, **options)

    monkeypatch.setattr("hyocr_core.evaluation.reading.read_pages.read_batch", interrupted)
    stopped = run(*arguments)
    assert stopped.exit_code == 130
    assert "interrupted; the same command goes on after the pages read so far" in stopped.stderr
    assert stopped.stdout == ""

    def watched(pages: list[int], *others: Any, **options: Any) -> Any:
        read.append(pages)
        return read_batch(pages, *others, **options)

    monkeypatch.setattr("hyocr_core.evaluation.reading.read_pages.read_batch", watched)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "3 of 4 pages are kept from an interrupted run" in result.stderr
    assert read == [[0], [1], [2], [3]], "no page is read twice"
    assert json.loads(result.stdout)["pages"] == expected["pages"]
    assert list((cache / "hyocr" / "eval").iterdir()) == []


def test_state_is_kept_where_asked_and_may_be_left_alone(
    tiny: Path, folder: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    read: list[list[int]] = []

    def interrupted(pages: list[int], *others: Any, **options: Any) -> Any:
        if read:
            raise KeyboardInterrupt
        read.append(pages)
        return read_batch(pages, *others, **options)

    arguments = (tiny, "--data", folder, "--batch-size", 1, "--state", state)
    with monkeypatch.context() as patch:
        patch.setattr("hyocr_core.evaluation.reading.read_pages.read_batch", interrupted)
        assert run(*arguments).exit_code == 130
    assert len(list(state.iterdir())) == 1
    assert not (cache / "hyocr").exists()
    result = run(*arguments, "--no-resume")
    assert result.exit_code == 0
    assert "read pages: 4" in result.stderr


def test_a_state_that_cannot_be_written_is_named(tiny: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(tiny, "--data", folder, "--state", tmp_path / "file" / "below")
    assert result.exit_code == 2
    assert f"cannot keep pages in {tmp_path / 'file' / 'below'}" in result.stderr
    assert "--state" in result.stderr


def test_number_of_samples_and_seed_choose_the_pages(tiny: Path, folder: Path) -> None:
    names = []
    for seed in range(6):
        result = run(tiny, "--data", folder, "--num-samples", 2, "--seed", seed, "--json", "--max-new-tokens", 1)
        names.append(tuple(page["name"] for page in json.loads(result.stdout)["pages"]))
    assert all(len(pair) == 2 for pair in names)
    assert len(set(names)) > 1


def test_a_page_that_fails_is_named_on_stderr(tiny: Path, folder: Path) -> None:
    for index in range(4, 10):
        Image.new("RGB", (256, 32), (9, index * 25, 9)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text("abc")
    (folder / "3.png").write_bytes(b"no image")
    result = run(tiny, "--data", folder, "--max-new-tokens", 2)
    assert result.exit_code == 0, result.output
    assert "3.png" in result.stderr


def test_bad_input_is_one_line_and_exit_2(tiny: Path, folder: Path, tmp_path: Path) -> None:
    for transcript in folder.glob("*.txt"):
        transcript.unlink()
    (empty := tmp_path / "empty").mkdir()
    for arguments, word in (
        ([tiny, "--data", folder], "0.png: no transcript"),
        ([tiny, "--data", tmp_path / "none"], "none"),
        ([empty, "--data", folder], "0.png: no transcript"),
        ([tmp_path / "none", "--data", "synthetic:1"], "none"),
        ([empty, "--data", "synthetic:1"], "empty"),
        ([tiny, "--data", "synthetic:1", "--baseline", empty], "empty"),
        ([tiny, "--data", "synthetic:1", "--device", "abacus"], "abacus"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        errors = [line for line in result.stderr.splitlines() if line.startswith("hyocr: error:")]
        assert len(errors) == 1
        assert word in errors[0]
        assert result.stdout == ""


@pytest.mark.parametrize("option", ["--num-samples", "--max-new-tokens", "--batch-size"])
def test_nothing_of_something_is_a_usage_error(tiny: Path, folder: Path, option: str) -> None:
    assert run(tiny, "--data", folder, option, 0).exit_code == 2


def test_a_file_holds_the_settings_and_options_win(tiny: Path, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "eval.yaml"
    file.write_text(f"model: {tiny}\ndata: {folder}\nnum_samples: 3\nseed: 5\nmetrics: [exact]\n")
    result = run("-c", file, "--num-samples", 2, "--max-new-tokens", 1, "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert (data["model"]["model"], len(data["pages"]), data["seed"]) == (str(tiny), 2, 5)


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("seeds: 5", ["m"], "evaluation (FILE): data: is missing; seeds: unknown key; did you mean seed?"),
        ("data: x", [], "evaluation (FILE): model: is missing"),
        ("data: x\nmetrics: {exact: 3}", ["m"], "evaluation (FILE): metrics.exact = 3: should be a mapping"),
        ("data: x\nbackend_options: 3", ["m"], "evaluation (FILE): backend_options = 3: should be a mapping"),
        ("data: x", ["m", "--metrics", "a,=3"], "--metrics a,=3: write NAME or NAME:KEY=VALUE"),
        ("[", ["m"], "FILE: line 1: "),
    ],
)
def test_a_bad_file_is_one_line(text: str, arguments: list[str], message: str, tmp_path: Path) -> None:
    file = tmp_path / "eval.yaml"
    file.write_text(text)
    result = run("-c", file, *arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert message.replace("FILE", str(file)) in line


def test_every_key_is_an_option_with_its_meaning_and_default() -> None:
    options = {option.name: option for option in eval_command.params if isinstance(option, click.Option)}
    given = eval_command.make_context("eval", ["model"]).params
    for key, field in EvalConfig.model_fields.items():
        if key == "model":
            continue
        assert options[key].help is not None
        assert (field.description or "")[1:] in (options[key].help or "")
        assert given[key] in (None, ()), "what is not given is left to the file"
    assert "[default: 600]" in (options["timeout"].help or "")
    assert "[default: 0]" in (options["seed"].help or "")


def test_help_explains_the_measures() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for word in ("character error rate", "greedily", "--baseline", "Exit codes"):
        assert word in result.stdout
