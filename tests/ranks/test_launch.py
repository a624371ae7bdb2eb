"""Commands that torchrun starts several times."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hyocr_core.cli.main import main
from hyocr_core.ranks.launch import Launch, launch

STARTED = {
    "TORCHELASTIC_RUN_ID": "run",
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in STARTED.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("started")
def test_what_torchrun_says_of_a_process() -> None:
    found = launch()
    assert found == Launch(rank=1, size=4, local_rank=1, local_size=2)
    assert found is not None
    assert not found.first
    assert not found.one_machine


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize("name", ["TORCHELASTIC_RUN_ID", "WORLD_SIZE"])
def test_a_process_that_has_no_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster's own variables say nothing, and torchrun may start one process only."""
    if name == "WORLD_SIZE":
        monkeypatch.setenv(name, "1")
    else:
        monkeypatch.delenv(name)
    assert launch() is None


@pytest.mark.usefixtures("started")
def test_work_for_one_process_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["verify", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr == (
        "hyocr: error: hyocr verify is work for one process, leave torchrun out; quant, eval and sweep divide theirs\n"
    )


@pytest.mark.parametrize("rank", ["0", "1"])
def test_bad_input_is_said_once(rank: str, tmp_path: Path) -> None:
    """By the first process, before the others are needed."""
    script = "import hyocr_core.cli.main as cli; cli.FIRST_WORD = 0.01; cli.main(prog_name='hyocr')"
    command = [sys.executable, "-c", script, "verify", str(tmp_path / "nothing")]
    environment = os.environ | STARTED | {"RANK": rank}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("hyocr: error") == (1 if rank == "0" else 0)
