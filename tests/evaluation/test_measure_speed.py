"""How fast a checkpoint is served, measured on servers whose pace is known."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

import hyocr_core
from hyocr_core.cli.main import main
from hyocr_core.errors import HyocrError
from hyocr_core.evaluation.recorded.bench_record import load_bench
from hyocr_core.evaluation.scores.speeds import BenchResult
from tests.evaluation.endpoint import PAUSE, STREAM, TOKENS, Reply, Server, chunk, colour, completion, picture

PAGES = 4


@pytest.fixture
def slow() -> Iterator[Server]:
    """Twice as many pieces, and so half as fast."""
    running = Server()
    running.pieces = [piece for piece in STREAM for _ in range(2)]
    yield running
    running.close()


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HYOCR_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """No measurement is longer than it must be."""
    monkeypatch.setattr("hyocr_core.evaluation.turns.SECONDS", 0.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "pages"
    folder.mkdir()
    for index in range(PAGES):
        Image.new("RGB", (256, 32), colour(index)).save(folder / f"{index}.png")
    return folder


def bench(server: Server, data: Path, *arguments: object, model: object = "ocr") -> Result:
    given = ["bench", model, "--backend", server.url, "--data", data]
    for option, usual in (("--at-once", "1,4"), ("--repetitions", 2)):
        given += [] if option in arguments else [option, usual]
    return CliRunner().invoke(main, [*map(str, given), *map(str, arguments)])


def found(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def error(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("hyocr: error:")]
    return line


def test_times_are_those_of_the_server(server: Server, data: Path) -> None:
    measured = found(bench(server, data, "--json"))["model"]
    assert [level["at_once"] for level in measured["levels"]] == [1, 4]
    for level in measured["levels"]:
        assert len(level["pages_per_second"]) == 2, "two repetitions"
        for waited, further in zip(level["first_token_seconds"], level["token_seconds"], strict=True):
            assert waited >= 2 * PAUSE, "the first piece has no text"
            assert 4 * PAUSE / (TOKENS - 1) <= further < waited
        for pages, tokens in zip(level["pages_per_second"], level["tokens_per_second"], strict=True):
            assert pages <= level["at_once"] / (len(STREAM) * PAUSE)
            assert tokens == pytest.approx(pages * TOKENS)
    alone, together = measured["levels"]
    assert min(together["pages_per_second"]) > 1.5 * max(alone["pages_per_second"])
    assert (alone["tokens"], together["tokens"]) == (PAGES * TOKENS, 2 * PAGES * TOKENS)
    assert server.most_at_once == 4
    # The first page, and of each number at once the warming up and two repetitions.
    assert len(server.streamed) == 1 + 3 * (PAGES + 2 * PAGES)
    assert measured["memory_bytes"] > 10**7, "the server is this very process"
    assert measured["gpu_memory_bytes"] is None


def test_the_function_measures_the_same(server: Server, slow: Server, data: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"baseline": "ocr", "baseline_backend": slow.url, "at_once": (1,), "repetitions": 1}
    result = hyocr_core.bench(model="ocr", backend=server.url, data=str(data), **given)
    printed = found(bench(server, data, "--at-once", 1, "--repetitions", 1, "--json"))
    assert result.model_dump(mode="json").keys() == printed.keys()
    factors = result.faster(1)
    assert factors is not None
    assert 1.4 < factors[0] < 2.8
    assert len(result.model.level(1).pages_per_second) == 1
    with pytest.raises(HyocrError, match="auto: is no server"):
        hyocr_core.bench(model=tmp_path, backend="auto")


def test_a_connection_that_was_given_up_is_no_failure(server: Server, data: Path) -> None:
    """llama.cpp gives each up after so many requests."""
    server.pieces = None
    server.reply = lambda _page, attempt: (200, None if attempt == 2 else completion("text"))
    found(bench(server, data, "--no-first-token", "--repetitions", 1, "--json"))


def test_a_measurement_lasts(server: Server, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of pages that are read in no time many are read."""
    monkeypatch.setattr("hyocr_core.evaluation.turns.SECONDS", 1.0)
    server.pieces = [b"".join(STREAM)]
    (level,) = found(bench(server, data, "--json", "--at-once", 4, "--repetitions", 1))["model"]["levels"]
    pages = level["tokens"] / TOKENS
    assert pages >= 4 * PAGES
    assert 0.3 < pages / level["pages_per_second"][0] < 3


def test_no_page_is_the_same_twice(server: Server, data: Path) -> None:
    found(bench(server, data, "--json", "--repetitions", 1))
    images = [picture(body) for body in server.streamed]
    assert len({image.tobytes() for image in images}) == len(images)
    assert {image.getpixel((3, 3)) for image in images} == {colour(index) for index in range(PAGES)}


def test_two_are_measured_and_compared(server: Server, slow: Server, data: Path, tmp_path: Path) -> None:
    table, page = tmp_path / "speeds.csv", tmp_path / "speeds.html"
    result = bench(
        server, data, "--baseline", "ocr", "--baseline-backend", slow.url, "--turns", 2, "--repetitions", 1, "--json",
        "--csv", table, "--page", page,
    )  # fmt: skip
    measured = BenchResult.model_validate(found(result))
    for at_once in (1, 4):
        faster = measured.faster(at_once)
        assert faster is not None
        middle, least, most = faster
        assert least <= middle <= most
        assert 1.4 < middle < 2.8
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["role"], row["at_once"], row["repetition"]) for row in rows[:3]] == [
        ("baseline", "1", "1"), ("baseline", "1", "2"), ("baseline", "4", "1"),
    ]  # fmt: skip
    assert len(rows) == 2 * 2 * 2
    assert float(rows[0]["pages_per_second"]) == measured.served["baseline"].levels[0].pages_per_second[0]
    html = page.read_text(encoding="utf-8")
    assert html.count("<svg") == 2
    assert re.search(r"aria-label=\"Pages per second against pages at once[^\"]*model: [\d.]+ at 1", html)


def test_the_table_shows_medians_and_spread(server: Server, data: Path) -> None:
    result = bench(server, data, "--repetitions", 1)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[:2] for row in rows[1:3]] == [["1", "model"], ["4", "model"]]
    assert max(map(len, result.stdout.splitlines())) < 80 - len("baseline") + len("model")
    assert "model: ocr in endpoint" in result.stdout
    assert "memory of the server" in result.stdout


def test_the_model_may_be_an_option(server: Server, data: Path) -> None:
    given = ["bench", "--model", "other", "--backend", server.url, "--data", str(data)]
    assert "does not serve other; it serves ocr" in error(CliRunner().invoke(main, given))


def test_without_the_first_token_nothing_is_streamed(server: Server, data: Path) -> None:
    server.pieces = None
    (level, *_) = found(bench(server, data, "--no-first-token", "--repetitions", 1, "--json"))["model"]["levels"]
    assert (level["first_token_seconds"], level["token_seconds"]) == ([], [])
    assert level["tokens"] == 3 * PAGES
    assert not any("stream" in body for body in server.bodies)


REFUSED = b'{"error": {"message": "stream is not supported"}}'


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ((200, completion("text")), "it answers in one piece"),
        ((400, REFUSED), "it answers 400 Bad Request to POST chat/completions: stream is not supported"),
    ],
    ids=["ignores it", "refuses it"],
)
def test_a_server_without_streaming_is_refused(server: Server, data: Path, reply: Reply, why: str) -> None:
    server.pieces, server.reply = None, lambda _page, _attempt: reply
    line = error(bench(server, data))
    assert f"{server.url}: {why}: it does not stream, which the time to the first token" in line
    assert line.endswith("give --no-first-token")


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([chunk("a"), b"data: [DONE]\n\n"], "streams an answer without saying how many tokens it has (usage)"),
        ([b"data: {nonsense\n\n"], "what it streams is rubbish"),
    ],
)
def test_a_stream_that_says_too_little_fails(server: Server, data: Path, pieces: list[bytes], why: str) -> None:
    server.pieces = pieces
    result = bench(server, data)
    assert (result.exit_code, result.stdout) == (1, "")
    assert why in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--at-once", "4,1"), "at_once = '4,1': should be numbers that rise, such as 1,4,16"),
        (("--at-once", "0"), "at_once"),
        (("--turns", "0"), "turns"),
        (("--repetitions", "0"), "repetitions"),
        (("--max-new-tokens", "0"), "max_new_tokens"),
        (("--num-samples", "0"), "num_samples"),
        (("--data", "synthetic:none"), "synthetic:none"),
        (("--baseline-backend", "vllm"), "baseline_backend needs a baseline"),
        (("--baseline", "other"), "does not serve other; it serves ocr"),
        (("--backend", "dequant"), "is no server, so that its speed would tell nothing of one; give --backend vllm"),
        (("--backend", "auto"), "backend auto: is no server"),
        (("--record",), "it is no local folder"),
    ],
)
def test_bad_input(server: Server, data: Path, arguments: tuple[str, ...], why: str) -> None:
    assert why in error(bench(server, data, *arguments))
    assert not server.streamed


def test_a_foreign_file_is_not_replaced(server: Server, data: Path, tmp_path: Path) -> None:
    for option in ("--csv", "--page"):
        (tmp_path / "mine").write_text("mine")
        assert "hyocr did not write what is there" in error(bench(server, data, option, tmp_path / "mine"))
    assert not server.streamed


@pytest.mark.needs_methods
def test_the_record_is_beside_the_checkpoint(
    server: Server, slow: Server, data: Path, by_rtn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the report of it begins with how much faster it is."""
    model = tmp_path / "ocr"
    shutil.copytree(by_rtn, model)
    monkeypatch.chdir(tmp_path)
    result = bench(server, data, "--baseline", "ocr", "--baseline-backend", slow.url, "--record", "--json", model=model)
    found(result)
    html = (model / "report/index.html").read_text(encoding="utf-8")
    question, following = re.findall(r"<h2>(How much [^<]+)</h2>", html)[:2]
    assert (question, following) == ("How much faster?", "How much smaller?")
    assert "<h3>Speed measured by</h3>" in html
    assert load_bench(model) == BenchResult.model_validate(found(result))
