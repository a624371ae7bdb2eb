"""Nothing that a user or a plugin's author can meet is undocumented, and nothing documented is gone."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

import hyocr_core
from docs import generated
from hyocr_core.cli.main import main as hyocr
from hyocr_core.contract import hookspecs
from hyocr_core.plugin.registry import installed_methods, load_method
from hyocr_core.run.sweep import SweepConfig, SweepEntry
from hyocr_core.settings.eval_config import EvalConfig
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.settings.shared import bound_meanings
from tests.conftest import REPO
from tests.docs.pages import DOCS

METHODS = ("awq", "fp8", "gguf", "gptq", "rtn")
HELPERS = ("formats", "kit", "testing")


def page(name: str) -> str:
    """The Markdown of a page, with what is generated filled in."""
    return generated.fill((DOCS / f"{name}.md").read_text(encoding="utf-8"))


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next of its level."""
    level = heading.split(" ")[0]
    assert f"\n{heading}\n" in text, f"no section {heading}"
    return re.split(rf"\n{level} ", text.split(f"\n{heading}\n", 1)[1])[0]


def keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


@pytest.mark.parametrize(
    ("name", "heading", "models"),
    [
        ("config", "## Keys of a run", (RunConfig,)),
        ("config", "## Keys of a sweep", (SweepConfig, SweepEntry)),
        ("config", "## Keys of an evaluation", (EvalConfig,)),
    ],
)
def test_every_key_is_documented(name: str, heading: str, models: tuple[type[BaseModel], ...]) -> None:
    text = section(page(name), heading)
    for key in (key for model in models for key in keys(model)):
        assert re.search(rf"^\| `{key}` \|.*\S \|$", text, re.MULTILINE), key


def test_every_bound_of_a_gate_is_documented() -> None:
    text = section(page("evaluation"), "## The gate")
    bounds = dict(bound_meanings("hyocr-core"))
    assert {"cer", "wer", "loops", "agreement", "kl", "cut", "identical"} <= bounds.keys()
    for name in bounds:
        assert re.search(rf"^\| `{name}` \|.*\S \|$", text, re.MULTILINE), name


@pytest.mark.parametrize("method", METHODS)
def test_every_option_of_a_method_is_documented(method: str) -> None:
    text = section(page("config"), f"### {method}")
    for key in keys(load_method(method).spec.config_class):
        assert re.search(rf"^\| `{key}[`.].*\S \|$", text, re.MULTILINE), key


def test_every_method_of_this_repository_is_documented() -> None:
    ours = {entry.name for entry in installed_methods() if (REPO / "plugins" / entry.distribution[13:]).is_dir()}
    assert ours == set(METHODS) == set(generated.OF_THE_REPOSITORY)
    assert all(f"`{method}`" in page("choose") for method in METHODS)


def test_every_option_of_every_command_is_documented() -> None:
    root = click.Context(hyocr, info_name="hyocr")
    missing = []
    for context in generated.visible_commands(root):
        text = section(page("cli"), f"## {context.command_path}")
        options = [option for option in context.command.get_params(context) if isinstance(option, click.Option)]
        rows = {option.opts[-1]: rf"^\| `[^`]*{option.opts[-1]}\b[^`]*` \| \S.* \|$" for option in options}
        missing += [f"{context.command_path} {name}" for name, row in rows.items() if not re.search(row, text, re.M)]
        missing += [] if context.command.help else [context.command_path]
    assert not missing, f"without help: {missing}"


def test_every_hook_is_documented() -> None:
    text = section(page("contract"), "## Hooks")
    hooks = [name for name, value in vars(hookspecs).items() if hasattr(value, "hyocr_spec")]
    assert len(hooks) >= 9
    for hook in hooks:
        assert f"        - {hook}\n" in text, hook
        assert inspect.getdoc(getattr(hookspecs, hook)), hook


def test_every_public_name_is_documented() -> None:
    pages = "\n".join(page(path.stem) for path in DOCS.glob("*.md"))
    types = set(vars(hyocr_core.contract.types))
    for name in hyocr_core.__all__:
        assert name in types or re.search(rf"\b{name}\b", pages), name
    assert "::: hyocr_core.contract.types\n" in pages
    for helper in HELPERS:
        assert f"hyocr_core.{helper}" in pages, helper


def test_every_error_is_documented() -> None:
    text = section(page("troubleshooting"), "## All errors")
    known = generated.error_types().keys()
    for path in (REPO / "hyocr_core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and known & {ast.unparse(base) for base in node.bases}:
                assert node.name in known, f"{path}: {node.name} belongs into hyocr_core/errors.py"
    for name, cls in generated.error_types().items():
        assert re.search(rf"^\| `{name}` \| {cls.exit_code} \| \w.* \|$", text, re.MULTILINE), name


def test_every_message_in_troubleshooting_is_one_that_hyocr_prints() -> None:
    printed = "\n".join(messages())
    headings = re.findall(r"^### `(.+)`$", page("troubleshooting"), re.MULTILINE)
    assert len(headings) > 30
    patterns = {heading: "[^\n]*".join(map(re.escape, heading.split("…"))) for heading in headings}
    gone = [heading for heading, pattern in patterns.items() if not re.search(pattern, printed)]
    assert not gone, f"no error says: {gone}"


def test_a_page_without_a_place_in_the_navigation_is_no_page() -> None:
    navigation = (REPO / "mkdocs.yml").read_text(encoding="utf-8")
    for path in DOCS.rglob("*.md"):
        assert f": {path.relative_to(DOCS)}\n" in navigation, path


def test_the_measured_tables_are_those_of_the_results() -> None:
    assert generated.measured_methods() in (REPO / "benchmarks/README.md").read_text(encoding="utf-8")
    assert "| `gptq` |" in generated.measured_jobs()


def test_the_runtimes_table_is_that_of_the_readme() -> None:
    def rows(path: Path) -> list[str]:
        lines = path.read_text(encoding="utf-8").splitlines()
        start = lines.index("| | vLLM, GPU | vLLM, CPU | Transformers |")
        return [line for line in lines[start : start + 30] if line.startswith("|")]

    assert rows(DOCS / "formats.md") == rows(REPO / "README.md")


def test_a_mark_that_nothing_fills_is_an_error() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        generated.fill("<!-- generated: nonsense -->")


def test_links_within_the_documentation_lead_somewhere() -> None:
    for path in [REPO / "README.md", REPO / "README_zh.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
            assert "://" in target or (path.parent / target).exists(), f"{path}: {target}"


def messages() -> Iterator[str]:
    """Every string of the code, joined over its parts, with … for what differs."""
    for path in [*(REPO / "hyocr_core").rglob("*.py"), *REPO.glob("plugins/*/src/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant | ast.JoinedStr):
                yield text_of(node).replace("\n", " ")


def text_of(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) for value in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "…"


def test_headings_do_not_skip_a_level() -> None:
    for path in DOCS.rglob("*.md"):
        text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        levels = [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]
        assert levels[0] == 1, path
        assert all(after <= before + 1 for before, after in pairwise(levels)), path
