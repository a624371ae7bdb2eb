from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from hyocr_core.cli.main import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "pages"
    data.mkdir()
    for index in range(4):
        Image.new("RGB", (256, 32), (index * 60, 9, 200)).save(data / f"{index}.png")
        (data / f"{index}.txt").write_text("abc\n")
    return data


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["eval", *map(str, arguments)])


def test_json_is_one_object_on_stdout(tiny: Path, noisy: Path, folder: Path) -> None:
    result = run(noisy, "--data", folder, "--baseline", tiny, "--json", "--max-new-tokens", 5)
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["data"] == str(folder)
    assert data["max_new_tokens"] == 5
    assert [page["name"] for page in data["pages"]] == ["0.png", "1.png", "2.png", "3.png"]
    assert set(data["comparison"]) == {
        "cer_difference",
        "cer_difference_interval",
        "identical_pages",
        "tokens",
        "agreement",
        "kl",
    }
    assert data["model"]["model"] == str(noisy)
    assert data["baseline"]["model"] == str(tiny)


def test_table_goes_to_stdout_and_talk_to_stderr(tiny: Path, noisy: Path, folder: Path) -> None:
    result = run(noisy, "--data", folder, "--baseline", tiny)
    assert result.exit_code == 0, result.output
    for word in ("4 pages", "CER", "95 % interval", "identical pages", "next-token agreement", "KL(baseline || model)"):
        assert word in result.stdout
    assert "read pages" in result.stderr
    assert "read pages" not in result.stdout


def test_table_without_baseline_has_one_column(tiny: Path, folder: Path) -> None:
    result = run(tiny, "--data", folder)
    assert result.exit_code == 0, result.output
    assert "exact match" in result.stdout
    assert "baseline" not in result.stdout


def test_number_of_samples_and_seed_choose_the_pages(tiny: Path, folder: Path) -> None:
    names = []
    for seed in range(6):
        result = run(tiny, "--data", folder, "--num-samples", 2, "--seed", seed, "--json", "--max-new-tokens", 1)
        names.append(tuple(page["name"] for page in json.loads(result.stdout)["pages"]))
    assert all(len(pair) == 2 for pair in names)
    assert len(set(names)) > 1


def test_a_page_that_fails_is_named_on_stderr(tiny: Path, folder: Path) -> None:
    for index in range(4, 10):
        Image.new("RGB", (256, 32), "white").save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text("abc")
    (folder / "3.png").write_bytes(b"no image")
    result = run(tiny, "--data", folder, "--max-new-tokens", 2)
    assert result.exit_code == 0, result.output
    assert "3.png" in result.stderr


def test_bad_input_is_one_line_and_exit_2(tiny: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "2.txt").unlink()
    (empty := tmp_path / "empty").mkdir()
    for arguments, word in (
        ([tiny, "--data", folder], "2.png: no transcript"),
        ([tiny, "--data", tmp_path / "none"], "none"),
        ([empty, "--data", folder, "--baseline", empty], "2.png: no transcript"),
        ([tmp_path / "none", "--data", "synthetic:1"], "none"),
        ([empty, "--data", "synthetic:1"], "empty"),
        ([tiny, "--data", "synthetic:1", "--baseline", empty], "empty"),
        ([tiny, "--data", "synthetic:1", "--device", "abacus"], "abacus"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        errors = [line for line in result.stderr.splitlines() if line.startswith("hyocr: error:")]
        assert len(errors) == 1
        assert word in errors[0]
        assert result.stdout == ""


@pytest.mark.parametrize("option", ["--num-samples", "--max-new-tokens", "--batch-size"])
def test_nothing_of_something_is_a_usage_error(tiny: Path, folder: Path, option: str) -> None:
    assert run(tiny, "--data", folder, option, 0).exit_code == 2


def test_help_explains_the_measures() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for word in ("character error rate", "greedily", "--baseline", "Exit codes"):
        assert word in result.stdout
