"""`--fits` and what belongs to it: of `hyocr quant --dry-run` and of `hyocr doctor MODEL`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.cli.main import main
from hyocr_core.cli.serving_options import bytes_of
from hyocr_core.models.servable import open_servable
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.testing import tiny

pytestmark = pytest.mark.needs_methods


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.shared_checkpoint(tmp_path_factory.mktemp("serving"))


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def plan(model: Path, output: Path, *arguments: str, method: str = "rtn") -> Result:
    given: list[str | Path] = [
        "--method",
        method,
        "--model",
        model,
        "--output",
        output,
        "--device",
        "cpu",
        "--calib",
        tiny.PAGES,
    ]
    return invoke("quant", *given, "--dry-run", *arguments)


def serving(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)["serving"]
    return found


def test_the_plan_of_a_checkpoint_is_what_doctor_says_of_it(model: Path, tmp_path: Path) -> None:
    from hyocr_core.run.quantize import quantize

    for format_ in ("gptq", "compressed-tensors"):
        output = tmp_path / format_
        planned = serving(plan(model, output, "--format", format_, "--json", "--pages-at-once", "3"))
        options = {"format": format_}
        quantize(RunConfig(model=str(model), output=output, method="rtn", options=options, device="cpu"))
        found = invoke("doctor", output, "--json", "--pages-at-once", "3")
        assert serving(found) == planned
        in_vllm, in_transformers = planned["runtimes"]
        stored = sum(info.nbytes for info in CheckpointReader(output).tensors.values())
        assert in_vllm["weights"] == stored
        full = open_servable(model).unpacked
        # compressed-tensors unpacks everything in Transformers.
        assert in_transformers["weights"] == (stored if format_ == "gptq" else full)
        assert in_vllm["kv_cache"] == 3 * in_vllm["kv_cache_per_page"]


def test_yes_is_0_and_no_is_1(model: Path, tmp_path: Path) -> None:
    yes = plan(model, tmp_path / "out", "--fits", "8GB")
    assert yes.exit_code == 0, yes.stderr
    assert "vLLM: yes, it fits: 1." in yes.stdout
    no = plan(model, tmp_path / "out", "--fits", "0.5GB")
    assert no.exit_code == 1
    assert "vLLM: no, it does not fit: 1." in no.stdout
    assert "one page at once (--max-num-seqs 1)" in no.stdout
    assert invoke("doctor", model, "--fits", "8 GiB").exit_code == 0
    assert invoke("doctor", model, "--fits", "500MB").exit_code == 1


def test_one_runtime_that_fits_is_enough(model: Path) -> None:
    found = invoke("doctor", model, "--fits", "1.2GB", "--json")
    assert {fit["runtime"]: fit["fits"] for fit in serving(found)["fits"]} == {"vLLM": False, "Transformers": True}
    assert found.exit_code == 0


def test_without_a_question_the_memory_is_told_all_the_same(model: Path, tmp_path: Path) -> None:
    for result in (plan(model, tmp_path / "out", "--page-size", "64x64"), invoke("doctor", model)):
        assert result.exit_code == 0
        assert "KV cache" in result.stdout
        assert "fit" not in result.stdout.split("served by")[1]
    assert "KV cache" not in invoke("doctor").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--fits", "eight"), "--fits: 'eight' is no size; write a number and GB, GiB, MB or MiB, such as 8GB"),
        (("--fits", "0GB"), "--fits: '0GB' is no size"),
        (("--page-size", "A4"), "--page-size: 'A4' is no size; write width x height in pixels, such as 2480x3508"),
        (("--page-size", "0x9"), "--page-size: '0x9' is no size"),
        (("--page-size", "1x900"), "a page of 1x900: the processor refuses it"),
        (("--pages-at-once", "0"), "serving: pages_at_once = 0"),
        (("--answer-tokens", "-1"), "serving: answer_tokens = -1"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, str], said: str, model: Path) -> None:
    result = invoke("doctor", model, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.strip().count("\n") == 0


def test_a_question_needs_what_it_is_about(model: Path, tmp_path: Path) -> None:
    asked = invoke("doctor", "--fits", "8GB")
    assert asked.exit_code == 2
    assert "ask about a model; name it" in asked.stderr
    asked = invoke("quant", "--method", "rtn", "--model", model, "--output", tmp_path / "out", "--fits", "8GB")
    assert asked.exit_code == 2
    assert "are questions to --dry-run; add it" in asked.stderr
    assert not (tmp_path / "out").exists()
    assert invoke("doctor", tmp_path / "nowhere").exit_code == 2


def test_what_cannot_be_estimated_is_refused_only_when_asked(model: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(model, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    assert json.loads(plan(bare, tmp_path / "out", "--json").stdout)["serving"] is None
    asked = plan(bare, tmp_path / "out", "--fits", "8GB")
    assert asked.exit_code == 2
    assert "--fits cannot be answered: " in asked.stderr
    assert "holds no tokenizer" in asked.stderr


def test_units() -> None:
    assert [bytes_of(text) for text in ("8GB", "8gib", "1.5 MB", None)] == [8 * 10**9, 8 * 2**30, 1_500_000, None]
