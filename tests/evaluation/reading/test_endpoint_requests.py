"""What `hyocr eval` asks of an OpenAI-compatible endpoint: prompts, pixels, decoding, and how many pages at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from hyocr_core.pages.prompts import DEFAULT_PROMPT
from tests.evaluation.asking import COUNT, answer_together, error, read, unwrapped
from tests.evaluation.endpoint import Reply, Server, completion, picture


def test_a_page_is_sent_with_the_pixels_that_were_asked_for(server: Server, tmp_path: Path) -> None:
    Image.effect_noise((1600, 1200), 90).convert("RGB").save(tmp_path / "page.png")
    (tmp_path / "page.txt").write_text("text 0")
    done = read(server, tmp_path, "--max-pixels", 1_000_000)
    assert done.exit_code == 0, done.output
    (body,) = server.bodies
    assert picture(body).size == (1152, 864)  # as the published processor makes it: multiples of 32
    assert json.loads(done.stdout)["max_pixels"] == 1_000_000


@pytest.mark.parametrize(("flags", "system"), [((), ""), (("--system", "Be exact."), "Be exact.")])
def test_pages_that_ask_nothing_are_sent_as_the_official_clients_send_them(
    server: Server, folder: Path, flags: tuple[str, ...], system: str
) -> None:
    assert read(server, folder, *flags).exit_code == 0
    for body in server.bodies:
        first, (image, text) = body["messages"][0], body["messages"][1]["content"]
        assert first == {"role": "system", "content": system}
        assert image["type"] == "image_url"
        assert text == {"type": "text", "text": DEFAULT_PROMPT}
        assert [message["role"] for message in body["messages"]] == ["system", "user"]


def test_without_files_the_server_decides_on_the_penalty(server: Server, folder: Path) -> None:
    result = read(server, folder)
    assert "no files of the checkpoint are here to say its repetition penalty: what reads" in result.stderr
    assert json.loads(result.stdout)["decoding"] == {
        "repetition_penalty": None,
        "max_new_tokens": 32768,
        "stop_loops": True,
        "stop_token_ids": [],
    }
    assert not any({"repetition_penalty", "stop_token_ids"} & body.keys() for body in server.bodies)
    asked = read(server, folder, "--repetition-penalty", 1.08)
    assert "no files" not in asked.stderr
    assert {body["repetition_penalty"] for body in server.bodies[COUNT:]} == {1.08}


def test_the_checkpoints_own_decoding_is_asked_for(server: Server, folder: Path, tiny: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny, model)
    said = {"eos_token_id": [9, 260], "repetition_penalty": 1.03, "max_new_tokens": 40}
    (model / "generation_config.json").write_text(json.dumps(said))
    for given, penalty in (((), 1.03), (("--repetition-penalty", 1.0), 1.0)):
        server.bodies.clear()
        data = json.loads(read(server, folder, *given, model=model).stdout)
        sent = {(b["repetition_penalty"], tuple(b["stop_token_ids"]), b["max_tokens"]) for b in server.bodies}
        assert sent == {(penalty, (9, 260), 40)}
        assert data["decoding"]["repetition_penalty"] == penalty
        assert data["decoding"]["stop_token_ids"] == [9, 260]


def test_a_server_that_ignores_the_penalty_is_refused_before_any_page(server: Server, folder: Path) -> None:
    server.knows_penalty = False
    result = read(server, folder, "--repetition-penalty", 1.08)
    assert (result.exit_code, server.bodies) == (2, [])
    assert f"{server.url} cannot honour repetition_penalty=1.08, it ignores the field" in error(result)
    assert "--repetition-penalty 1" in error(result)
    assert read(server, folder, "--repetition-penalty", 1).exit_code == 0


def test_no_more_tokens_are_asked_for_than_the_context_has_left(
    server: Server, folder: Path, tiny: Path, tmp_path: Path
) -> None:
    result = read(server, folder, "--max-new-tokens", 9000, model=tiny)
    assert result.exit_code == 0, result.output
    config = json.loads((tiny / "config.json").read_text())
    (asked,) = {body["max_tokens"] for body in server.bodies}
    assert config["text_config"]["max_position_embeddings"] - 200 < asked < 2048


@pytest.mark.parametrize("keep", [False, True])
def test_an_answer_that_repeats_itself_is_cut_where_others_are_stopped(
    server: Server, folder: Path, keep: bool
) -> None:
    """The server goes on to its limit; that does not count as cut."""
    loop = "".join(map(str, range(1000))) + "<td></td>" * 3000
    server.reply = lambda page, _: (200, completion(loop if page else "text 0", finish="length" if page else "stop"))
    data = json.loads(read(server, folder, *(["--keep-loops"] if keep else [])).stdout)
    assert [len(page["text"]) for page in data["pages"]] == [6] + [len(loop) if keep else 4000] * (COUNT - 1)
    assert [page["loop"] for page in data["pages"]] == [False] + [True] * (COUNT - 1)
    assert data["model"]["cut_pages"] == (COUNT - 1 if keep else 0)


@pytest.mark.parametrize(("options", "at_once"), [((), COUNT), (("--batch-size", 3), 3)])
def test_pages_at_once(server: Server, folder: Path, options: tuple[object, ...], at_once: int) -> None:
    """Several by default, since the trial finds that they stay what they are; as many as the user says otherwise."""
    answer_together(server, at_once)
    result = read(server, folder, *options)
    assert result.exit_code == 0, result.output
    assert server.most_at_once == at_once
    assert "at a time" not in result.stderr
    assert [page["errors"] for page in json.loads(result.stdout)["pages"]] == [0] * COUNT


def trial_text(which: int) -> Reply:
    return 200, completion(f"{which}" * 9)


def mixed_up(which: int, at_once: int) -> Reply:
    return trial_text(which if at_once == 1 else which + 1)


def test_a_server_whose_answers_change_is_read_one_by_one(server: Server, folder: Path) -> None:
    server.trial = mixed_up
    result = read(server, folder)
    assert result.exit_code == 0, result.output
    assert server.most_at_once == 1
    notice = f"{server.url}: pages at a time: 1, because 8 of 8 trial pages read otherwise at once than one by one"
    assert notice in unwrapped(result)


def test_several_pages_at_once_of_a_server_whose_answers_change_are_refused(server: Server, folder: Path) -> None:
    server.trial = mixed_up
    result = read(server, folder, "--batch-size", 3)
    assert (result.exit_code, result.stdout) == (2, "")
    assert not server.bodies
    assert error(result) == (
        f"hyocr: error: {server.url}: 8 of 8 trial pages read otherwise at once than one by one: give --batch-size 1, "
        "or mend the server; of vLLM: pip install 'transformers>=5.20.1,<5.21'"
    )


def test_one_page_at_a_time_needs_no_trial(server: Server, folder: Path) -> None:
    server.trial = mixed_up
    assert read(server, folder, "--batch-size", 1).exit_code == 0
    assert not server.trials
    assert server.most_at_once == 1


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((200, completion("nothing")), "the trial pages read too much alike to tell whether it mixes them up"),
        ((400, b'{"error": "no"}'), "a trial page could not be read: it answers 400 Bad Request"),
    ],
)
def test_a_trial_that_tells_nothing(server: Server, folder: Path, reply: Reply, words: str) -> None:
    """Then it is one by one, unless the user knows better."""
    server.trial = lambda *_: reply
    result = read(server, folder)
    assert result.exit_code == 0, result.output
    assert server.most_at_once == 1
    assert f"pages at a time: 1, because {words}" in unwrapped(result)
    server.most_at_once = 0
    answer_together(server, 3)
    result = read(server, folder, "--batch-size", 3)
    assert result.exit_code == 0, result.output
    assert server.most_at_once == 3
    assert f"pages at a time: 3, although {words}" in unwrapped(result)
