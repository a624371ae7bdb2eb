"""How many pages vLLM is given at once, by the versions that are there."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from hyocr_core.cli.main import main
from hyocr_core.evaluation.reading.remote import AT_ONCE
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.samples import build_sample
from hyocr_core.pages.sources import open_source

COUNT = 4
STUB = """#!EXECUTABLE
import json, sys
from pathlib import Path
with Path(__file__).with_name("asked").open("a") as asked:
    asked.write(sys.argv[-1] + " ")
if sys.argv[-1] == "--installed":
    print(json.dumps({"distribution": "vllm", "version": "0.32.0", "packages": {"transformers": "TRANSFORMERS"}}))
    sys.exit(print('"transformers"'))
if sys.argv[-1] == "fast":
    for line in sys.stdin:
        asked = json.loads(line)
        assert asked["timed"], "each is to be timed"
        told = {"number": asked["number"], "prompt": [0] * PROMPT, "tokens": [10] * 5, "ended": True, "seconds": 0.1}
        print(json.dumps(told | {"times": [asked["number"], asked["number"] + 0.25, asked["number"] + 1]}), flush=True)
    sys.exit()
at_once = int(sys.argv[-1])
waiting = []
for line in sys.stdin:
    waiting.append(json.loads(line)["number"])
    if len(waiting) == min(at_once, 2):
        for number in reversed(waiting):
            told = {"number": number, "prompt": [0] * PROMPT, "tokens": [10 + number], "ended": True, "seconds": 0.1}
            print(json.dumps(told), flush=True)
        waiting = []
"""
"""Writes a token of its own for each page; of several at once the second is done first."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "pages"
    folder.mkdir()
    for index in range(COUNT):
        Image.new("RGB", (256, 32), (index, 9, 200)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text("text")
    return folder


@pytest.fixture
def read(data: Path, tiny: Path, tmp_path: Path) -> Callable[..., Result]:
    """Read with a vLLM beside this Transformers, which notes how many pages it is to read at once."""
    prompt = build_sample(next(iter(open_source(str(data)))), load_processor(tiny), with_answer=False).prompt_tokens

    def run(
        transformers: str, *options: object, command: str = "eval", beside: tuple[object, ...] = ("--keep-duplicates",)
    ) -> Result:
        python = tmp_path / "python"
        filled = {"EXECUTABLE": sys.executable, "TRANSFORMERS": transformers, "PROMPT": str(prompt)}
        source = STUB
        for word, value in filled.items():
            source = source.replace(word, value)
        python.write_text(source)
        python.chmod(0o755)
        arguments = [
            command,
            tiny,
            "--data",
            data,
            *beside,
            "--backend",
            "vllm",
            "--python",
            python,
            "--json",
        ]
        return CliRunner().invoke(main, [*map(str, arguments), *map(str, options)])

    return run


@pytest.mark.parametrize(
    ("transformers", "options", "at_once"),
    [
        ("5.20.1", (), AT_ONCE),
        ("5.20.1", ("--batch-size", 2), 2),
        ("5.20.1", ("--batch-size", 1), 1),
        ("5.19.0", (), 1),
        ("5.19.0", ("--batch-size", 1), 1),
    ],
)
def test_pages_at_once(
    read: Callable[..., Result],
    tiny: Path,
    tmp_path: Path,
    transformers: str,
    options: tuple[object, ...],
    at_once: int,
) -> None:
    result = read(transformers, *options)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "asked").read_text().split() == ["--installed", str(at_once)], "it is started twice, no more"
    tokenizer = load_processor(tiny).tokenizer
    found = json.loads(result.stdout)
    expected = [tokenizer.decode([10 + number], skip_special_tokens=True) for number in range(COUNT)]
    assert [page["text"] for page in found["pages"]] == expected, "each page has its own answer"
    assert found["environment"]["model vllm transformers"] == transformers
    assert found["model"]["forward"] == "transformers"
    said = " ".join(result.stderr.split())
    assert "computes Transformers' forward of HunyuanOCR, not the reference's: pip install hyocr-vllm" in said
    notice = "one page at a time: vLLM 0.32.0 with Transformers 5.19.0 mixes up pages that it encodes together: pip"
    assert (notice in said) == (transformers == "5.19.0")


def bench(read: Callable[..., Result], transformers: str, *options: object) -> Result:
    return read(transformers, *options, command="bench", beside=("--turns", 1, "--repetitions", 1))


def test_its_speed_is_that_of_its_own_clock(
    read: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of pages that take a second each, one after the other, the first token after a quarter."""
    monkeypatch.setattr("hyocr_core.evaluation.turns.SECONDS", 0.0)
    result = bench(read, "5.20.1", "--at-once", 1)
    assert result.exit_code == 0, result.output
    (level,) = json.loads(result.stdout)["model"]["levels"]
    assert level["first_token_seconds"] == pytest.approx([0.25])
    assert level["token_seconds"] == pytest.approx([0.75 / 4])
    assert level["pages_per_second"] == pytest.approx([1])
    assert level["tokens_per_second"] == pytest.approx([5])
    assert (tmp_path / "asked").read_text().split() == ["--installed", "fast"]


def test_versions_that_mix_up_pages_are_not_timed_with_several(read: Callable[..., Result]) -> None:
    result = bench(read, "5.19.0", "--at-once", "1,2")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "beside vLLM" in result.stderr
    assert "here --at-once 1" in result.stderr


def test_versions_that_mix_up_pages_are_not_given_several(read: Callable[..., Result], tmp_path: Path) -> None:
    result = read("5.19.0", "--batch-size", 2)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("hyocr: error:")]
    assert "vLLM 0.32.0 with Transformers 5.19.0 mixes up pages that it encodes together" in line
    assert "pip install 'transformers>=5.20.1,<5.21' beside vLLM" in line
    assert "here --batch-size 1" in line
    assert (tmp_path / "asked").read_text().split() == ["--installed"]
