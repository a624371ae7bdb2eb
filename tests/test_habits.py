"""What a well-kept project has beside its code: workflows that are pinned, and pages for contributors that are true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import REPO

WORKFLOWS = sorted((REPO / ".github" / "workflows").glob("*.yml"))
PAGES = ("CONTRIBUTING.md", "SECURITY.md")


def read_yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_its_commit(path: Path) -> None:
    uses = re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))
    assert uses
    for action in uses:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_the_workflow_runs_what_everybody_runs() -> None:
    steps = YAML(typ="safe").load((REPO / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]["all"][
        "steps"
    ]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    assert (REPO / ".ci/run").is_file()


def test_every_form_can_be_read() -> None:
    forms = sorted((REPO / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert {"bug.yml", "feature.yml", "method.yml"} <= {path.name for path in forms}
    for path in [*forms, REPO / ".github/dependabot.yml"]:
        needed = set() if path.name in ("config.yml", "dependabot.yml") else {"name", "description", "body"}
        assert needed <= read_yaml(path).keys(), path


def test_dependencies_are_looked_for_where_they_are() -> None:
    updates = {update["package-ecosystem"]: update for update in read_yaml(REPO / ".github/dependabot.yml")["updates"]}
    assert set(updates) == {"pip", "github-actions"}
    for folder in updates["pip"]["directories"]:
        found = list(REPO.glob(f"{folder}/*.t*t".strip("/"))) + list(REPO.glob(f"{folder}/*.toml".strip("/")))
        assert found, folder


@pytest.mark.parametrize("name", PAGES)
def test_a_page_for_contributors_names_what_there_is(name: str) -> None:
    text = (REPO / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert "://" in target or (REPO / target).exists(), target
    targets = re.search(r"(?m)^\.PHONY: (.+)$", (REPO / "Makefile").read_text(encoding="utf-8"))
    assert targets is not None
    assert set(re.findall(r"\bmake ([a-z-]+)\b(?=[` ])", text)) <= set(targets[1].split())


def test_every_decision_has_context_consequences_and_a_place_in_the_index() -> None:
    index = (REPO / "docs/decisions/index.md").read_text(encoding="utf-8")
    records = sorted((REPO / "docs/decisions").glob("0*.md"))
    assert len(records) >= 8
    for number, path in enumerate(records, start=1):
        text = path.read_text(encoding="utf-8")
        title = text.partition("\n")[0]
        assert title.startswith(f"# {number}. ")
        assert re.findall(r"(?m)^## (.+)$", text) == ["Context", "Decision", "Consequences"], path
        assert f"| [{number}]({path.name}) | {title.removeprefix(f'# {number}. ')} |" in index
        assert 10 <= text.count("\n") <= 32, path
