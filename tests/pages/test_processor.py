"""The processor of a checkpoint loads, or one line says what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyocr_core.errors import CheckpointError
from hyocr_core.pages.processor import load_processor

Damage = Callable[[Path], None]


def remove(*names: str) -> Damage:
    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return damage


def write(name: str, content: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).write_text(content)

    return damage


def change(name: str, **values: Any) -> Damage:
    def damage(folder: Path) -> None:
        config = json.loads((folder / name).read_text()) | values
        (folder / name).write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    return damage


def test_the_image_processor_is_the_one_made_of_pillow(checkpoint: Path) -> None:
    processor = load_processor(checkpoint)
    # By its module: below 5.22 the class has to answer to another name.
    assert type(processor.image_processor).__module__.endswith("image_processing_pil_hunyuan_vl")
    assert processor.tokenizer("ab")["input_ids"] == [64, 65]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (remove("tokenizer.json", "tokenizer_config.json"), "holds no tokenizer"),
        (remove("preprocessor_config.json", "processor_config.json"), "holds no image processor"),
        (remove("chat_template.jinja"), "holds no chat template"),
        (write("tokenizer.json", "{"), "its processor cannot be loaded"),
        (write("tokenizer_config.json", "[]"), "its processor cannot be loaded"),
        (write("processor_config.json", "nothing"), "its processor cannot be loaded"),
        (change("tokenizer_config.json", image_token=None), "missing required attribute 'image_token'"),
        (write("chat_template.jinja", "{% for %}"), "its chat template does not render"),
        (
            write("chat_template.jinja", "{{ raise_exception('no images') }}"),
            "its chat template does not render: no images",
        ),
        (write("chat_template.jinja", "{{ ''.__class__.__mro__ }}"), "its chat template does not render"),
        (write("chat_template.jinja", "hello"), "its chat template leaves out the text of the question"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(checkpoint: Path, damage: Damage, reason: str) -> None:
    damage(checkpoint)
    with pytest.raises(CheckpointError) as caught:
        load_processor(checkpoint)
    message = str(caught.value)
    assert message.startswith(f"{checkpoint}: ")
    assert reason in message
    assert "\n" not in message


def test_no_code_of_the_checkpoint_is_run(checkpoint: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (checkpoint / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    for name in ("processor_config.json", "tokenizer_config.json", "preprocessor_config.json", "config.json"):
        auto_map = dict.fromkeys(("AutoProcessor", "AutoImageProcessor", "AutoConfig"), "evil.Evil")
        change(name, auto_map=auto_map)(checkpoint)
    processor = load_processor(checkpoint)
    assert type(processor).__name__ == "HunYuanVLProcessor"
    assert not mark.exists()
