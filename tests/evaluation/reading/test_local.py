"""`hyocr eval` with vLLM in a process of its own, and with what Transformers itself makes of a quantized checkpoint."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from hyocr_core.cli.main import main
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.samples import build_sample
from hyocr_core.pages.sources import open_source
from hyocr_core.run.quantize import quantize
from hyocr_core.runtimes import native
from hyocr_core.settings.run_config import RunConfig
from tests.report import built

pytestmark = pytest.mark.needs_methods

STUB = """#!{python}
import base64, io, json, os, sys, time
if sys.argv[2] == "--installed":
    print(json.dumps({{"distribution": "vllm", "version": "9.9.9", "packages": {{"transformers": "5.20.1"}}}}))
    sys.exit(print('"reference"'))
from PIL import Image
runner, checkpoint, most, at_once = sys.argv[1:]
print("loading", file=sys.stderr)
for line in sys.stdin:
    request = json.loads(line)
    page = Image.open(io.BytesIO(base64.b64decode(request["image"]))).getpixel((3, 3))[0]
    request |= {{"image": page, "checkpoint": checkpoint, "most": int(most)}}
    with open({log!r}, "a") as log:
        log.write(json.dumps(request) + "\\n")
    {body}
    tokens = [{letters}[page], {letters}[1], 260]
    answer = {{"prompt": [0] * {prompt}, "tokens": tokens, "ended": page != 1, "seconds": 0.25}}
    print(json.dumps(answer | {{"number": request["number"]}}), flush=True)
"""
COUNT = 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "pages"
    data.mkdir()
    for index in range(COUNT):
        Image.new("RGB", (256, 32), (index, 9, 200)).save(data / f"{index}.png")
        (data / f"{index}.txt").write_text(f"{chr(97 + index)}b\n")
    return data


@pytest.fixture
def vllm(tmp_path: Path, tiny: Path, folder: Path) -> Callable[..., Path]:
    """An interpreter that seems to have vLLM, and instead of the runner answers each page with two letters."""
    processor = load_processor(tiny)
    sample = build_sample(next(iter(open_source(str(folder)))), processor, with_answer=False)
    letters = processor.tokenizer("abcd", add_special_tokens=False)["input_ids"]

    def make(body: str = "", prompt: int = sample.prompt_tokens) -> Path:
        path = tmp_path / "python"
        log = str(tmp_path / "log.jsonl")
        path.write_text(STUB.format(python=sys.executable, body=body, log=log, prompt=prompt, letters=letters))
        path.chmod(0o755)
        return path

    return make


def requests(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["eval", *map(str, arguments)])


def read(model: Path, folder: Path, *arguments: object) -> Result:
    return run(model, "--data", folder, "--keep-duplicates", "--json", *arguments)


def error(result: Result) -> str:
    errors = [line for line in result.stderr.splitlines() if line.startswith("hyocr: error:")]
    assert len(errors) == 1, result.output
    return errors[0]


def test_vllm_reads_page_after_page(tiny: Path, folder: Path, tmp_path: Path, vllm: Callable[..., Path]) -> None:
    result = read(tiny, folder, "--backend", "vllm", "--python", vllm())
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert [page["text"] for page in data["pages"]] == ["ab", "bb", "cb", "db"]
    model = data["model"]
    assert (model["runtime"], model["model"], model["exact_match"]) == ("vllm", str(tiny), 1)
    assert (model["tokens"], model["cut_pages"], model["seconds"]) == (3 * COUNT, 1, 0.25 * COUNT)
    assert model["weight_bytes"] == (tiny / "model.safetensors").stat().st_size
    assert data["environment"]["model vllm"] == "9.9.9"
    processor = load_processor(tiny)
    record = next(iter(open_source(str(folder))))
    sample = build_sample(record, processor, with_answer=False)
    for index, request in enumerate(requests(tmp_path)):
        assert (request["image"], request["max_tokens"], request["checkpoint"]) == (index, 12, str(tiny))
        assert request["most"] == sample.prompt_tokens + 12
        prompt = processor(text=[request["prompt"]], images=[record.open_image()], return_tensors="pt")
        assert prompt["input_ids"].tolist() == sample.inputs["input_ids"].tolist()


def test_both_sides_by_vllm(tiny: Path, noisy: Path, folder: Path, tmp_path: Path, vllm: Callable[..., Path]) -> None:
    result = read(noisy, folder, "--baseline", tiny, "--backend", "vllm", "--python", vllm())
    assert result.exit_code == 0, result.output
    compared = json.loads(result.stdout)["comparison"]
    assert (compared["identical_pages"], compared["cer_difference"], compared["kl"]) == (COUNT, 0, None)
    assert [request["checkpoint"] for request in requests(tmp_path)] == [str(noisy)] * COUNT + [str(tiny)] * COUNT


def test_a_vllm_that_dies_says_why_and_its_pages_stay(
    tiny: Path, folder: Path, tmp_path: Path, vllm: Callable[..., Path]
) -> None:
    result = read(tiny, folder, "--backend", "vllm", "--python", vllm("if page == 2: raise MemoryError('no room')"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "vLLM: MemoryError: no room" in error(result)
    (tmp_path / "log.jsonl").unlink()
    again = read(tiny, folder, "--backend", "vllm", "--python", vllm())
    assert again.exit_code == 0, again.output
    assert "2 of 4 pages are kept from an interrupted run" in again.stderr
    assert [request["image"] for request in requests(tmp_path)] == [2, 3]


def test_a_vllm_whose_processor_is_another_is_refused(tiny: Path, folder: Path, vllm: Callable[..., Path]) -> None:
    result = read(tiny, folder, "--backend", "vllm", "--python", vllm(prompt=7))
    assert result.exit_code == 1
    assert "0.png: vLLM makes 7 tokens of the prompt, the checkpoint's processor " in error(result)


def test_no_vllm_is_said_before_the_pages_are_read(tiny: Path, folder: Path, tmp_path: Path) -> None:
    for python, message in ((sys.executable, "has no vllm; give"), (tmp_path / "none", "cannot be run: No such file")):
        result = read(tiny, folder, "--backend", "vllm", "--python", python)
        assert result.exit_code == 2
        assert f"{python} {message}" in error(result)
        assert "check pages" not in result.stderr


def test_vllm_beside_transformers_only_when_asked(tiny: Path, folder: Path, vllm: Callable[..., Path]) -> None:
    arguments = ("--baseline", tiny, "--backend", "vllm", "--baseline-backend", "transformers", "--python", vllm())
    result = read(tiny, folder, *arguments)
    assert result.exit_code == 2
    assert "--cross-runtime" in error(result)
    data = json.loads(read(tiny, folder, *arguments, "--cross-runtime").stdout)
    assert [data[side]["runtime"] for side in ("model", "baseline")] == ["vllm", "transformers"]


@pytest.fixture(scope="module")
def quantized(demo: Path, calib: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(written: str) -> Path:
        if written not in made:
            made[written] = tmp_path_factory.mktemp("quantized") / "out"
            options = {"format": written, "group_size": 64}
            run = RunConfig(
                model=str(demo), method="rtn", output=made[written], calib=calib, num_samples=1, options=options
            )
            quantize(run)
        return made[written]

    return make


def test_transformers_itself_reads_the_same_as_hyocr_on_the_unpacked_weights(
    quantized: Callable[[str], Path], demo: Path, folder: Path
) -> None:
    pytest.importorskip("compressed_tensors")
    model, results = quantized("compressed-tensors"), {}
    for backend in ("dequant", "transformers"):
        result = read(model, folder, "--baseline", demo, "--backend", backend, "--max-new-tokens", 6)
        assert result.exit_code == 0, result.output
        results[backend] = json.loads(result.stdout)
    assert [results[name]["model"]["runtime"] for name in results] == ["dequant", "transformers"]
    assert {results[name]["baseline"]["runtime"] for name in results} == {"transformers"}
    ours, theirs = (results[name] for name in results)
    assert [page["text"] for page in theirs["pages"]] == [page["text"] for page in ours["pages"]]
    assert theirs["comparison"]["kl"] == pytest.approx(ours["comparison"]["kl"], rel=0.05)
    assert theirs["comparison"]["kl"] > 0
    assert theirs["model"]["part_bytes"] == ours["model"]["part_bytes"]


def test_what_vllm_has_read_is_recorded(
    quantized: Callable[[str], Path], demo: Path, folder: Path, vllm: Callable[..., Path]
) -> None:
    model = quantized("compressed-tensors")
    arguments = ("--backend", "vllm", "--python", vllm(), "--baseline", demo, "--max-new-tokens", 3, "--record")
    result = read(model, folder, *arguments)
    assert result.exit_code == 0, result.output
    recorded = json.loads(built.recorded(model).read_text())
    assert recorded["pages"] == json.loads(result.stdout)["pages"]
    assert "vllm" in (model / "report" / "index.html").read_text()


def test_dequant_beside_transformers_on_two_quantized_checkpoints_is_refused(
    quantized: Callable[[str], Path], folder: Path
) -> None:
    pytest.importorskip("compressed_tensors")
    model = quantized("compressed-tensors")
    result = read(model, folder, "--baseline", model, "--backend", "dequant", "--baseline-backend", "transformers")
    assert result.exit_code == 2
    assert "the model is read by dequant and the baseline by transformers" in error(result)


def test_a_package_that_transformers_lacks_is_named(
    quantized: Callable[[str], Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = quantized("compressed-tensors")
    monkeypatch.setattr(native, "find_spec", lambda _name: None)
    result = read(model, folder, "--backend", "transformers")
    assert result.exit_code == 2
    assert f"{model}: Transformers needs compressed_tensors for this format; install that" in error(result)
    assert "--backend dequant reads it without" in error(result)
    assert "check pages" not in result.stderr
