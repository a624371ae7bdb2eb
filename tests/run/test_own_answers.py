"""The model's own answers as calibration data: they are what it reads, are read once, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hyocr_core.checkpoint.durable import try_lock
from hyocr_core.checkpoint.sealed import seal, unseal
from hyocr_core.contract.page_source import Record
from hyocr_core.errors import BadInputError, CalibrationError, CheckpointError, OutputError
from hyocr_core.evaluation.reading.generate import Runner
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.load import load_model
from hyocr_core.pages.samples import build_sample
from hyocr_core.progress import Silent
from hyocr_core.resources import RUNTIME_BYTES
from hyocr_core.run import own_answers as module
from hyocr_core.run.job import Job, check_resources, prepare
from hyocr_core.run.own_answers import OwnAnswer, answers_folder, own_answers
from hyocr_core.settings.run_config import RunConfig
from tests.evaluating import evaluate

pytestmark = pytest.mark.needs_methods

PAGES = 6
Prepare = Callable[..., Job]


class Heard(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def step(self, detail: str = "") -> None:
        self.steps.append(detail)


@pytest.fixture
def job(demo: Path, calib: str, tmp_path: Path) -> Prepare:
    """A run on the demo's pages that is to calibrate with the model's own answers."""

    def make(model: Path = demo, **changes: Any) -> Job:
        given = {
            "model": str(model),
            "output": tmp_path / "out",
            "method": "gptq",
            "calib": calib,
            "num_samples": PAGES,
        }
        return prepare(RunConfig(**(given | {"answers": "generate", "device": "cpu"} | changes)), Heard())

    return make


def heard(job: Job) -> Heard:
    assert isinstance(job.progress, Heard)
    return job.progress


def no_model(*_arguments: Any) -> Any:
    raise AssertionError("the model was loaded")


def kept_files() -> list[Path]:
    return sorted(answers_folder().glob("*/*.json"))


def test_answers_are_what_an_evaluation_reads(job: Prepare, demo: Path, calib: str) -> None:
    made = job()
    answered = own_answers(made, made.reader.digests())
    read = evaluate(demo, list(job(answers="data").records))
    assert [record.answer for record in answered] == [page.text for page in read.pages]
    assert [record.name for record in answered] == [record.name for record in made.records]
    assert not any(record.answer for record in made.records)


def test_answers_are_appended_as_those_of_the_data_are(job: Prepare, demo: Path) -> None:
    """The tokens that the model wrote, its end among them, are the tokens that it is calibrated with."""
    made = job()
    runner = Runner(load_model(demo, torch.device("cpu")), demo, made.decoding, made.processor.tokenizer.decode)
    for record in own_answers(made, made.reader.digests()):
        sample = build_sample(record, made.processor, with_answer=True)
        prompt = build_sample(record, made.processor, with_answer=False)
        (written,) = runner.generate(runner.embed([prompt.inputs])).tokens
        assert sample.inputs["input_ids"][0, sample.prompt_tokens :].tolist() == written


def test_a_second_run_reads_nothing_again(job: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    made = job()
    first = own_answers(made, made.reader.digests())
    assert len([step for step in heard(made).steps if step]) == 2 * PAGES
    again = job()
    monkeypatch.setattr(module, "load_model", no_model)
    assert [r.answer for r in own_answers(again, again.reader.digests())] == [r.answer for r in first]
    assert any(f"{PAGES} of {PAGES} answers are kept from before" in line for line in heard(again).said)


def test_what_an_interrupted_run_has_read_is_kept(job: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    made = job()
    whole = [record.answer for record in own_answers(made, made.reader.digests())]
    shutil.rmtree(answers_folder())
    put = module._Kept.put

    def stop(self: Any, page: str, answer: OwnAnswer) -> None:
        if len(kept_files()) == 2:
            raise KeyboardInterrupt
        put(self, page, answer)

    monkeypatch.setattr(module._Kept, "put", stop)
    with pytest.raises(KeyboardInterrupt):
        own_answers(made, made.reader.digests())
    monkeypatch.setattr(module._Kept, "put", put)
    before = {path: path.stat().st_mtime_ns for path in kept_files()}
    assert len(before) == 2
    assert [record.answer for record in own_answers(made, made.reader.digests())] == whole
    assert len(kept_files()) == PAGES
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("content", [b"", b'{"text": "ab', b'{"text": 3}', b"\xff\xfe", seal({"text": 3}), None])
def test_a_damaged_answer_is_read_again(content: bytes | None, job: Prepare) -> None:
    """None: an answer in which one letter is another, and nothing else is wrong with it."""
    made = job()
    whole = own_answers(made, made.reader.digests())
    path = kept_files()[0]
    good = path.read_bytes()
    text = unseal(good)["text"]
    path.write_bytes(good.replace(text.encode(), f"x{text[1:]}".encode()) if content is None else content)
    assert path.read_bytes() != good
    assert [r.answer for r in own_answers(made, made.reader.digests())] == [r.answer for r in whole]
    assert path.read_bytes() == good
    assert f"{path} is damaged: the model answers again" in heard(made).said


def test_another_checkpoint_or_limit_has_answers_of_its_own(job: Prepare, demo: Path, tmp_path: Path) -> None:
    made = job()
    own_answers(made, made.reader.digests())
    own_answers(made, made.reader.digests() | {"model.safetensors": "0" * 64})
    assert len(list(answers_folder().iterdir())) == 2
    shorter = tmp_path / "shorter"
    shutil.copytree(demo, shorter)
    (shorter / "generation_config.json").write_text(json.dumps({"eos_token_id": [260, 261], "max_new_tokens": 3}))
    made = job(shorter)
    answers = [record.answer for record in own_answers(made, made.reader.digests())]
    assert len(list(answers_folder().iterdir())) == 3
    tokens = [len(made.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]) for answer in answers]
    assert max(tokens) == 3
    assert any(f"{PAGES} of {PAGES} answers reached the limit of tokens (3" in line for line in heard(made).said)


def test_answers_are_written_as_the_run_says(job: Prepare, tiny: Path) -> None:
    """A penalty has answers of its own, and so have other limits; the report says how they were written."""
    answers = {}
    for penalty in (1.0, 1.5):
        made = job(tiny, repetition_penalty=penalty, max_new_tokens=9, num_samples=2)
        assert (made.decoding.repetition_penalty, made.decoding.max_new_tokens) == (penalty, 9)
        answers[penalty] = [record.answer for record in own_answers(made, made.reader.digests())]
    assert answers[1.0] != answers[1.5]
    assert len(list(answers_folder().iterdir())) == 2


def test_a_generation_config_that_cannot_be_used_is_refused_at_the_start(
    job: Prepare, tiny: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny, model)
    (model / "generation_config.json").write_text('{"eos_token_id": 260, "repetition_penalty": 0.5}')
    for given in ({}, {"answers": "none", "eval": "synthetic:2"}, {"answers": "none"}):
        with pytest.raises(CheckpointError, match=r"generation_config\.json: repetition_penalty = 0\.5"):
            job(model, **given)


def test_a_loop_is_cut_to_one_round_and_said(job: Prepare) -> None:
    made = job()
    own_answers(made, made.reader.digests())
    for path in kept_files()[:2]:
        path.write_bytes(seal({"text": "total 17 " * 400, "ended": False}))
    answers = [record.answer for record in own_answers(made, made.reader.digests())]
    assert answers.count("total 17 ") == 2
    assert any("2 of 6 answers end in a repetition loop" in line for line in heard(made).said)
    assert any("2 of 6 answers reached the limit" in line for line in heard(made).said)


def test_a_page_that_cannot_be_used_keeps_no_answer(job: Prepare) -> None:
    made = job(num_samples=12)

    def unreadable() -> Any:
        raise CalibrationError("no such file")

    made.records = [*made.records[:-1], Record("gone.png", None, None, unreadable)]
    answered = own_answers(made, made.reader.digests())
    assert answered[-1].answer is None
    assert all(record.answer for record in answered[:-1])
    assert not any("gone.png" in line for line in heard(made).said), "the embedding says it"


def test_answers_are_the_users_own_secret(job: Prepare) -> None:
    made = job()
    own_answers(made, made.reader.digests())
    (folder,) = answers_folder().iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    assert not list(folder.glob(".*.partial"))


def test_another_run_is_waited_for(job: Prepare) -> None:
    made = job()
    own_answers(made, made.reader.digests())
    (folder,) = answers_folder().iterdir()
    lock = try_lock(folder / "lock")
    assert lock is not None
    done: list[list[Record]] = []
    waiting = threading.Thread(target=lambda: done.append(own_answers(made, made.reader.digests())))
    waiting.start()
    while not any("waiting for it to finish" in line for line in heard(made).said):
        time.sleep(0.01)
    assert not done
    os.close(lock)
    waiting.join()
    assert len(done[0]) == PAGES


def test_a_cache_that_cannot_be_written_is_refused(job: Prepare) -> None:
    made = job()
    answers_folder().parent.mkdir(parents=True)
    answers_folder().write_text("a file")
    with pytest.raises(OutputError, match=r"cannot keep answers in .*; set XDG_CACHE_HOME to another folder"):
        own_answers(made, made.reader.digests())


def test_the_memory_of_the_whole_model_is_asked_for(job: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, generating = (check_resources(job(answers=answers)).memory for answers in ("none", "generate"))
    assert plain is not None
    assert generating is not None
    made = job()
    whole = sum(info.nbytes for info in made.reader.tensors.values())
    # Keys and values in 4 layers of 2 heads of 64 in bf16, of 16384 tokens or what the pages can have at most.
    tokens = min(16384, len(made.records) * made.model.max_tokens)
    page = generating - (RUNTIME_BYTES + whole + tokens * 2 * 4 * 2 * 64 * 2)
    assert 0 < page < 10e6, "what one page takes on its way through the model"
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": (plain + generating) // 2}))
    check_resources(job(answers="none"))
    with pytest.raises(
        BadInputError, match=r"use --answers data or none, fewer samples, --spill, or a lower --max-pixels"
    ):
        check_resources(job())


def test_batches_keep_within_their_tokens(job: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    made = job(num_samples=24)
    whole = own_answers(made, made.reader.digests())
    shutil.rmtree(answers_folder())
    sizes: list[tuple[int, int]] = []
    generate = Runner.generate

    def spy(self: Runner, prompts: Any) -> Any:
        sizes.append((len(prompts.token_ids), prompts.token_ids.shape[1] + self.decoding.max_new_tokens))
        return generate(self, prompts)

    monkeypatch.setattr(Runner, "generate", spy)
    monkeypatch.setattr(module, "BATCH_TOKENS", 250)
    again = own_answers(made, made.reader.digests())
    assert max(pages for pages, _ in sizes) > 1
    assert all(pages * tokens <= 250 for pages, tokens in sizes)
    assert [record.answer for record in again] == [record.answer for record in whole]


def test_a_prompt_and_its_answer_are_no_longer_than_the_model_takes(job: Prepare, monkeypatch: Any) -> None:
    made = job()
    longest = max(
        build_sample(record, made.processor, with_answer=False).inputs["input_ids"].shape[1] for record in made.records
    )
    monkeypatch.setattr(HunYuanVL, "max_tokens", longest + module.CLOSING_TOKENS + 2)
    for record in own_answers(made, made.reader.digests()):
        sample = build_sample(record, made.processor, with_answer=True)
        assert sample.inputs["input_ids"].shape[1] <= longest + module.CLOSING_TOKENS + 2
    assert any("reached the limit of tokens" in line for line in heard(made).said)
