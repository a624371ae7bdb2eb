"""`hyocr eval` through an OpenAI-compatible endpoint that answers well, badly or not at all."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hyocr_core.runtimes.endpoint import NoAnswerError
from tests.evaluation.asking import COUNT, error, read, run, unwrapped
from tests.evaluation.endpoint import Reply, Server, completion, picture

KEY = "sk-very-secret"


def test_pages_are_read_and_scored(server: Server, folder: Path) -> None:
    server.reply = lambda page, _: (200, completion("txt 2" if page == 2 else f"text {page}\n", tokens=4))
    result = read(server, folder)
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert [page["text"] for page in data["pages"]] == ["text 0", "text 1", "txt 2", "text 3", "text 4", "text 5"]
    model = data["model"]
    assert (model["runtime"], model["model"]) == ("endpoint", "ocr")
    assert (model["weight_bytes"], model["part_bytes"]) == (None, {})
    assert model["cer"] == pytest.approx(1 / 36)
    assert (model["tokens"], model["cut_pages"], model["first_token_seconds"]) == (4 * COUNT, 0, None)
    assert model["seconds"] > 0
    assert data["environment"]["model endpoint"] == server.url
    assert data["environment"]["model served"] == "ocr"
    assert data["decoding"]["max_new_tokens"] == 32768
    assert len(server.trials) == 16, "asked first whether it may be asked for several at once"


def test_what_is_asked(server: Server, tmp_path: Path) -> None:
    """Exactly the pixels, the page's own messages, greedily, no more tokens than allowed."""
    pixels = Image.effect_noise((61, 33), 90).convert("RGB")
    pixels.putpixel((3, 3), (0, 0, 0))
    pixels.save(tmp_path / "page.png")
    row = {"question": "Was steht da?", "answer": "text 0", "img_path": "page.png", "system_prompt": "Lies."}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    assert read(server, tmp_path / "rows.jsonl", "--max-new-tokens", 7).exit_code == 0
    (body,) = server.bodies
    assert picture(body).tobytes() == pixels.tobytes()
    body["messages"][1]["content"][0]["image_url"]["url"] = "page"
    assert body == {
        "model": "ocr",
        "messages": [
            {"role": "system", "content": "Lies."},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "page"}},
                    {"type": "text", "text": "Was steht da?"},
                ],
            },
        ],
        "temperature": 0,
        "max_tokens": 7,
    }


def test_an_answer_that_was_cut_counts_as_cut(server: Server, folder: Path) -> None:
    server.reply = lambda page, _: (200, completion("text", finish="length" if page else "stop"))
    assert json.loads(read(server, folder).stdout)["model"]["cut_pages"] == COUNT - 1


NO_CHOICES = b'{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'
WRONG_TYPE = completion("x").replace(b'"x"', b"7", 1).replace(b'"content": "x"', b'"content": 7')
TROUBLE: dict[str, Reply] = {
    "500": (500, b'{"error": {"message": "out of memory"}}'),
    "429": (429, b"{}"),
    "closed": (0, None),
    "no JSON": (200, b"<html>hello</html>"),
    "no choices": (200, NO_CHOICES),
    "wrong type": (200, WRONG_TYPE),
    "no usage": (200, b'{"choices": [{"message": {"content": "x"}}]}'),
    "a list": (200, b"[]"),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_that_passes_is_forgotten(server: Server, folder: Path, name: str) -> None:
    server.reply = lambda page, attempt: TROUBLE[name] if page == 2 and attempt < 4 else (200, completion("text 2"))
    result = read(server, folder)
    assert result.exit_code == 0, result.output
    assert server.asked == Counter({index: 4 if index == 2 else 1 for index in range(COUNT)})
    assert json.loads(result.stdout)["unread"] == {}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("500", "it answers 500 Internal Server Error to POST chat/completions: out of memory"),
        ("closed", "it cannot be reached"),
        ("no JSON", "is rubbish"),
        ("wrong type", "is rubbish: choices.0.message.content Input should be a valid string"),
    ],
)
def test_trouble_that_stays_is_listed_and_only_these_pages_are_asked_again(
    server: Server, folder: Path, tmp_path: Path, name: str, words: str
) -> None:
    well = server.reply
    server.reply = lambda page, attempt: TROUBLE[name] if page in (1, 4) else well(page, attempt)
    result = read(server, folder, "--csv", tmp_path / "pages.csv")
    assert result.exit_code == 1
    assert f"2 of {COUNT} pages were not read, the first is 1.png: {server.url}: " in error(result)
    assert words in error(result)
    data = json.loads(result.stdout)
    assert list(data["unread"]) == ["1.png", "4.png"]
    assert [page["name"] for page in data["pages"]] == ["0.png", "2.png", "3.png", "5.png"]
    assert (data["model"]["exact_match"], data["reference_characters"]) == (1, 4 * 6)
    assert len((tmp_path / "pages.csv").read_text().splitlines()) == 5
    assert server.asked[1] == server.asked[4] == 4

    server.asked.clear()
    server.reply = well
    again = read(server, folder)
    assert again.exit_code == 0, again.output
    assert "4 of 6 pages are kept from an interrupted run" in again.stderr
    assert server.asked == Counter({1: 1, 4: 1})
    assert [page["text"] for page in json.loads(again.stdout)["pages"]] == [f"text {index}" for index in range(COUNT)]

    server.asked.clear()
    assert read(server, folder).exit_code == 0
    assert sum(server.asked.values()) == COUNT, "nothing is kept of a finished evaluation"


def test_a_page_that_takes_too_long(server: Server, folder: Path) -> None:
    well = server.reply

    def reply(page: int, attempt: int) -> Reply:
        if page == 3:
            time.sleep(1.5)
        return well(page, attempt)

    server.reply = reply
    result = read(server, folder, "--timeout", 0.2)
    assert result.exit_code == 1
    assert (
        f"1 of {COUNT} pages were not read, the first is 3.png: {server.url}: it does not answer within 0.2 s"
        in error(result)
    )
    assert server.asked[3] == 4


def test_a_refusal_is_not_asked_again(server: Server, folder: Path) -> None:
    server.reply = lambda *_: (400, b'{"error": {"message": "the prompt is\\ntoo long"}}')
    result = read(server, folder)
    assert result.exit_code == 1
    assert result.stdout == ""
    message = f"none of {COUNT} pages could be read; 0.png: {server.url}: it answers 400 Bad Request"
    assert f"{message} to POST chat/completions: the prompt is too long" in error(result)
    assert set(server.asked.values()) == {1}


def test_it_waits_as_long_as_the_endpoint_asks(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("hyocr_core.runtimes.endpoint.sleep", slept.append)
    monkeypatch.setattr("hyocr_core.runtimes.endpoint.PAUSE", 2.0)
    server.reply = lambda page, attempt: (503, b"") if page == 0 and attempt < 4 else (200, completion(f"text {page}"))
    for asked, expected in (("7", [7, 7, 8]), ("3600", [60, 60, 60]), ("Fri, 31 Dec 1999 23:59:59 GMT", [2, 4, 8])):
        slept.clear()
        server.asked.clear()
        server.retry_after = asked
        assert read(server, folder).exit_code == 0
        assert slept == expected


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_an_endpoint_that_is_not_there(folder: Path) -> None:
    url = f"http://127.0.0.1:{closed_port()}/v1"
    result = run("ocr", "--backend", url, "--data", folder)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{url}: it cannot be reached: " in error(result)
    assert "refused" in error(result)
    assert "check pages" not in result.stderr


@pytest.mark.parametrize("served", [{"object": "list"}, [], {"data": "ocr"}, {"data": [{"name": "ocr"}]}])
def test_an_endpoint_that_is_none(server: Server, folder: Path, served: Any) -> None:
    server.served = served
    result = read(server, folder)
    assert result.exit_code == 2
    assert "what it answers to GET models is rubbish" in error(result)
    assert not server.bodies


def test_the_model_is_one_that_is_served(server: Server, folder: Path, tiny: Path) -> None:
    server.served = {"data": [{"id": "a"}, {"id": "b", "root": str(tiny)}]}
    result = read(server, folder)
    assert result.exit_code == 2
    assert "does not serve ocr; it serves a, b: give one of these" in error(result)
    assert read(server, folder, model="a").exit_code == 0
    assert {body["model"] for body in server.bodies} == {"a"}
    server.bodies.clear()
    assert read(server, folder, model=tiny).exit_code == 0
    assert {body["model"] for body in server.bodies} == {"b"}, "the server says that this is the folder"


def test_the_folder_of_the_only_model_gives_its_limit_and_checks_the_prompt(
    server: Server, folder: Path, tiny: Path
) -> None:
    right = json.loads(run(tiny, "--data", folder, "--keep-duplicates", "--json").stdout)
    assert right["decoding"]["max_new_tokens"] == 12
    result = read(server, folder, model=tiny)
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert (data["model"]["model"], data["decoding"]["max_new_tokens"]) == (str(tiny), 12)
    assert {body["max_tokens"] for body in server.bodies} == {12}
    assert {body["model"] for body in server.bodies} == {"ocr"}
    warnings = [line for line in result.stderr.splitlines() if "makes 55 tokens of the prompt" in line]
    assert len(warnings) == 1, "one line for all pages"


def test_the_same_prompt_gives_no_warning(server: Server, folder: Path, tiny: Path) -> None:
    from hyocr_core.pages.processor import load_processor
    from hyocr_core.pages.samples import build_sample
    from hyocr_core.pages.sources import open_source

    sample = build_sample(next(iter(open_source(str(folder)))), load_processor(tiny), with_answer=False)
    server.reply = lambda page, _: (200, completion(f"text {page}", prompt=sample.prompt_tokens))
    result = read(server, folder, model=tiny)
    assert result.exit_code == 0
    assert "tokens of the prompt" not in result.stderr


def test_the_key_goes_into_the_header_and_nowhere_else(
    server: Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "other")
    monkeypatch.setenv("HYOCR_API_KEY", f" {KEY}\n")
    echo = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
    well, status = server.reply, 0
    server.reply = lambda page, attempt: (status, echo) if page == 2 else well(page, attempt)
    for status in (401, 400, 500):
        result = read(server, folder, "--state", tmp_path / "state", "--csv", tmp_path / "pages.csv", "-v")
        assert result.exit_code == 1
        assert KEY not in result.output
        assert KEY not in (tmp_path / "pages.csv").read_text()
        kept = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
        assert len(kept) == COUNT, "the other pages, and a lock"
        assert not any(KEY.encode() in path.read_bytes() for path in kept)
        assert ("HYOCR_API_KEY" in error(result)) == (status == 401)
    assert server.keys == {f"Bearer {KEY}"}


def test_no_key_no_header(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(server, folder).exit_code == 0
    assert server.keys == {None}
    monkeypatch.setenv("OPENAI_API_KEY", "other")
    assert read(server, folder).exit_code == 0
    assert server.keys == {None, "Bearer other"}


def test_a_key_that_fits_no_header_is_not_repeated(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYOCR_API_KEY", f"{KEY}\nX-Evil: 1")
    result = read(server, folder)
    assert result.exit_code == 2
    assert "HYOCR_API_KEY holds characters that no HTTP header may have" in error(result)
    assert KEY not in result.output


def test_a_proxy_of_the_environment_sees_no_page(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert read(server, folder).exit_code == 0


def test_two_endpoints_are_compared(server: Server, folder: Path) -> None:
    other = Server()
    other.reply = lambda *_: (200, completion("text 0"))
    result = read(server, folder, "--baseline", "ocr", "--baseline-backend", other.url)
    other.close()
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    compared = data["comparison"]
    assert compared["identical_pages"] == 1
    assert compared["cer_difference"] == pytest.approx(-5 / 36)
    assert [compared[name] for name in ("tokens", "agreement", "kl")] == [None] * 3
    assert [page["baseline_text"] for page in data["pages"]] == ["text 0"] * COUNT
    assert data["blocks"] == data["layers"] == []


def test_a_page_that_one_side_lacks_counts_for_neither(server: Server, folder: Path) -> None:
    other = Server()
    other.reply = lambda page, _: (400, b"") if page == 0 else (200, completion("text 1"))
    result = read(server, folder, "--baseline", "ocr", "--baseline-backend", other.url)
    other.close()
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert list(data["unread"]) == ["0.png"]
    assert data["comparison"]["identical_pages"] == 1
    assert len(data["pages"]) == COUNT - 1


def test_the_table_shows_what_there_is(server: Server, folder: Path) -> None:
    other = Server()
    arguments = ("--baseline", "ocr", "--baseline-backend", other.url)
    result = run("ocr", "--backend", server.url, "--data", folder, "--keep-duplicates", *arguments)
    other.close()
    assert result.exit_code == 0, result.output
    rows = {line.split("  ")[0]: line for line in result.stdout.splitlines()}
    assert rows["runtime"].split() == ["runtime", "endpoint", "endpoint"]
    assert rows["next-token agreement"].split()[-1] == "–"
    assert rows["weights"].split()[-1] == "–"


def test_an_endpoint_is_not_compared_with_itself(server: Server, folder: Path, tiny: Path, noisy: Path) -> None:
    result = read(server, folder, "--baseline", tiny, model=noisy)
    assert result.exit_code == 2
    assert f"model and baseline are both ocr at {server.url}; give the URL" in error(result)


def test_another_runtime_is_compared_only_when_asked(server: Server, folder: Path, tiny: Path) -> None:
    arguments = ("--baseline", tiny, "--baseline-backend", "auto")
    refused = read(server, folder, *arguments)
    assert refused.exit_code == 2
    assert "the model is read by endpoint and the baseline by transformers" in error(refused)
    assert not server.bodies
    result = read(server, folder, *arguments, "--cross-runtime")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    alone = json.loads(run(tiny, "--data", folder, "--keep-duplicates", "--json").stdout)
    assert [data[side]["runtime"] for side in ("model", "baseline")] == ["endpoint", "transformers"]
    assert [page["baseline_text"] for page in data["pages"]] == [page["text"] for page in alone["pages"]]
    assert data["comparison"]["agreement"] is None
    assert data["baseline"]["cer"] == alone["model"]["cer"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rtn",), "rounded to nearest can be read with --backend auto, transformers and dequant only"),
        (("--gate", "cer=1,agreement=0.9"), "return only text, which gives no agreement"),
        (("--gate", "kl=1"), "return only text, which gives no kl"),
    ],
)
def test_what_needs_more_than_text_is_refused_before_anything_is_read(
    server: Server, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = read(server, folder, "--baseline", "ocr", "--baseline-backend", "http://127.0.0.1:9/v1", *arguments)
    assert result.exit_code == 2
    assert message in error(result)
    assert not server.bodies


def test_a_gate_on_text_holds(server: Server, folder: Path) -> None:
    other = Server()
    other.reply = lambda page, _: (200, completion(f"text {page}!"))
    arguments = ("--baseline", "ocr", "--baseline-backend", other.url, "--gate")
    accepted, refused = (read(server, folder, *arguments, f"identical={bound}") for bound in (0, 0.5))
    other.close()
    assert (accepted.exit_code, refused.exit_code) == (0, 1), accepted.output
    assert "gate failed: identical 0 < 0.5" in error(refused)


def test_ctrl_c_waits_for_no_page_and_goes_on_later(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hyocr_core.evaluation.reading.kept import Kept

    never, well, add = threading.Event(), server.reply, Kept.add

    def reply(page: int, attempt: int) -> Reply:
        if page == 5:
            never.wait(60)
        return well(page, attempt)

    def interrupted(kept: Kept, key: str, batch: Any) -> None:
        add(kept, key, batch)
        if len(kept.batches) == 3:
            raise KeyboardInterrupt

    server.reply = reply
    with monkeypatch.context() as patch:
        patch.setattr(Kept, "add", interrupted)
        stopped = read(server, folder, "--batch-size", COUNT)
    assert stopped.exit_code == 130
    assert "the same command goes on after the pages read so far" in stopped.stderr
    never.set()
    server.reply = well
    result = read(server, folder)
    assert result.exit_code == 0
    assert "3 of 6 pages are kept" in result.stderr


def test_what_a_server_says_neither_steers_the_terminal_nor_fills_it(server: Server, folder: Path) -> None:
    said = json.dumps({"error": {"message": "\x1b[2J\x9b31m\u202e" + "x" * 5000}}).encode()
    server.reply = lambda page, _: (400, said) if page else (200, completion("text 0"))
    result = read(server, folder)
    assert result.exit_code == 1
    assert "⟨U+001B⟩[2J⟨U+009B⟩31m⟨U+202E⟩xxx" in unwrapped(result)
    assert not set(result.stderr) & set("\x1b\x9b\u202e")
    assert len(error(result)) <= 400
    assert all(len(reason) <= 400 for reason in json.loads(result.stdout)["unread"].values())
    assert len(str(NoAnswerError("x" * 5000, None))) == 400
