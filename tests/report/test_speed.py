"""How fast a checkpoint is served, on its page: from what was measured, and from nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markupsafe import Markup

from hyocr_core.evaluation.recorded.bench_record import save_bench
from hyocr_core.evaluation.recorded.evidence import gather
from hyocr_core.evaluation.scores.speeds import BenchResult, ServedSpeed, SpeedAt
from hyocr_core.report.glance import faster
from hyocr_core.report.page import write_page
from hyocr_core.report.plots import Plot
from hyocr_core.settings.bench_load import BenchLoad
from tests.report import built


def speed(model: str, *pages: float) -> ServedSpeed:
    """Of two levels, eight at once four times as fast. pages: a second, of each repetition."""
    levels = tuple(
        SpeedAt(
            at_once=at_once,
            tokens=100,
            pages_per_second=tuple(factor * each for each in pages),
            tokens_per_second=tuple(10 * factor * each for each in pages),
            first_token_seconds=(0.1,) * len(pages),
            token_seconds=(0.01,) * len(pages),
        )
        for at_once, factor in ((1, 1), (8, 4))
    )
    return ServedSpeed(
        model=model,
        runtime="vllm",
        forward="reference",
        weight_bytes=10**9,
        ready_seconds=20,
        memory_bytes=3 * 10**9,
        gpu_memory_bytes=None,
        levels=levels,
    )


def bench(model: ServedSpeed, baseline: ServedSpeed | None) -> BenchResult:
    return BenchResult(
        hyocr="0.1.0",
        data="/home/someone/secret/pages",
        pages=8,
        max_new_tokens=512,
        load=BenchLoad(at_once=(1, 8), turns=1, repetitions=3),
        model=model,
        baseline=baseline,
        environment={"processor": "a <b>machine</b>"},
    )


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take a second; this leaves their drawing out."""

    def draw(name: str, caption: str, label: str, *_: object) -> Plot:
        return Plot(label, caption, Markup("<svg></svg>"), Markup("<svg></svg>"))

    monkeypatch.setattr("hyocr_core.report.figures.draw", draw)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return built.checkpoint(tmp_path / "model", result=built.evaluation())


def text_of(folder: Path) -> str:
    html = write_page(folder).read_text(encoding="utf-8")
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL).replace("\u00a0", " ").split())


def test_what_an_evaluation_took_is_no_speed(folder: Path) -> None:
    text = text_of(folder)
    assert "How much faster? unknown" in text
    assert "hyocr bench model --baseline tencent/HunyuanOCR --backend vllm --record" in text
    assert not re.search(r"(tokens|pages) per second", text, re.IGNORECASE)


@pytest.mark.parametrize(
    ("ours", "tone", "headline"),
    [((2.0, 2.2, 2.6), "good", "2.20×"), ((0.9, 1.0, 1.2), "plain", "1.00×"), ((0.4, 0.5, 0.6), "bad", "0.50×")],
)
def test_the_first_answer(folder: Path, ours: tuple[float, ...], tone: str, headline: str) -> None:
    save_bench(folder, bench(speed("int4", *ours), speed("bf16", 1.0, 1.0, 1.1)))
    answer = faster(gather(folder))
    assert (answer.question, answer.headline, answer.tone) == ("How much faster?", headline, tone)
    assert answer.details[0].startswith("Pages per second in vllm, 8 at once: 4 before, ")


def test_the_page_shows_what_was_measured(folder: Path) -> None:
    save_bench(folder, bench(speed("/home/someone/secret/int4", 2.0), speed("bf16", 1.0)))
    text = text_of(folder)
    assert "How much faster? 2.00× the pages per second" in text
    assert "8 pages of pages, up to 512 tokens each; medians of 3" in text
    assert "8 gptq 8 8 to 8 80 80 to 80 100 ms 100 ms to 100 ms 10 ms 10 ms to 10 ms 2.00× 2.00× to 2.00×" in text
    assert "a &lt;b&gt;machine" in text
    assert "secret" not in text


def test_alone_it_has_no_factor(folder: Path) -> None:
    save_bench(folder, bench(speed("int4", 2.0), None))
    assert "How much faster? 8 pages per second" in text_of(folder)
