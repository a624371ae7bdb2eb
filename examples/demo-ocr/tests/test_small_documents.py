"""Small documents say what they show, in the model's own format, and a step of training on them moves the weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hyocr_core.pages.prompts import TASKS

sys.path.insert(0, str(Path(__file__).parents[1]))

from batches import Prompt
from lines import IGNORE, split_of
from make_data import write_data
from model import build_config, build_processor
from readers import QUESTIONS, place
from small_documents import CELLS, DOCUMENTS, EMPTY, KINDS, READER, Document, random_document
from train_documents import MAX_NEW_TOKENS, Trainer, encode
from worker import Recipe

NUMBERS = (11, 22, 33, 44, 55, 66)


def document(kind: str) -> Document:
    return Document(kind, NUMBERS, np.zeros((READER.height, READER.width), dtype=np.uint8))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (
            "table",
            "<table><tr><td>11</td><td>22</td><td>33</td></tr><tr><td>44</td><td>55</td><td>66</td></tr></table>",
        ),
        ("fraction", r"$$\frac{22}{55}$$"),
        ("lines", "11 22 33\n44 55 66"),
    ],
)
def test_each_kind_is_written_as_the_model_would(kind: str, text: str) -> None:
    found = document(kind)
    assert found.text == text
    assert [text for text, cell in found.pieces if cell is not None] == [
        str(NUMBERS[cell]) for _, cell in found.pieces if cell is not None
    ]
    assert len(text.encode()) < min(MAX_NEW_TOKENS, READER.max_tokens)


def test_pages_show_their_kind_and_numbers() -> None:
    rng = np.random.default_rng(0)
    drawn = [random_document(rng, "heldout") for _ in range(40)]
    assert {page.kind for page in drawn} == set(KINDS)
    for page in drawn:
        assert split_of(page.text) == "heldout"
        assert page.pixels.shape == (READER.height, READER.width)
        assert np.ptp(page.pixels) > 80
        empty = [number is None for number in page.numbers]
        assert sum(empty) == (CELLS - 2 if page.kind == "fraction" else 0)
        assert [tuple(pair) == (EMPTY, EMPTY) for pair in page.digits.tolist()] == empty


def test_data_are_questions_and_answers_of_their_split(tmp_path: Path) -> None:
    write_data(tmp_path, DOCUMENTS, heldout=8, calib=4)
    texts = {}
    for split, count in {"heldout": 8, "calib": 4}.items():
        rows = [json.loads(line) for line in (tmp_path / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
        assert {row["question"] for row in rows} == {TASKS["doc_parse"]["zh"]}
        texts[split] = {row["answer"] for row in rows}
        assert len(texts[split]) == count
        assert {split_of(text) for text in texts[split]} == {split}
        assert all((tmp_path / row["img_path"]).is_file() for row in rows)
    assert texts["heldout"].isdisjoint(texts["calib"])


def test_the_checkpoint_has_the_described_shape() -> None:
    folder = place("checkpoint", DOCUMENTS)
    described = build_config(READER).to_dict()
    committed = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for part in ("text_config", "vision_config"):
        assert {key: described[part][key] for key in committed[part]} == committed[part]
    generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["max_new_tokens"] == MAX_NEW_TOKENS


def test_a_batch_holds_the_answers_and_where_they_stand() -> None:
    tokenizer = build_processor(READER).tokenizer
    prompt = Prompt.build(tokenizer, READER, QUESTIONS[1], system=True)
    batch = encode([document("table"), document("fraction")], tokenizer, prompt)
    for row, kind in enumerate(("table", "fraction")):
        known = batch.answers[row][batch.answers[row] != IGNORE]
        assert tokenizer.decode(known[:-1]) == document(kind).text
        places = batch.where[row][: len(known)].tolist()
        assert [place for place in places if place < CELLS] == [
            cell for text, cell in document(kind).pieces if cell is not None for _ in text
        ]
        assert batch.ids[row, len(prompt.ids) : len(prompt.ids) + len(known) - 1].tolist() == known[:-1].tolist()


def test_a_step_moves_the_weights_and_is_the_same_again() -> None:
    losses = []
    for _ in range(2):
        trainer = Trainer(Recipe("documents", 100, batch=2))
        before = {name: tensor.detach().clone() for name, tensor in trainer.params.items()}
        losses.append(trainer.advance(0))
        moved = [name for name, tensor in trainer.params.items() if not torch.equal(tensor, before[name])]
        assert any("language_model.layers" in name for name in moved)
        assert any("vision_tower.layers" in name for name in moved)
    assert losses[0] == losses[1]
