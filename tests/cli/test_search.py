from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hyocr_core.cli.main import main
from hyocr_core.search.sensitivity import Sensitivity
from hyocr_core.settings.recipe import read_recipe

pytestmark = pytest.mark.needs_methods

RTN = ("--candidate", "rtn bits=4", "--candidate", "rtn bits=8", "--candidate", "none")
FEW = ("--num-samples", "2", "--scored-samples", "2", "--eval-samples", "2", "--device", "cpu")


@pytest.fixture
def search(demo: Path, calib: str, heldout: str, tmp_path: Path) -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        where = ("--data", calib, "--eval", heldout, "--output", str(tmp_path / "recipe.yaml"))
        return CliRunner().invoke(main, ["search", str(demo), *where, *FEW, *arguments])

    return run


def refused(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return result.stderr.strip().splitlines()[-1]


def test_a_search_writes_a_recipe_its_curve_and_why(
    search: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = search("--size", "7MB", "--trials", "1", "--json", *RTN)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["nbytes"] <= 7_000_000
    [tried] = result["tried"]
    assert tried["taken"]
    assert tried["tried"]["kl"] > 0
    # The files on the disk hold the tensors that were counted, and a header.
    assert 0 < tried["tried"]["weight_bytes"] - result["nbytes"] < 50_000
    rules = read_recipe(tmp_path / "recipe.yaml")
    assert (tmp_path / "recipe.yaml").read_text().startswith("# Recipe by hyocr search")
    assert [rule.method for rule in rules] == ["rtn", "rtn", "none"]
    assert {group["candidate"] for group in result["groups"]} == {"rtn bits=4", "rtn bits=8"}
    assert all(group["why"] for group in result["groups"])
    curve = result["curve"]
    assert [point["nbytes"] for point in curve] == sorted(point["nbytes"] for point in curve)
    assert [point["kl"] for point in curve] == sorted((point["kl"] for point in curve), reverse=True)
    four, eight = (result["uniform"][name] for name in ("rtn bits=4", "rtn bits=8"))
    assert four["kl"] > result["kl"] > eight["kl"]
    with (tmp_path / "recipe.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["within_budget"] for row in rows if row["kind"] == "taken"] == ["True"]
    page = (tmp_path / "recipe.html").read_text()
    assert "Why each layer got what it got" in page
    assert page.count("<svg") == 2
    assert "10⁻" in page
    assert "mathdefault" not in page
    assert json.loads((tmp_path / "recipe.json").read_text()) == result
    # Another budget goes on from what was measured, and writes over what a search wrote.
    monkeypatch.setattr(Sensitivity, "_measure_block", None)
    again = search("--kl", str(1.01 * four["kl"]), "--trials", "0", *RTN)
    assert again.exit_code == 0, again.output
    assert "going on with what is kept" in again.stderr
    [title, row] = again.stdout.split("\n\n")[0].splitlines()
    assert title.split()[:5] == ["groups", "of", "layers", "get", "vision"]
    assert row.split()[:4] == ["rtn", "bits=4", "0", str(len(result["groups"]))]
    whole = search("--kl", str(1.01 * four["kl"]), "--trials", "0", "-v", *RTN)
    assert "model.layers.0.self_attn.{q_proj,k_proj,v_proj}" in whole.stdout
    assert [rule.options["bits"] for rule in read_recipe(tmp_path / "recipe.yaml") if rule.quantizes] == [4]
    assert "come no nearer than" in refused(search("--kl", "1e-12", "--trials", "0", *RTN[:4]))


def test_a_dry_run_says_what_can_be_had(search: Callable[..., Result], tmp_path: Path) -> None:
    done = search("--kl", "0.1", "--dry-run", "--vision", *RTN)
    assert done.exit_code == 0, done.output
    assert "each gets one of: rtn bits=4, rtn bits=8, none" in done.stdout
    assert not list(tmp_path.iterdir())
    plan = json.loads(search("--kl", "0.1", "--dry-run", "--json", *RTN).stdout)
    assert plan["smallest"] < plan["largest"]
    assert plan["groups"][0]["bytes"]["none"] == max(plan["groups"][0]["bytes"].values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "1MB"), "--size: these candidates make nothing as small as 1.0 MB; the smallest is 6.2 MB"),
        (("--size", "10MB"), "--size: the weights as they are, 9.7 MB"),
        (("--size", "many"), "--size: 'many' is no size"),
        ((), "give one budget: --size, --kl or --cer; there is none"),
        (("--size", "7MB", "--kl", "0.1"), "give one budget: --size, --kl or --cer; there are both"),
        (("--cer", "0.2", "--trials", "0"), "cer is known of recipes that are tried only"),
        (("--kl", "1", "--candidate", "awq"), "candidate 'awq': awq rescales what stands before a layer"),
        (("--kl", "1", "--candidate", "gptp"), "candidate 'gptp': no method"),
        (("--kl", "1", "--candidate", "gptq bits=5"), "candidate 'gptq bits=5': bits"),
        (("--kl", "1", "--candidate", "none"), "candidates: none alone leaves nothing to choose"),
        (("--kl", "1", "--candidate", "rtn", "--candidate", "rtn"), "a candidate is there twice"),
    ],
)
def test_bad_input_is_one_line(search: Callable[..., Result], arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(search(*arguments))


def test_nothing_that_is_not_a_searchs_is_written_over(search: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("- {match: '*', method: gptq}\n")
    assert "hyocr did not write what is there" in refused(search("--kl", "1", *RTN))
