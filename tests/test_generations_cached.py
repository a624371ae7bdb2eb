"""Both published generations from a filled cache of the hub, through every command that names a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from hyocr_core.checkpoint.quant_report import QuantReport, read_report
from hyocr_core.testing.generations import write_generation
from tests.conftest import COMMIT, lay_out_hub
from tests.published import READ, done, hyocr, quant

pytestmark = pytest.mark.needs_methods

NAME = "tencent/HunyuanOCR"
NAMES = {"1.5": NAME, "1.0": f"{NAME}/v1.0"}
OLDER = "89abcdef0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Generation -> the same as a folder; v1.5 with everything beside it that the repository has."""
    base = tmp_path_factory.mktemp("folders")
    write_generation(base / "published", "1.5")
    return {"1.5": base / "published", "1.0": base / "published" / "v1.0"}


@pytest.fixture(scope="module")
def cache(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """v1.5 at `main`, and v1.0 at the root of an older commit, as the repository was before July 2026.

    What lies beside v1.5 is damaged: it must not be read.
    """
    cache = lay_out_hub(folders["1.5"], tmp_path_factory.mktemp("cache"))
    lay_out_hub(folders["1.0"], cache, OLDER, "older")
    snapshot = cache / "models--tencent--HunyuanOCR" / "snapshots" / COMMIT
    for path in (*snapshot.glob("dflash/*"), *snapshot.glob("assets/*")):
        path.resolve().write_bytes(b"\0 not what it says")
    return cache


@pytest.fixture(autouse=True)
def _offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def quantized(output: Path, method: str, named: str, *flags: str) -> QuantReport:
    result = quant(named, output, method, *flags)
    assert result.exit_code == 0, result.output
    return read_report(output)


@pytest.mark.parametrize("generation", NAMES)
@pytest.mark.parametrize("method", ["fp8", "gptq", "awq"])
def test_the_commands_run_on_both(generation: str, method: str, folders: dict[str, Path], tmp_path: Path) -> None:
    named, output = NAMES[generation], tmp_path / "out"
    report = quantized(output, method, named)
    assert (report.model.source, report.model.revision, report.model.name) == (NAME, COMMIT, named)
    assert {path.name for path in output.iterdir()}.isdisjoint({"dflash", "v1.0", "assets"})
    done("verify", output, "--original", named)
    result = json.loads(done("eval", output, "--baseline", named, *READ, "--json", "--record").stdout)
    baseline = result["baseline"]
    assert (baseline["model"], baseline["revision"]) == (NAME, COMMIT)
    assert baseline["subfolder"] == {"1.5": None, "1.0": "v1.0"}[generation]
    page = Path(done("report", output).stdout.strip()).read_text(encoding="utf-8")
    assert f"<code>{named}</code>" in page
    assert f"(revision {COMMIT[:12]})" in page
    card = (output / "README.md").read_text(encoding="utf-8")
    assert f"[{named}](https://huggingface.co/{NAME}) (revision `{COMMIT}`)" in card
    # What was made of the folder is the same, to the byte.
    same = quantized(tmp_path / "same", method, str(folders[generation]))
    assert same.output_sha256 == report.output_sha256
    assert same.model.sha256 == report.model.sha256


def test_the_revision_picks_the_generation(tmp_path: Path) -> None:
    newest = quantized(tmp_path / "newest", "rtn", NAME)
    older = quantized(tmp_path / "older", "rtn", NAME, "--revision", "older")
    inside = quantized(tmp_path / "inside", "rtn", f"{NAME}@{COMMIT}/v1.0")
    assert (newest.model.revision, older.model.revision, inside.model.revision) == (COMMIT, OLDER, COMMIT)
    assert older.model.sha256 == inside.model.sha256 != newest.model.sha256
    done("verify", tmp_path / "older", "--original", NAME, "--revision", "older")
    wrong = hyocr("verify", tmp_path / "older", "--original", NAME, "--revision", "v9")
    assert wrong.exit_code == 2
    assert "no whole copy of revision v9" in wrong.stderr


def test_a_sweep_and_what_compares_its_results(tmp_path: Path) -> None:
    runs = [{"method": "fp8"}, {"method": "gptq", "options": {"group_size": 32}}]
    settings = {"model": NAMES["1.0"], "calib": "synthetic:3", "eval": "synthetic:2", "output": str(tmp_path / "runs")}
    file = tmp_path / "sweep.yaml"
    file.write_text(
        json.dumps(settings | {"run": {"device": "cpu", "revision": "main", "max_new_tokens": 4}, "runs": runs})
    )
    compared = json.loads(done("sweep", file, "--json").stdout)
    assert compared["failed"] == {}
    folders = [tmp_path / "runs" / name for name in ("fp8", "gptq")]
    assert json.loads(done("compare", *folders, "--json").stdout)["candidates"] == compared["candidates"]
    page = done("report", folders[0], "--compare", folders[1]).stdout.strip()
    assert NAMES["1.0"] in Path(page).read_text(encoding="utf-8")


def test_doctor_names_the_cache(cache: Path) -> None:
    found = json.loads(hyocr("doctor", "--json").stdout)
    assert str(cache) in [entry["folder"] for entry in found["caches"]]
