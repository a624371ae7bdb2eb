"""Homes in paths."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from hyocr_core.cli.main import main
from hyocr_core.outside.home import expanded


def test_a_home_is_put_in_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/model") == tmp_path / "model"
    assert expanded(Path("a/~/b")) == Path("a/~/b")


def test_the_home_of_nobody_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert expanded("~nobody-of-this-name/model") == Path("~nobody-of-this-name/model")


@pytest.mark.parametrize(
    "command",
    [
        ("quant", "--method", "rtn", "--output", "x", "--model", "~nobody-of-this-name/m"),
        ("eval", "~nobody-of-this-name", "--data", "synthetic:1"),
        ("eval", "m", "--data", "~nobody-of-this-name/pages"),
        ("eval", "m", "--data", "synthetic:1", "--csv", "~nobody-of-this-name/x.csv"),
    ],
)
def test_a_path_in_the_home_of_nobody_is_one_line(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, list(command))
    assert (result.exit_code, result.stderr.count("hyocr: error:")) == (2, 1), result.output
