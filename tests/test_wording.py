"""What is shown in Chinese: every text has a translation, with the same values, and no other."""

from __future__ import annotations

import gettext
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from hyocr_core.checkpoint.quant_report import GateFigure, GateRecord, QuantReport
from hyocr_core.evaluation.recorded.bench_record import save_bench
from hyocr_core.evaluation.recorded.comparison import side_by_side
from hyocr_core.evaluation.recorded.summary import summarize
from hyocr_core.evaluation.scores.conclusion import conclude
from hyocr_core.evaluation.scores.numbers import count
from hyocr_core.evaluation.scores.result import EvalResult
from hyocr_core.report.card import model_card, record_numbers
from hyocr_core.report.comparison_page import write_comparison_page
from hyocr_core.report.kinds import kinds_of
from hyocr_core.report.page import write_page
from hyocr_core.report.plots import Plot
from hyocr_core.report.speed_page import write_speed_page
from hyocr_core.search.knapsack import Option
from hyocr_core.search.search_files import write_page as write_search_page
from hyocr_core.search.search_record import Tried
from hyocr_core.search.search_result import CurvePoint, GroupChoice, SearchResult, TriedRecipe, reasons
from hyocr_core.wording import listed, sentences, speaking, tr
from tests.report import built, test_by_part, test_speed
from tools import catalogue

NAMES = {
    *("CER", "WER", "KL", "RTN", "GB", "MB", "min", "nat", "hyocr", "push", "Hessian", "HunyuanOCR", "dequant", "gptq"),
    *("vLLM", "CUDA", "CPU", "Transformers", "transformers", "pip", "install", "openai", "model", "layers", "optimum"),
    "gptqmodel",
}
"""What is called so in Chinese too."""


def test_every_text_has_a_translation_and_none_is_stale() -> None:
    """`python tools/catalogue.py` renews the catalogue, and says what is left to translate."""
    assert list(catalogue.faults(catalogue.catalogue())) == []


def test_what_is_read_at_run_time_is_the_catalogue() -> None:
    with catalogue.MO.open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    for message in catalogue.catalogue():
        if message.id:
            assert compiled.gettext(str(message.id)) == message.string


def test_a_missing_and_a_stale_and_a_broken_translation_are_found() -> None:
    texts = catalogue.catalogue()
    texts["page"].string = ""
    texts["{low} to {high}"].string = "{low} 至"
    texts.add("nobody says this", "没有人说")
    found = "\n".join(catalogue.faults(texts))
    assert "not translated: 'page'" in found
    assert "no longer said: 'nobody says this'" in found
    assert "'{low} to {high}' has ['{high}', '{low}'], its translation ['{low}']" in found
    assert len(found.splitlines()) == 3


def test_a_language_holds_within_its_block_alone() -> None:
    with speaking("zh"):
        assert tr("{low} to {high}", low=1, high=2) == "1 至 2"
        assert count(3, "page") == "3\u00a0页"
        with speaking("en"):
            assert count(3, "page") == "3\u00a0pages"
        assert sentences(["甲", "乙"]) == "甲。乙。"
        assert listed(["甲", "乙"]) == "甲，乙"
    assert sentences(["A", "B"]) == "A. B."
    assert tr("{braces} of a plugin stay") == "{braces} of a plugin stay"


class Shown(HTMLParser):
    """The texts of a page that people see or hear, without code and what was read on pages."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._hidden = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag not in {"meta", "link", "img", "br", "path", "use"}:
            code = tag in {"style", "code", "pre"} or "read" in (named.get("class") or "").split()
            self._hidden += bool(self._hidden or code)
        self.texts += [value for name in ("aria-label", "alt") if (value := named.get(name))]

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self._hidden -= bool(self._hidden)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.texts.append(data)


def foreign(value: Any) -> Iterator[str]:
    """What stands in the evidence itself, but for the verdict, which is said anew."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key in {"config", "environment", "failures", "metrics"}:
                yield from (str(name).replace("_", " ") for name in each)
            if key != "verdict":
                yield from foreign(each)
    elif isinstance(value, list):
        for each in value:
            yield from foreign(each)
    else:
        yield str(value)


def english(texts: list[str], *evidence: QuantReport | EvalResult) -> set[str]:
    """Words that are neither Chinese nor names."""
    data = [foreign(json.loads(each.model_dump_json())) for each in evidence]
    known = NAMES | {word for values in data for value in values for word in words(value)}
    return {word for text in texts for word in words(text)} - known


def words(text: str) -> list[str]:
    return re.findall(r"(?<!-)\b[A-Za-z]{3,}", text)


DRAWN = ("worse", "not evaluated")
"""What the page shows otherwise, not the verdict alone."""


@pytest.fixture(scope="module")
def gate() -> GateRecord:
    return GateRecord(accepted=False, figures=(GateFigure(metric="cer", bound=0.1, value=0.19, passed=False),))


def evaluations() -> list[Any]:
    few = built.some_pages(4)
    silent = tuple(page.model_copy(update={"text": ""}) for page in few)
    plain = {"cer_difference": None, "cer_difference_interval": None}
    compared = built.evaluation().comparison
    assert compared is not None
    apart = compared.model_copy(update=plain)
    return [
        pytest.param(built.evaluation(), id="worse"),
        pytest.param(built.evaluation(pages=few), id="few pages"),
        pytest.param(built.evaluation(pages=silent), id="empty answers"),
        pytest.param(built.evaluation(baseline=None, comparison=None, rounded=None), id="alone"),
        pytest.param(built.evaluation(comparison=apart), id="agreement"),
        pytest.param(built.evaluation(blocks=(), layers=()), id="no blocks"),
        pytest.param(None, id="not evaluated"),
    ]


@pytest.mark.parametrize("result", [each for each in evaluations() if each.id in DRAWN])
def test_no_english_is_left_on_the_page(result: EvalResult | None, gate: GateRecord, tmp_path: Path) -> None:
    report = built.quant_report(gate=gate)
    folder = built.checkpoint(tmp_path / "gptq", report, result, {"quant": "hyocr quant", "eval": "hyocr eval"})
    html = write_page(folder, lang="zh").read_text(encoding="utf-8")
    assert html.startswith('<!doctype html>\n<html lang="zh">')
    evidence = [report] if result is None else [report, result]
    assert not english(Shown(html).texts, *evidence)


def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take a second; this leaves their drawing out."""

    def draw(name: str, caption: str, label: str, *_: object) -> Plot:
        return Plot(label, caption, Markup("<svg></svg>"), Markup("<svg></svg>"))

    monkeypatch.setattr("hyocr_core.report.figures.draw", draw)
    monkeypatch.setattr("hyocr_core.report.search_page.draw", draw)


def test_no_english_is_left_of_speed_parts_and_recipes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    undrawn(monkeypatch)
    config = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
    unit = {"metric": "agreement", "bound": 0.98, "value": 0.93, "passed": False, "unit": "of next tokens"}
    gate = GateRecord(accepted=False, figures=(GateFigure.model_validate(unit),))
    report = built.quant_report(quantization_config=config, gate=gate)
    lost = (
        test_by_part.page("t.png", test_by_part.TABLE, "nothing", {"teds": 0.0}, {}),
        test_by_part.page("f.png", r"$$\frac{a}{b}$$", "nothing", {"formula": 1.0}, {}),
    )
    result = test_by_part.evaluation(*lost)
    folder = built.checkpoint(tmp_path / "gptq", report, result)
    measured = test_speed.bench(test_speed.speed("gptq", 2.0, 2.1), test_speed.speed("HunyuanOCR", 1.0, 1.1))
    save_bench(folder, measured)
    html = write_page(folder, lang="zh").read_text(encoding="utf-8")
    left = english(Shown(html).texts, report.model_copy(update={"gate": None}), result)
    assert left <= {"GPU", "token", "agreement", *words(measured.model_dump_json())}, left
    for said in ("快了多少？", "未读出", "首个 token 延迟", "（至少 0.98 的下一词元）", "逐部分比较"):
        assert said in html, said
    with speaking("zh"):
        assert list(kinds_of(report)) == ["gptq：int4，每组 128 个，对称"]


def test_no_english_is_left_on_the_page_of_several(tmp_path: Path) -> None:
    names = ("gptq", "fp8", "awq")
    folders = [built.checkpoint(tmp_path / name, None, built.evaluation()) for name in names]
    with speaking("zh"):
        page = write_comparison_page(side_by_side(folders), tmp_path / "page.html")
    html = page.read_text(encoding="utf-8")
    assert not english(Shown(html).texts, built.quant_report(), built.evaluation()) - {"awq"}
    assert "推荐 " in html
    assert "帕累托最优" in html


def test_no_english_is_left_on_the_page_of_a_measurement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    undrawn(monkeypatch)
    for baseline in (test_speed.speed("HunyuanOCR", 1.0, 1.1), None):
        measured = test_speed.bench(test_speed.speed("gptq", 2.0, 2.1), baseline)
        with speaking("zh"):
            page = write_speed_page(measured, tmp_path / "speed.html")
        html = page.read_text(encoding="utf-8")
        left = english(Shown(html).texts)
        assert left <= {"GPU", "token", *words(measured.model_dump_json())}, left
        assert "部署后有多快" in html


def test_no_english_is_left_on_the_page_of_a_search(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    undrawn(monkeypatch)
    sizes = {"gptq": (100, 0.2), "fp8": (200, 0.1), "none": (400, 0.0), "awq": (90, 0.15)}
    options = [Option(name, kilobytes * 1000, kl) for name, (kilobytes, kl) in sizes.items()]
    measured = Tried(
        kl=0.1, cer_difference=0.001, agreement=0.99, loop_rate=0.0, baseline_loop_rate=0.0, weight_bytes=900
    )
    point = {"nbytes": 5000, "kl": 0.1}
    with speaking("zh"):
        why = ["; ".join(reasons(own, options)) for own in options]
        groups = [
            GroupChoice(layers=("layers",), candidate="gptq", nbytes=1000, kl=0.1, error=0.0, why=each) for each in why
        ]
        recipes = [
            TriedRecipe(**point, tried=tried, taken=taken) for tried in (measured, None) for taken in (True, False)
        ]
        result = SearchResult(
            model="gptq", data="pages", budget={"size": 1000}, recipe="gptq.yaml", nbytes=5000, kl=0.1,
            curve=(), seconds={}, groups=tuple(groups), tried=tuple(recipes), uniform={"gptq": CurvePoint(**point)},
        )  # fmt: skip
        write_search_page(tmp_path / "recipe.yaml", result)
    html = (tmp_path / "recipe.html").read_text(encoding="utf-8")
    assert not english([*Shown(html).texts, *why]) - {"awq", "fp8", "none", "pages"}
    assert "每一层为何这样选择" in html
    assert '<html lang="zh">' in html


@pytest.mark.parametrize("result", evaluations())
def test_no_english_is_left_in_the_card(result: EvalResult | None, gate: GateRecord, tmp_path: Path) -> None:
    with speaking("zh"):
        numbers = None if result is None else summarize(result, "heldout.jsonl")
    report = built.quant_report(lang="zh", evaluation=numbers, gate=gate)
    config = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
    card = model_card(report, "gptq", config, tmp_path / "none", penalty=1.08, from_hub=False)
    shown = re.sub(r"^---.*?^---$|^```.*?^```$|`[^`]*`|https?:\S+", "", card, flags=re.DOTALL | re.MULTILINE)
    evidence = [report] if result is None else [report, result]
    assert not english([shown], *evidence)
    assert "## 精度" in card


def test_a_chinese_card_stays_chinese_when_it_is_evaluated(tmp_path: Path) -> None:
    report, result = built.quant_report(lang="zh"), built.evaluation()
    folder = built.checkpoint(tmp_path / "gptq", report, result)
    card = folder / "README.md"
    config = {"quant_method": "gptq"}
    card.write_text(model_card(report, "gptq", config, card, penalty=1.0, from_hub=False), encoding="utf-8")
    assert "尚未测量。" in card.read_text(encoding="utf-8")
    with speaking("zh"):
        told = summarize(result, "heldout.jsonl")
    record_numbers(folder, summarize(result, "heldout.jsonl"), None, told)
    text = card.read_text(encoding="utf-8")
    assert "尚未测量" not in text
    assert "读得更差：CER 由 1.04 % 变为 1.23 %" in text
    # What programs read stays as it is.
    assert "it reads worse" in (folder / "hyocr_report.json").read_text(encoding="utf-8")


def test_a_page_takes_the_place_of_one_in_another_language(tmp_path: Path) -> None:
    """Without a choice it is in the language of the card."""
    folder = built.checkpoint(tmp_path / "gptq", built.quant_report(lang="zh"))
    assert "小了多少？" in write_page(folder).read_text(encoding="utf-8")
    assert "How much smaller?" in write_page(folder, lang="en").read_text(encoding="utf-8")


@pytest.mark.parametrize("result", evaluations()[:-1])
def test_the_verdict_is_said_in_whole_in_chinese(result: EvalResult) -> None:
    with speaking("zh"):
        verdict = conclude(result)
    for text in (verdict.text, *verdict.warnings):
        assert set(words(text)) <= {"CER"}, text
    assert verdict.outcome == conclude(result).outcome


def test_values_are_no_markup_in_chinese_either(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>\u202e{name}.jsonl"
    folder = built.checkpoint(tmp_path / "gptq", None, built.evaluation(data=evil, blocks=(), layers=()))
    html = write_page(folder, lang="zh").read_text(encoding="utf-8")
    assert "<img src=x" not in html
    assert "\u202e" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;⟨U+202E⟩{name}.jsonl" in html
