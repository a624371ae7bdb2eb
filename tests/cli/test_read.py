"""`hyocr read` on the demo checkpoint, whose texts are known, and on servers."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from hyocr_core.cli.main import main
from hyocr_core.evaluation.reading.local import Reader
from hyocr_core.pages.sources import open_source
from tests.conftest import DEMO
from tests.evaluation.endpoint import Reply, Server, colour, completion

ASIDE = DEMO / "checkpoint-aside"
"""A checkpoint that reads these lines wrong."""
IMAGES = DEMO / "data" / "images"
TEXTS = ["bais-plaglios-thouyi", "50keh1b7-8-mmv", "babrex, cegaigiond,", "qeakioglio: $34.48", "21 drand $134.21"]
"""What the demo checkpoint reads on the first five held-out lines."""


def read(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["read", *map(str, arguments)])


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """Five lines as the five pages of a PDF file."""
    pages = [Image.open(IMAGES / f"heldout-{index:04d}.png").convert("RGB") for index in range(5)]
    path = tmp_path / "scan.pdf"
    pages[0].save(path, save_all=True, append_images=pages[1:], resolution=150, quality=95)
    return path


@pytest.fixture
def coloured(tmp_path: Path) -> Path:
    """Five pages that the server recognizes."""
    folder = tmp_path / "coloured"
    folder.mkdir()
    for index in range(5):
        Image.new("RGB", (256, 32), colour(index)).save(folder / f"{index}.png")
    return folder


def test_the_text_of_an_image_is_all_there_is_on_stdout(demo: Path) -> None:
    result = read(demo, IMAGES / "heldout-0000.png")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{TEXTS[0]}\n"
    assert "--- heldout-0000.png\n" in result.stderr


def test_a_pdf_is_read_page_by_page_in_its_order(demo: Path, scan: Path) -> None:
    result = read(demo, scan)
    assert result.exit_code == 0, result.output
    assert result.stdout == "\n".join(f"{text}\n" for text in TEXTS)
    assert re.findall(r"^--- (.*)$", result.stderr, re.MULTILINE) == [f"scan.pdf:{number}" for number in range(1, 6)]


def test_json_has_the_pages_and_nothing_else_is_on_stdout(demo: Path, scan: Path) -> None:
    result = read(demo, scan, "--json", "--task", "structured_parse:en")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert [page["name"] for page in data["pages"]] == [f"scan.pdf:{number}" for number in range(1, 6)]
    assert {page["question"] for page in data["pages"]} == {"Extract the text in the image."}
    assert (data["beside"], data["unread"], data["pages"][0]["fault"]) == (None, {}, None)
    assert data["pages"][0]["tokens"] > len(TEXTS[0]) / 4


def test_rows_go_back_in_as_data(demo: Path, scan: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    assert read(demo, scan, "--output", rows).exit_code == 0
    records = open_source(str(rows))
    assert [record.answer for record in records] == TEXTS
    pages = open_source(str(scan))
    for record, page in zip(records, pages, strict=True):
        assert record.open_image().tobytes() == page.open_image().tobytes()
    # As the checkpoint has read them, and one corrected.
    lines = rows.read_text(encoding="utf-8").splitlines()
    lines[4] = lines[4].replace(TEXTS[4], TEXTS[4].replace("$", "€"))
    rows.write_text("\n".join(lines), encoding="utf-8")
    measured = CliRunner().invoke(main, ["eval", str(demo), "--data", str(rows), "--json"])
    assert measured.exit_code == 0, measured.output
    assert [page["errors"] for page in json.loads(measured.stdout)["pages"]] == [0, 0, 0, 0, 1]


def test_corrected_rows_are_not_written_over(demo: Path, scan: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"img_path": "corrected"}\n')
    result = read(demo, scan, "--output", rows)
    assert result.exit_code == 2
    assert "rows.jsonl is there already, perhaps with somebody's corrections; give a new file" in result.stderr
    assert rows.read_text() == '{"img_path": "corrected"}\n'
    (tmp_path / "other-pages").mkdir()
    assert read(demo, scan, "--output", tmp_path / "other.jsonl").exit_code == 2


def test_rows_keep_question_and_system_message(demo: Path, scan: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    asked = ("--task", "table:en", "--system", "Be exact.")
    assert read(demo, scan, "--output", rows, *asked).exit_code == 0
    first = open_source(str(rows))[0]
    assert (first.question, first.system) == ("Parse the table in the image into HTML.", "Be exact.")


def test_two_checkpoints_stand_beside_each_other(demo: Path, scan: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    result = read(demo, scan, "--beside", demo, "--output", rows)
    assert result.exit_code == 0, result.output
    assert result.stdout == "\n".join(f"{text}\n" for text in TEXTS)
    assert result.stderr.count("the same text\n") == 5
    assert "--- the same text on 5 of 5\u00a0pages" in result.stderr
    other = json.loads(read(demo, scan, "--beside", ASIDE, "--json", "--max-new-tokens", 20).stdout)
    marked = read(demo, scan, "--beside", ASIDE, "--max-new-tokens", 20)
    assert marked.exit_code == 0, marked.output
    for page in other["pages"]:
        assert page["beside_text"] != page["text"]
        assert page["differing_characters"] > 0
    shown = marked.stdout
    assert re.sub(r"\[-.*?-\]|\{\+|\+\}", "", shown, flags=re.DOTALL) == "\n".join(
        f"{page['text']}\n" for page in other["pages"]
    )
    assert json.loads(rows.read_text(encoding="utf-8").splitlines()[0])["beside"] == TEXTS[0]


def test_both_forwards_of_a_checkpoint_stand_beside_each_other(demo: Path) -> None:
    result = read(demo, IMAGES / "heldout-0000.png", "--forward", "reference,transformers", "--max-new-tokens", 3)
    assert result.exit_code == 0, result.output
    assert re.findall(r"the text of (.*) is cut at the limit of tokens", result.stderr) == ["reference", "transformers"]
    assert TEXTS[0].startswith(re.sub(r"\[-.*?-\]|\{\+|\+\}", "", result.stdout).strip()[:3])


def test_a_page_that_cannot_be_read_keeps_no_other_from_it(demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    for index in range(3):
        Image.open(IMAGES / f"heldout-{index:04d}.png").save(folder / f"{index}.png")
    (folder / "1.png").write_bytes(b"\x89PNG broken")
    rows = tmp_path / "rows.jsonl"
    result = read(demo, folder, "--output", rows)
    assert result.exit_code == 1
    assert result.stdout == f"{TEXTS[0]}\n\n{TEXTS[2]}\n"
    assert "not read: " in result.stderr
    assert "hyocr: error: 1 of 3 pages were not read, the first is 1.png: " in result.stderr
    assert [record.answer for record in open_source(str(rows))] == [TEXTS[0], TEXTS[2]]


def test_without_a_page_nothing_is_left_behind(demo: Path, tmp_path: Path) -> None:
    broken = tmp_path / "page.jpg"
    broken.write_bytes(b"no image")
    result = read(demo, broken, "--output", tmp_path / "rows.jsonl")
    assert result.exit_code == 2
    assert "1 of 1 pages were not read, the first is page.jpg: " in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.jpg"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("{demo}", "nowhere.pdf"), "nowhere.pdf: no such file or folder; give a folder of images"),
        (("{demo}/none", "{image}"), "none"),
        (("{demo}", "{image}", "--task", "tabel"), "unknown task 'tabel'"),
        (("{demo}", "{image}", "--beside", "{demo}/none"), "none"),
        (("{demo}", "{image}", "--backend", "nothing"), "unknown backend 'nothing'"),
        (("{demo}", "{image}", "--output", "{demo}/rows.jsonl"), "taken for a part of the checkpoint"),
        (("{demo}", "{image}", "--max-new-tokens", "0"), "max_new_tokens"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], named: str, demo: Path) -> None:
    given = [each.format(demo=demo, image=IMAGES / "heldout-0000.png") for each in arguments]
    result = read(*given)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert named in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert read(*given, "--json").stdout == ""


def test_what_is_wrong_with_a_text_is_said(server: Server, coloured: Path) -> None:
    loop = "again " * 2000
    texts = {1: "", 2: loop, 3: "# Head\n\n| a | b |\n|---|---|\n"}
    server.reply = lambda page, _attempt: (
        200,
        completion(texts.get(page, "x"), finish="length" if page == 4 else "stop"),
    )
    result = read("ocr", coloured, "--backend", server.url)
    assert result.exit_code == 0, result.output
    assert re.findall(r"^--- (.*)\n(?:this text (.*)\n)?", result.stderr, re.MULTILINE) == [
        ("0.png", ""),
        ("1.png", "is empty"),
        ("2.png", "ends in a repetition loop"),
        ("3.png", ""),
        ("4.png", "is cut at the limit of tokens"),
    ]
    assert "\n# Head\n\n| a | b |\n|---|---|\n\nx\n" in result.stdout, "Markdown as it is"


def test_pages_of_a_server_come_in_order_although_read_at_once(server: Server, coloured: Path) -> None:
    later = threading.Event()

    def reply(page: int, _attempt: int) -> Reply:
        if page == 0:
            later.wait(30)
        elif page == 4:
            later.set()
        return (500, None) if page == 2 else (200, completion(f"text {page}"))

    server.reply = reply
    server.retry_after = "0"
    result = read("ocr", coloured, "--backend", server.url, "--timeout", "60")
    assert result.exit_code == 1
    assert result.stdout.split() == ["text", "0", "text", "1", "text", "3", "text", "4"]
    assert "1 of 5 pages were not read, the first is 2.png: " in result.stderr


def test_hostile_text_steers_no_terminal(server: Server, coloured: Path) -> None:
    server.reply = lambda *_: (200, completion("\x1b[2Jgone\x07"))
    result = read("ocr", coloured, "--backend", server.url)
    assert "⟨U+001B⟩[2Jgone⟨U+0007⟩" in result.stdout


def test_ctrl_c_leaves_what_was_read(demo: Path, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, count = Reader.read, 0

    def interrupted(self: Reader, *arguments: object) -> object:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return whole(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Reader, "read", interrupted)
    rows = tmp_path / "rows.jsonl"
    result = read(demo, scan, "--output", rows)
    assert result.exit_code == 130
    assert f"hyocr: interrupted; 2 of 5 pages were read; {rows} has them" in result.stderr
    assert [record.answer for record in open_source(str(rows))] == TEXTS[:2]
    count = 0
    result = read(demo, scan, "--json")
    assert result.exit_code == 130
    assert [page["text"] for page in json.loads(result.stdout)["pages"]] == TEXTS[:2]


PROGRAM = """
import signal, sys, time
from hyocr_core.evaluation.reading.arriving import Told
from hyocr_core.cli.main import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background of a shell ignores

put = Told.put
def slowly(self, value):
    put(self, value)
    time.sleep(0.02)
Told.put = slowly
sys.argv = ["hyocr", *sys.argv[1:]]
main()
"""
"""Slow enough for tokens to be told apart."""


def on_a_terminal(*arguments: object) -> tuple[subprocess.Popen[bytes], int]:
    """The command with its streams on a terminal of 80 columns, and our end of that."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM, "read", *map(str, arguments)]
    running = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    return running, ours


def arriving(ours: int) -> Iterator[str]:
    """What is written, piece by piece, until the terminal is closed."""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:
            return
        if not piece:
            return
        yield piece.decode(errors="replace")


def plain(text: str) -> str:
    """Without what is said to the terminal: colours, cursor, lines."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n")


def test_on_a_terminal_the_text_comes_token_by_token(demo: Path, scan: Path) -> None:
    running, ours = on_a_terminal(demo, scan)
    pieces = list(arriving(ours))
    os.close(ours)
    assert running.wait(60) == 0
    text = plain("".join(pieces))
    for number, each in enumerate(TEXTS, start=1):
        assert f"--- scan.pdf:{number}\n{each}\n" in text
    parts = [piece for piece in pieces if piece and piece in TEXTS[0] and len(piece) < len(TEXTS[0])]
    assert len(parts) > 5, "not all at once"


def test_ctrl_c_at_the_terminal_keeps_the_whole_pages(demo: Path, scan: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    running, ours = on_a_terminal(demo, scan, "--output", rows)
    text = ""
    for piece in arriving(ours):
        if "scan.pdf:3" in text + piece and "scan.pdf:3" not in text:
            running.send_signal(signal.SIGINT)
        text += piece
    os.close(ours)
    assert running.wait(60) == 130
    assert "interrupted; 2 of 5 pages were read" in text.replace("\r\n", "")
    assert "Traceback" not in text
    assert [record.answer for record in open_source(str(rows))] == TEXTS[:2]


def test_beside_each_other_on_a_terminal_two_columns_fit(demo: Path, scan: Path) -> None:
    running, ours = on_a_terminal(demo, scan, "--beside", ASIDE, "--max-new-tokens", 12)
    text = plain("".join(arriving(ours)))
    os.close(ours)
    assert running.wait(60) == 0
    heads = [line for line in text.splitlines() if line.startswith("checkpoint-aside")]
    assert len(heads) == 5
    assert all(line.split() == ["checkpoint-aside", "checkpoint"] and len(line) <= 80 for line in heads)
