"""A model of the hub, named in every way, as the commands take it; from a cache of two revisions, without network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from huggingface_hub import constants

from hyocr_core import verify as verify_in_python
from hyocr_core.checkpoint.quant_report import QuantReport, read_report
from hyocr_core.cli.main import main
from hyocr_core.errors import BadInputError
from hyocr_core.run.sweep import SweepConfig, plan_sweep
from tests.conftest import lay_out_hub

pytestmark = pytest.mark.needs_methods

REPO = "tencent/HunyuanOCR"
NEWEST = "0123456789abcdef0123456789abcdef01234567"
OLDER = "89abcdef0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def cache(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model at `main` in the folder v1.0 too, and at the tag `older` beside a further file."""
    cache = lay_out_hub(demo, tmp_path_factory.mktemp("hub"))
    repo = cache / "models--tencent--HunyuanOCR"
    shutil.copytree(demo, repo / "snapshots" / NEWEST / "v1.0")
    shutil.copytree(demo, repo / "snapshots" / OLDER)
    config = repo / "snapshots" / OLDER / "generation_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_new_tokens": 7}))
    (repo / "refs" / "older").write_text(OLDER)
    return cache


@pytest.fixture(autouse=True)
def offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def quantized(folder: Path, *named: str) -> QuantReport:
    result = run("quant", "--method", "rtn", "--output", folder, "--model", *named)
    assert result.exit_code == 0, result.stderr
    return read_report(folder)


def test_what_was_read_is_recorded_and_named_alike_everywhere(demo: Path, heldout: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    report = quantized(folder, f"https://huggingface.co/{REPO}/tree/{NEWEST}/v1.0")
    assert (report.model.source, report.model.revision, report.model.subfolder) == (REPO, NEWEST, "v1.0")
    local = quantized(tmp_path / "local", str(demo))
    assert (local.model.revision, local.model.subfolder) == (None, None)
    assert (report.model.sha256, report.output_sha256) == (local.model.sha256, local.output_sha256)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"[{REPO}/v1.0](https://huggingface.co/{REPO}) (revision `{NEWEST}`)" in card
    assert f"base_model: {REPO}\n" in card
    assert f"--baseline {REPO}@{NEWEST}/v1.0" in card

    checked = run("verify", folder, "--original", f"{REPO}/v1.0", "--revision", "main")
    assert checked.exit_code == 0, checked.stderr
    read = run(
        *("eval", folder, "--data", heldout, "--num-samples", "1", "--json", "--state", tmp_path / "state"),
        *("--baseline", f"{REPO}/v1.0@main"),
    )
    assert read.exit_code == 0, read.stderr
    baseline = json.loads(read.stdout)["baseline"]
    assert (baseline["model"], baseline["revision"], baseline["subfolder"]) == (REPO, NEWEST, "v1.0")


@pytest.mark.parametrize("named", [(REPO, "--revision", "older"), (f"{REPO}@{OLDER}",), (f"hf.co/{REPO}/tree/older",)])
def test_quant_takes_the_revision_that_is_named(named: tuple[str, ...], tmp_path: Path) -> None:
    report = quantized(tmp_path / "out", *named)
    assert (report.model.source, report.model.revision, report.model.subfolder) == (REPO, OLDER, None)
    assert report.model.sha256 != quantized(tmp_path / "newest", REPO).model.sha256


def test_a_file_names_the_revision(heldout: str, tmp_path: Path) -> None:
    file = tmp_path / "eval.yaml"
    file.write_text(json.dumps({"model": REPO, "revision": "older", "data": heldout, "num_samples": 1}))
    read = run("eval", "-c", file, "--json", "--state", tmp_path / "state")
    assert read.exit_code == 0, read.stderr
    result = json.loads(read.stdout)
    assert (result["model"]["revision"], result["decoding"]["max_new_tokens"]) == (OLDER, 7)


def test_a_sweep_names_it_too_and_knows_runs_of_before(heldout: str, tmp_path: Path) -> None:
    output = tmp_path / "sweep"
    settings = {"model": f"{REPO}/v1.0", "output": output, "eval": heldout, "runs": [{"method": "rtn"}]}
    (planned,) = plan_sweep(SweepConfig.model_validate(settings | {"run": {"revision": "main"}}), "file", print)
    assert (planned.run.revision, planned.done) == ("main", False)

    quantized(output / "rtn", f"{REPO}/v1.0")
    (planned,) = plan_sweep(SweepConfig.model_validate(settings | {"output": tmp_path / "other"}), "file", print)
    begun = planned.run.model_copy(update={"output": output / "rtn"}).model_dump(mode="json")
    del begun["revision"]  # which no run had before
    (output / "sweep.json").write_text(json.dumps({"rtn": begun}))
    (planned,) = plan_sweep(SweepConfig.model_validate(settings), "file", print)
    assert planned.done


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "DEMO", "--revision", "main"), "a revision (main) can be chosen for a hub model only"),
        (("--model", f"{REPO}@older", "--revision", "main"), "two revisions are given: older"),
        (("--model", REPO, "--revision", "newer"), "no whole copy of revision newer in"),
        (("--model", f"{REPO}/v9"), f"there is no folder {REPO}/v9, and no whole copy in"),
        (("--model", f"https://huggingface.co/{REPO}/blob/main/config.json"), "is not the address of a hub model"),
        (("--model", REPO, "--revision", ""), "revision = ''"),
    ],
)
def test_a_wrong_name_is_one_line(arguments: tuple[str, ...], said: str, demo: Path, tmp_path: Path) -> None:
    given = [str(demo) if argument == "DEMO" else argument for argument in arguments]
    result = run("quant", "--method", "rtn", "--output", tmp_path / "out", *given)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()


def test_a_revision_of_what_has_none_is_one_line(heldout: str, demo: Path, tmp_path: Path) -> None:
    served = ("eval", "served", "--data", heldout, "--backend", "http://127.0.0.1:9/v1", "--revision", "main")
    for result, said in (
        (run("verify", tmp_path, "--revision", "main"), "a revision (main) needs an original on the hub"),
        (run("eval", demo, "--data", heldout, "--revision", "main"), "can be chosen for a hub model only"),
        (run(*served, "--state", tmp_path), "a revision (main) cannot be chosen with"),
    ):
        assert result.exit_code == 2, result.stderr
        assert said in result.stderr.splitlines()[-1]
    with pytest.raises(BadInputError, match="needs an original"):
        verify_in_python(tmp_path, revision="main")
