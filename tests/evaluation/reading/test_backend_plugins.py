"""A backend from another distribution reads, and one that fails says whose it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from hyocr_core import BackendError, EvalConfig, RunError, evaluate
from hyocr_core.cli.main import main
from hyocr_core.contract.backend import AnyBackend
from hyocr_core.evaluation.reading.in_process import Dequant, Transformers
from hyocr_core.evaluation.reading.llama_cpp import LlamaCpp
from hyocr_core.evaluation.reading.remote import OpenAiEndpoint, Vllm
from hyocr_core.plugin.backends import installed_backends, load_backend
from tests.evaluation.plugins import BACKEND, EXAMPLES, install

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

ANSWER = "yield PageAnswer(page.index, {}, tokens=2)"
FIXED = BACKEND.format(ANSWER.format("'fixed text'"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "pages"
    data.mkdir()
    for index in range(3):
        Image.new("RGB", (256, 32), (index * 60, 9, 200)).save(data / f"{index}.png")
        (data / f"{index}.txt").write_text("fixed text\n" if index else "fixed next\n")
    return data


def read(model: object, folder: Path, *arguments: object) -> Result:
    given = ("eval", model, "--data", folder, "--backend", "toy", "--json", *arguments)
    return CliRunner().invoke(main, list(map(str, given)))


def refusal(result: Result) -> str:
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("hyocr: error: ")]
    assert result.exit_code in (1, 2), result.output
    return line.removeprefix("hyocr: error: ")


def test_those_of_the_core_are_registered() -> None:
    ours: dict[str, type[AnyBackend]] = {
        "transformers": Transformers,
        "dequant": Dequant,
        "vllm": Vllm,
        "endpoint": OpenAiEndpoint,
        "llama.cpp": LlamaCpp,
    }
    assert {entry.name: load_backend(entry.selector).cls for entry in installed_backends()} == ours


def test_a_backend_of_another_distribution_reads(plugins: PluginFolder, tiny: Path, folder: Path) -> None:
    install(plugins, "backends", "toy", FIXED)
    result = read(tiny, folder, "--baseline", tiny)
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert [page["text"] for page in data["pages"]] == ["fixed text"] * 3
    model = data["model"]
    assert (model["runtime"], model["model"], model["exact_match"]) == ("toy", str(tiny), 2 / 3)
    assert (model["tokens"], model["cut_pages"], model["weight_bytes"]) == (
        6,
        0,
        (tiny / "model.safetensors").stat().st_size,
    )
    assert model["seconds"] > 0
    assert (data["comparison"]["identical_pages"], data["comparison"]["kl"]) == (3, None)
    assert data["environment"]["model runtime"] == "toy"
    assert "which gives no kl" in refusal(read(tiny, folder, "--baseline", tiny, "--gate", "kl=1"))
    across = read(tiny, folder, "--baseline", tiny, "--baseline-backend", "auto")
    assert "the model is read by toy and the baseline by transformers" in refusal(across)


def test_it_is_told_what_the_checkpoint_says(plugins: PluginFolder, tiny: Path, folder: Path) -> None:
    told = "f'{self.model.max_new_tokens} {self.model.folder.name} {page.prompt_tokens} {page.messages[-1][\"role\"]}'"
    install(plugins, "backends", "toy", BACKEND.format(ANSWER.format(told)))
    (text,) = {page["text"] for page in json.loads(read(tiny, folder, "--max-new-tokens", 7).stdout)["pages"]}
    tokens, name, prompt, role = text.split()
    assert (tokens, name, role) == ("7", "model", "user")
    assert int(prompt) > 10


def test_what_a_backend_cannot_honour_is_refused_by_name(
    plugins: PluginFolder, tiny: Path, folder: Path, tmp_path: Path
) -> None:
    install(plugins, "backends", "toy", FIXED.replace("= 1\n", "= 1\n    honours = ()\n", 1))
    given = refusal(read(tiny, folder, "--repetition-penalty", 1.2))
    assert given == (
        "backend toy (hyocr-toys 0.0.1) cannot honour repetition_penalty=1.2: give --repetition-penalty 1 to read "
        "without, or another backend"
    )
    limit = refusal(read(tiny, folder, "--max-new-tokens", 7))
    assert limit.startswith("backend toy (hyocr-toys 0.0.1) cannot honour max_new_tokens=7: leave --max-new-tokens out")
    assert read(tiny, folder).exit_code == 0, "nothing is asked"
    own = tmp_path / "own"
    shutil.copytree(tiny, own)
    (own / "generation_config.json").write_text('{"eos_token_id": 260, "repetition_penalty": 1.03}')
    assert "cannot honour repetition_penalty=1.03" in refusal(read(own, folder))
    assert read(own, folder, "--repetition-penalty", 1).exit_code == 0


def test_one_that_says_nothing_does_what_it_always_did(plugins: PluginFolder, tiny: Path, folder: Path) -> None:
    """It was written before `honours`, and reads limit and penalty where they always stood."""
    told = "f'{self.model.max_new_tokens} {self.model.repetition_penalty} {self.model.decoding}'"
    install(plugins, "backends", "toy", BACKEND.format(ANSWER.format(told)))
    data = json.loads(read(tiny, folder, "--max-new-tokens", 7, "--repetition-penalty", 1.2).stdout)
    assert {page["text"] for page in data["pages"]} == {
        "7 1.2 repetition penalty 1.2, at most 7 new tokens, loops stopped"
    }


def test_loops_of_any_backend_are_cut(plugins: PluginFolder, tiny: Path, folder: Path) -> None:
    install(plugins, "backends", "toy", BACKEND.format(ANSWER.format("'ab' * 9000")))
    for given, length in (((), 4000), (("--keep-loops",), 18000)):
        data = json.loads(read(tiny, folder, *given).stdout)
        assert {len(page["text"]) for page in data["pages"]} == {length}
        assert (data["decoding"]["stop_loops"], data["model"]["loop_rate"]) == (length == 4000, 1.0)


def test_the_backend_of_the_documentation(plugins: PluginFolder, folder: Path, tmp_path: Path) -> None:
    install(plugins, "backends", "toy", EXAMPLES["files"], "Files")
    out = tmp_path / "out"
    out.mkdir()
    for index in range(3):
        (out / f"{index}.png.txt").write_text(f"fixed text{'!' if index else ''}")
    option = ("--backend-options", f"toy:folder={out}")
    data = json.loads(read("other-ocr", folder, *option).stdout)
    assert [page["text"] for page in data["pages"]] == ["fixed text", "fixed text!", "fixed text!"]
    assert (data["model"]["model"], data["model"]["weight_bytes"]) == ("other-ocr", None)
    (out / "1.png.txt").unlink()
    kept = read("other-ocr", folder, *option)
    assert json.loads(kept.stdout)["unread"] == {"1.png": f"{out / '1.png.txt'} is missing"}
    assert f"1 of 3 pages were not read, the first is 1.png: {out / '1.png.txt'} is missing" in refusal(kept)
    (out / "1.png.txt").write_text("fixed text")
    again = read("other-ocr", folder, *option)
    assert "2 of 3 pages are kept from an interrupted run" in again.stderr
    assert json.loads(again.stdout)["pages"][1]["text"] == "fixed text"
    assert refusal(read("other-ocr", folder)).endswith("options: folder: is missing")


def test_other_options_read_other_pages(plugins: PluginFolder, tiny: Path, folder: Path) -> None:
    """What was kept under other options of the backend is not taken for what these would read."""
    source = "from hyocr_core import BackendConfig\nfrom pydantic import Field\nclass Config(BackendConfig):\n"
    source += "    say: str = Field('a', description='what it says')\n"
    body = "yield PageAnswer(page.index, self.config.say if page.index < 2 or say == 'b' else None)"
    install(plugins, "backends", "toy", source + BACKEND.format(body).replace("= 1", "= 1\n    config_class = Config"))
    assert refusal(read(tiny, folder)).startswith("1 of 3 pages were not read, the first is 2.png: the backend gave no")
    other = read(tiny, folder, "--backend-options", "toy:say=b")
    assert "are kept" not in other.stderr
    assert {page["text"] for page in json.loads(other.stdout)["pages"]} == {"b"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("yield PageAnswer(7, 'x')", "its answer is to none of the pages that wait for one"),
        ("yield 'x'", "its answer is to none of the pages that wait for one"),
        ("yield PageAnswer(pages[0].index, 'x')", "its answer is to none of the pages that wait for one"),
        ("yield PageAnswer(page.index, b'x')", "0.png: text of its answer is wrong"),
        ("yield PageAnswer(page.index, 'x', tokens=-1)", "0.png: tokens of its answer is wrong"),
        ("yield PageAnswer(page.index, 'x', seconds=0.0)", "0.png: seconds of its answer is wrong"),
        ("yield PageAnswer(page.index, 'x', seconds=float('nan'))", "0.png: seconds of its answer is wrong"),
        ("yield 1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_backend_that_fails_is_named(
    plugins: PluginFolder, tiny: Path, folder: Path, body: str, message: str
) -> None:
    install(plugins, "backends", "toy", BACKEND.format(body))
    with pytest.raises(RunError) as caught:
        evaluate(EvalConfig(model=str(tiny), data=str(folder), backend="toy"))
    assert str(caught.value) == f"backend toy (hyocr-toys 0.0.1): {message}"


def test_what_is_silent_on_a_page_has_not_read_it(plugins: PluginFolder, tiny: Path, folder: Path) -> None:
    install(
        plugins, "backends", "toy", BACKEND.format("if page.index:\n                yield PageAnswer(page.index, 'x')")
    )
    result = evaluate(EvalConfig(model=str(tiny), data=str(folder), backend="toy"))
    assert result.unread == {"0.png": "the backend gave no answer"}
    assert [page.name for page in result.pages] == ["1.png", "2.png"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(Backend)", "", "is no class that derives from hyocr_core.Backend"),
        ("api_version = 1", "", "does not say which plugin API it speaks"),
        ("def read", "def reads", "has no method read; rename reads"),
        ("api_version = 1", "api_version = 1\n    config_class = int", "does not derive from hyocr_core.BackendConfig"),
        (
            "api_version = 1",
            "api_version = 1\n    def __init__(self, config, model): 1 / 0",
            "cannot start: ZeroDivision",
        ),
    ],
)
def test_a_backend_that_does_not_keep_the_contract_is_refused_before_pages_are_read(
    plugins: PluginFolder, tiny: Path, folder: Path, old: str, new: str, message: str
) -> None:
    assert old in FIXED
    install(plugins, "backends", "toy", FIXED.replace(old, new))
    with pytest.raises(BackendError) as caught:
        evaluate(EvalConfig(model=str(tiny), data=str(folder), backend="toy"))
    assert str(caught.value).startswith("backend toy (hyocr-toys 0.0.1): ")
    assert message in str(caught.value)


def test_two_that_claim_one_name_are_both_named(plugins: PluginFolder, tiny: Path, folder: Path) -> None:
    for of in ("toys", "twins"):
        install(plugins, "backends", "toy", FIXED, of=of)
    assert "the backend toy is offered by hyocr-toys 0.0.1 and hyocr-twins 0.0.1" in refusal(read(tiny, folder))
    assert read(tiny, folder, "--backend", "hyocr-twins:toy").exit_code == 0


def test_a_neighbour_that_takes_a_name_of_the_core_breaks_no_default(
    plugins: PluginFolder, tiny: Path, folder: Path
) -> None:
    install(plugins, "backends", "dequant", "raise ValueError('no')")
    assert read(tiny, folder, "--backend", "auto", "--max-new-tokens", 2).exit_code == 0
