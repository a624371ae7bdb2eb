"""Every command of the README and of the documentation runs, in a folder that holds what they take for granted."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from datasets import Dataset, Image  # type: ignore[import-untyped]
from packaging.requirements import Requirement
from PIL import Image as Pillow

from hyocr_core.cli.main import main as hyocr
from tests.benchmark_folders import olmocr_bench, omnidocbench
from tests.conftest import DEMO, REPO, lay_out_hub
from tests.docs.pages import DOCS, Fence, commands, fences

# docs/plugin.md is followed to the letter by test_plugin_page.py, and docs/zh has the commands of its English twin.
PAGES = [REPO / "README.md", *(page for page in sorted(DOCS.glob("*.md")) if page.name != "plugin.md")]
QUANTIZED = ("HunyuanOCR-int4", "HunyuanOCR-fp8")
ROWS = 4

THIRD_PARTY = {"compressed-tensors", "transformers", "vllm"}
"""What the documentation may tell readers to install beside the distributions of this repository."""


def accept_pip(command: list[str]) -> None:
    """Every requirement is of this repository, with extras that it has, or known."""
    offers = {
        project["name"]: set(project.get("optional-dependencies", {}))
        for path in (REPO / "pyproject.toml", REPO / "meta/pyproject.toml", *REPO.glob("plugins/*/pyproject.toml"))
        for project in (tomllib.loads(path.read_text(encoding="utf-8"))["project"],)
    }
    given = command[2:]
    if given[:1] == ["--find-links"]:
        assert given[1] == "out/dist", "where make release-check leaves wheels"
        given = given[2:]
    for requirement in given:
        folder, bracket, extras = requirement.partition("[")
        if requirement.startswith("."):
            named = tomllib.loads((REPO / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
            requirement = f"{named}{bracket}{extras}"
        asked = Requirement(requirement)
        if asked.name not in THIRD_PARTY:
            assert asked.extras <= offers[asked.name], requirement
            assert not asked.specifier, requirement


def accept_vllm(command: list[str]) -> None:
    """Of what it serves; tests/clients/test_vllm_commands.py lets vLLM parse the options."""
    assert command[2] in QUANTIZED


def accept_curl(command: list[str]) -> None:
    assert {"model", "messages"} <= json.loads(command[command.index("-d") + 1]).keys()


def accept_llama(command: list[str]) -> None:
    """The files that it names are those that `hyocr quant --method gguf` writes."""
    names = {Path(part).name for part in command if part.endswith((".gguf", "Modelfile"))}
    assert names <= {"model-q4_0.gguf", "mmproj-f16.gguf", "Modelfile"}


def accept_hyocr(command: list[str]) -> None:
    """Parse the options as the program does, without running it."""
    context = click.Context(hyocr, info_name="hyocr")
    current: click.Command = hyocr
    rest = command[1:]
    while isinstance(current, click.Group):
        current = current.get_command(context, rest[0]) or pytest.fail(f"no command {rest[0]}")
        rest = rest[1:]
    current.make_context(current.name, rest, parent=context)


def accept_torchrun(command: list[str]) -> None:
    """What each process runs is a command of ours."""
    module = command.index("-m")
    assert command[module + 1] == "hyocr_core"
    accept_hyocr(["hyocr", *command[module + 2 :]])


def accept_script(command: list[str]) -> None:
    assert (REPO / command[1]).is_file()


NOT_RUN: list[tuple[str, Callable[[list[str]], None], str]] = [
    (r"pip install .+", accept_pip, "needs a package index; tests/test_install.py installs what is in the repository"),
    (r"vllm serve .+", accept_vllm, "runs until it is stopped; `make clients` reads these checkpoints with vLLM"),
    (r"llama-.+", accept_llama, "`make llama` builds it; the tests of its backend run it where it is built"),
    (r"hyocr .+llama\.cpp", accept_hyocr, "needs llama.cpp; tests/clients/test_llama.py runs both commands with it"),
    (r"torchrun .+", accept_torchrun, "several processes; tests/run/test_several_processes.py starts some"),
    (r"ollama .+", accept_llama, "needs Ollama, which is not installed here"),
    (r"curl http://127.+", accept_curl, "needs the server"),
    (r"hyocr eval .+--backend http.+", accept_hyocr, "needs the server; tests/evaluation has one of its own"),
    (r"hyocr bench .+--backend http.+", accept_hyocr, "needs the server; tests/evaluation has one of its own"),
    (r"hyocr bench .+--backend vllm.+", accept_hyocr, "needs vLLM; `make clients` has a test of it"),
    (r"hyocr verify .+--load vllm.+", accept_hyocr, "needs vLLM; `make clients` runs it"),
    (r"python tests/test_api.py > .+", accept_script, "rewrites a file of the repository"),
    (r"hyocr search .+", accept_hyocr, "takes minutes; tests/cli/test_search.py runs it on a few pages"),
    (r"hyocr quant --recipe searched.yaml .+", accept_hyocr, "needs what a search writes"),
    (r"hyocr push .+", accept_hyocr, "writes to the hub; tests/checkpoint/test_push.py has a hub of its own"),
]
"""What cannot run here: a pattern, what can be checked instead, and the reason."""


def exception_of(command: list[str]) -> Callable[[list[str]], None] | None:
    line = " ".join(command)
    return next((accept for pattern, accept, _ in NOT_RUN if re.fullmatch(pattern, line, re.DOTALL)), None)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages, rows, a PDF file, a dataset and two quantized checkpoints, under the names that the documentation uses."""
    folder = tmp_path_factory.mktemp("base")
    data = DEMO / "data"
    (folder / "pages").mkdir()
    for image in sorted((data / "images").glob("calib-000*.png"))[:ROWS]:
        shutil.copy(image, folder / "pages")
    shutil.copytree(data / "images", folder / "images")
    shutil.copytree(REPO / "configs", folder / "configs")
    for name, source in (("rows.jsonl", "calib.jsonl"), ("heldout.jsonl", "heldout.jsonl")):
        rows = (data / source).read_text(encoding="utf-8").splitlines()[: 2 * ROWS]
        (folder / name).write_text("\n".join(rows), encoding="utf-8")
    images = sorted((folder / "pages").iterdir())
    Pillow.open(images[0]).convert("RGB").save(folder / "scan.pdf")
    table = {"page": [{"bytes": image.read_bytes()} for image in images], "markdown": ["text"] * len(images)}
    dataset = Dataset.from_dict(table).cast_column("page", Image())
    (folder / "heldout").mkdir()
    for image in images:
        shutil.copy(image, folder / "heldout")
        (folder / "heldout" / f"{image.stem}.txt").write_text("text", encoding="utf-8")
    omnidocbench(folder / "OmniDocBench")
    olmocr_bench(folder / "olmOCR-bench")
    (folder / "OWNER/NAME").mkdir(parents=True)
    dataset.to_parquet(folder / "OWNER/NAME/train.parquet")
    return folder


@pytest.fixture(scope="module")
def run_pages(base: Path, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str | None]:
    """What went wrong in each page; all of them run in one process, each in a copy of `base`."""
    made = [
        {"command": ["hyocr", "quant", "--method", method, "--model", str(demo), "--calib", "pages/", "--output", name]}
        for method, name in zip(("gptq", "fp8"), QUANTIZED, strict=True)
    ]
    cache = lay_out_hub(demo, tmp_path_factory.mktemp("hub"))
    assert run([{"folder": str(base), "blocks": made}], cache, base) == [None]
    folders = {page: tmp_path_factory.mktemp(page.stem) / "work" for page in PAGES}
    jobs = []
    for page, folder in folders.items():
        shutil.copytree(base, folder, copy_function=os.link)
        jobs.append({"folder": str(folder), "blocks": prepared(page, folder)})
    return dict(zip(PAGES, run(jobs, cache, base), strict=True))


def prepared(page: Path, folder: Path) -> list[dict[str, Any]]:
    """The blocks of a page that run. What a page makes itself is not there before."""
    blocks: list[dict[str, Any]] = []
    for fence in fences(page):
        if fence.language == "yaml":
            name = fence.title or "run.yaml"
            (folder / name).write_text(fence.text, encoding="utf-8")
        elif fence.language == "python":
            blocks.append({"python": fence.text})
        elif fence.language == "sh":
            blocks += [{"command": command} for command in fence.commands if exception_of(command) is None]
    if page.name == "README.md":  # which only mentions that its YAML can be given as a file
        blocks.append({"command": ["hyocr", "quant", "-c", "run.yaml", "--output", "from-file"]})
    for block in blocks:
        text = shlex.join(block["command"]) if "command" in block else block["python"]
        for output in re.findall(r"""(?:--output |output=")([^" ]+)""", text):
            shutil.rmtree(folder / output, ignore_errors=True)
    return blocks


def run(jobs: list[dict[str, Any]], hub_cache: Path, base: Path) -> list[str | None]:
    file = base.parent / "jobs.json"
    file.write_text(json.dumps(jobs), encoding="utf-8")
    environment = os.environ | {
        "HF_HUB_CACHE": str(hub_cache),
        "HF_HUB_OFFLINE": "1",
        "XDG_CACHE_HOME": str(base.parent / "cache"),
        "PYTHONPATH": str(REPO),
    }
    subprocess.run([sys.executable, Path(__file__).with_name("run_blocks.py"), file], check=True, env=environment)
    problems: list[str | None] = json.loads(file.read_text(encoding="utf-8"))
    return problems


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_commands_run(page: Path, run_pages: dict[Path, str | None]) -> None:
    problem = run_pages[page]
    assert problem is None, problem


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_what_cannot_run_here_is_known_and_well_formed(page: Path) -> None:
    for command in commands(page):
        accept = exception_of(command)
        if accept is not None:
            accept(command)
        else:
            assert command[0] == "hyocr", f"{shlex.join(command)}: make it run, or say in NOT_RUN why it cannot"


def test_every_exception_is_needed() -> None:
    lines = [" ".join(command) for page in PAGES for command in commands(page)]
    for pattern, _, _ in NOT_RUN:
        assert any(re.fullmatch(pattern, line, re.DOTALL) for line in lines), pattern


def test_a_command_may_span_lines() -> None:
    fence = Fence("sh", "", "a 'b\nc' \\\n d # no\n\n# nothing\ne\n")
    assert fence.commands == [["a", "b\nc", "d"], ["e"]]
