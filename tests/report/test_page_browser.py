"""The page as a browser shows it: wide and narrow, light and dark."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyocr_core.evaluation.scores.result import Comparison
from hyocr_core.report.page import write_page
from tests.report import built
from tests.report.browser import CHROMIUM, Browser, browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

PHONE, DESK = 360, 1280

BEYOND = """
[...document.querySelectorAll("body *")]
    .filter(e => !e.closest(".scroll") || e.classList.contains("scroll"))
    .filter(e => e.getClientRects().length)
    .filter(e => { const box = e.getBoundingClientRect(); return box.left < -1 || box.right > innerWidth + 1; })
    .map(e => e.outerHTML.slice(0, 120))
"""
DRAWN = """
[...document.querySelectorAll("figure.plot")].map(figure => {
    const seen = [...figure.querySelectorAll("svg")].filter(svg => svg.getClientRects().length);
    const box = seen[0].getBoundingClientRect();
    const painted = [...seen[0].querySelectorAll("path, use")].map(e => e.getBoundingClientRect());
    const words = [...seen[0].querySelectorAll("text")].map(e => e.getBoundingClientRect());
    return {
        id: figure.id, plots: seen.length, width: box.width, height: box.height,
        marks: painted.filter(b => b.width + b.height > 0).length,
        cut: words.filter(b => b.left < box.left - 4 || b.right > box.right + 4).length,
        words: words.length,
        overlap: words.flatMap((a, index) => words.slice(index + 1).map(b => [a, b])).filter(([a, b]) =>
            Math.abs(a.bottom - b.bottom) < 1 && a.left < b.right && b.left < a.right).length,
        smallest: Math.min(...words.map(b => b.height)),
    };
})
"""
FRAMES = 50
SIDEWAYS = """
[...document.querySelectorAll(".scroll")].map(box => {
    const titles = [...box.querySelectorAll("thead th")];
    const seen = titles.filter(title => title.getBoundingClientRect().right <= box.getBoundingClientRect().right + 1);
    return {
        scrolls: box.scrollWidth > box.clientWidth + 1,
        hint: box.querySelector(".sideways").getClientRects().length > 0,
        titles: titles.map(title => title.innerText.split("\\n")[0]),
        seen: seen.map(title => title.innerText),
    };
})
"""
COLOURS = """
(() => {
    const of = (e, name) => getComputedStyle(e)[name];
    const bar = document.querySelector("#plot-blocks path[style*='--worst']");
    return [of(document.body, "backgroundColor"), of(document.body, "color"), of(bar, "fill")];
})()
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that a page can hold: long words, a vision tower, other checkpoints."""
    folder = tmp_path_factory.mktemp("browser")
    long = built.page(f"{'scan' * 40}.png", "word " * 300 + "W" * 300, "word " * 300 + "VV" * 150, "word " * 299)
    result = built.evaluation((long, *built.some_pages(12)))
    vision = [block.model_copy(update={"name": f"vit.layers.{index}"}) for index, block in enumerate(result.blocks)]
    result = result.model_copy(update={"blocks": (*vision, *result.blocks)})
    commands = {"quant": f"hyocr quant --output {'very-' * 60}long"}
    checkpoint = built.checkpoint(folder / f"HunyuanOCR-{'int4-' * 12}", None, result, commands)
    small = result.model_copy(update={"model": built.score(0.02, weight_bytes=900_000_000)})
    return write_page(checkpoint, [built.checkpoint(folder / "other", None, small)])


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [DESK, 800, PHONE])
def test_nothing_overflows_and_every_plot_is_drawn(page: Path, tab: Browser, width: int, dark: bool) -> None:
    seen = len(tab.events)
    tab.open(page, width, dark=dark)
    tab.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.evaluate(BEYOND) == []
    plots: list[dict[str, Any]] = tab.evaluate(DRAWN)
    assert len(plots) == 9
    for plot in plots:
        assert plot["plots"] == 1, plot
        assert plot["width"] > 200, plot
        assert plot["height"] > 80, plot
        assert plot["marks"] > 5, plot
        assert plot["words"] > 3, plot
        assert plot["cut"] == 0, plot
        assert plot["overlap"] == 0, plot
        assert plot["smallest"] > 8, plot
    events = tab.events[seen:]
    told = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    assert [event for event in events if event["method"] in told] == []
    requests = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in requests if not url.startswith("data:")] == [page.resolve().as_uri()]


@pytest.mark.parametrize("width", [DESK, 390])
def test_a_table_that_scrolls_says_so_and_shows_first_what_decides(page: Path, tab: Browser, width: int) -> None:
    tab.open(page, width)
    tab.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    # A scroll timeline is of the frame before.
    for _ in range(FRAMES):
        tables: list[dict[str, Any]] = tab.evaluate(SIDEWAYS)
        if [table["hint"] for table in tables] == [table["scrolls"] for table in tables]:
            break
        time.sleep(0.1)
    assert [table["hint"] for table in tables] == [table["scrolls"] for table in tables]
    assert width == DESK or any(table["scrolls"] for table in tables)
    beside, layers = (
        next(table for table in tables if name in table["titles"]) for name in ("to best", "output error")
    )
    assert [title.split("\n")[0] for title in beside["seen"]][:2] == ["checkpoint", "size"]
    assert layers["seen"][:2] == ["layer", "output error"]
    assert layers["titles"].count("output error") == 1


@pytest.mark.parametrize("width", [DESK, PHONE])
@pytest.mark.parametrize("interval", [(-0.0009, 0.0006), (-0.000018, 0.00003)])
def test_small_differences_have_ticks_that_can_be_read(
    tmp_path: Path, tab: Browser, width: int, interval: tuple[float, float]
) -> None:
    near = Comparison(
        cer_difference=sum(interval) / 2,
        cer_difference_interval=interval,
        identical_pages=510,
        length_ratio=1.0,
        tokens=4096,
        agreement=0.9997,
        kl=0.0002,
    )
    result = built.evaluation(built.some_pages(2), comparison=near, rounded_comparison=near)
    tab.open(write_page(built.checkpoint(tmp_path, None, result)), width, dark=False)
    (plot,) = [plot for plot in tab.evaluate(DRAWN) if plot["id"] == "plot-difference"]
    assert plot["words"] >= 7
    assert plot["overlap"] == 0


def test_it_follows_light_and_dark(page: Path, tab: Browser) -> None:
    shown = []
    for dark in (False, True):
        tab.open(page, DESK, dark=dark)
        shown.append(tab.evaluate(COLOURS))
    (light_back, light_ink, light_bar), (dark_back, dark_ink, dark_bar) = shown
    assert _brightness(light_back) > 240 > 60 > _brightness(light_ink)
    assert _brightness(dark_back) < 40 < 200 < _brightness(dark_ink)
    assert light_bar != dark_bar


def _brightness(colour: str) -> float:
    numbers = [float(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    return sum(numbers) / 3


def test_a_click_takes_the_whole_command(page: Path, tab: Browser) -> None:
    tab.open(page, DESK)
    script = "getComputedStyle(document.querySelector('pre.command')).userSelect"
    assert tab.evaluate(script) == "all"


def test_images_are_decoded(page: Path, tab: Browser) -> None:
    tab.open(page, DESK)
    widths = tab.evaluate("[...document.images].map(image => image.complete && image.naturalWidth)")
    assert len(widths) > 5
    assert set(widths) == {640}
