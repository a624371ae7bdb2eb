"""Which metrics are measured follows from the task and from what is named; notes and what is absent are in each row."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import pytest
from PIL import Image

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError, MetricError
from hyocr_core.evaluation.evaluate import check_transcripts
from hyocr_core.evaluation.recorded.csv_file import _row
from hyocr_core.evaluation.scores.chosen_metrics import choose_metrics, not_measured
from hyocr_core.evaluation.scores.measures import measurable
from hyocr_core.evaluation.scores.score import Answer, Asked, compare, measure, page_results
from hyocr_core.pages.prompts import TASKS
from hyocr_core.settings.eval_config import EvalConfig
from hyocr_core.settings.shared import Gate

TABLE = "<table><tr><td>a</td><td>b</td></tr></table>"
FORMULA = r"$$\frac{a}{b}$$"

DOCUMENT = {"teds", "teds-structure", "formula", "formula-exact", "text-blocks", "reading-order", "outline-f1"}
OF_TASKS = {
    "doc_parse": DOCUMENT | {"olmocr-tests"},
    "layout_parse": DOCUMENT | {"olmocr-tests"},
    "doc_trans_en2zh": DOCUMENT,
    "table": {"teds", "teds-structure"},
    "formula": {"formula", "formula-exact"},
    "trans_other2zh": {"formula", "formula-exact"},
    "trans_other2en": {"formula", "formula-exact"},
    "structured_parse": {"text-blocks", "reading-order"},
    "spotting_json": {"spotting-f1", "valid-json"},
    "spotting_hunyuan": {"spotting-f1"},
    "extraction": {"field-f1", "valid-json"},
}


def config(**settings: Any) -> EvalConfig:
    return EvalConfig(model="model", data="pages", baseline="original", **settings)


def pages(*transcripts: str | None) -> list[Record]:
    image = partial(Image.new, "RGB", (8, 8))
    return [Record(f"{index}.png", None, text, image) for index, text in enumerate(transcripts)]


@pytest.mark.parametrize("task", TASKS)
def test_metrics_follow_from_the_task(task: str) -> None:
    for asked in (task, *(f"{task}:{language}" for language in TASKS[task])):
        chosen = choose_metrics(config(task=asked))
        assert set(chosen) == OF_TASKS.get(task, set())
        assert not any(metric.named for metric in chosen.values())


def test_none_follow_where_no_task_is_asked() -> None:
    assert choose_metrics(config()) == {}


def test_fields_of_a_task_are_no_part_of_its_name() -> None:
    assert set(choose_metrics(config(task="extraction=total,date"))) == OF_TASKS["extraction"]


def test_what_is_named_comes_first_and_once() -> None:
    chosen = choose_metrics(config(task="table", metrics="hyocr-core:teds-structure", gate="teds=1"))
    assert {name: metric.named for name, metric in chosen.items()} == {"hyocr-core:teds-structure": True, "teds": True}


@pytest.mark.parametrize("settings", [{"metrics": "spotting-f1"}, {"gate": "spotting_f1=1"}])
def test_a_metric_of_another_task_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(MetricError, match=r"metric spotting-f1 .*: does not apply to the task table, but"):
        choose_metrics(config(task="table:en", **settings))
    assert set(choose_metrics(config(**settings))) == {"spotting-f1"}


def test_a_metric_of_every_answer_applies_to_any_task() -> None:
    assert "cer" not in choose_metrics(config(task="table", metrics="cer"))


def test_an_unknown_task_is_refused_as_such() -> None:
    with pytest.raises(CalibrationError, match="unknown task 'tables'"):
        choose_metrics(config(task="tables", metrics="teds"))


def test_what_follows_and_lacks_a_library_is_told_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apted", None)
    assert choose_metrics(config(task="table")) == {}
    assert list(not_measured(config(task="table"))) == [
        "not measured: teds, teds-structure, which needs apted: pip install 'hyocr-core[documents]'"
    ]
    with pytest.raises(MetricError, match="needs apted"):
        choose_metrics(config(task="table", metrics="teds"))


def test_a_gate_knows_the_parts_with_underscores_too() -> None:
    bounds = Gate.model_validate("teds=1.0,formula=1.0,valid_json=0").bounds
    assert bounds == {"teds": 1.0, "formula": 1.0, "valid-json": 0}
    with pytest.raises(ValueError, match="one of them is there twice"):
        Gate.model_validate("valid_json=0,valid-json=1")


def test_what_follows_is_measured_only_where_a_transcript_has_it() -> None:
    said: list[str] = []
    chosen = choose_metrics(config(task="doc_parse"))
    found = measurable(chosen, pages(f"{TABLE}\n\nwords", None), said.append)
    assert set(found) == {"teds", "teds-structure", "text-blocks"}
    assert said == []
    assert measurable(chosen, pages(None), said.append) == {}


def test_what_follows_never_refuses_a_transcript() -> None:
    said: list[str] = []
    found = measurable(choose_metrics(config(task="table")), pages("<table>a</table>"), said.append)
    assert found == {}
    assert [line.partition(": ")[0] for line in said] == ["teds is not measured", "teds-structure is not measured"]
    assert "0.png: its transcript has a table without a row" in said[0]


@pytest.mark.parametrize(
    ("name", "transcript", "message"),
    [
        ("teds", "words", "none of 1 pages has what it measures in its transcript"),
        ("field-f1", "words", "none of 1 pages has what it measures in its transcript"),
        ("valid-json", "words", "none of 1 pages has what it measures in its transcript"),
        ("teds", "<table>a</table>", "0.png: its transcript has a table without a row"),
        ("field-f1", '{"a": 1', "0.png: its transcript begins as JSON and is none"),
    ],
)
def test_ground_truth_that_a_named_metric_cannot_use_is_refused(name: str, transcript: str, message: str) -> None:
    asked = config(metrics=name)
    with pytest.raises(MetricError, match=f"^metric {name} .*: {message}"):
        check_transcripts(asked, choose_metrics(asked), pages(transcript))


def test_a_row_has_notes_and_no_number_for_what_its_page_lacks() -> None:
    chosen = choose_metrics(config(metrics="teds,formula"))
    asked = Asked(["0.png", "1.png"], [TABLE, FORMULA], 0, chosen)
    whole = measure([Answer(text, 5, True) for text in (TABLE, FORMULA)], asked)
    broken = measure([Answer(text, 5, True) for text in (TABLE[:-8], FORMULA[:-2])], asked)
    first, second = page_results(asked, broken, whole, [])
    assert (first.metrics, second.metrics) == ({"teds": 1.0}, {"formula": 0.0})
    assert first.notes == {"teds": "a <table> is not closed"}
    assert second.notes == {"formula": "a $$ is not closed"}
    assert first.baseline_notes == second.baseline_notes == {}
    assert _row(first)["note_teds"] == "a <table> is not closed"
    assert "formula" not in _row(first)
    assert compare(broken, whole, []).metrics["teds"].value == 0
