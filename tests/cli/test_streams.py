"""The real commands on streams that break, on a full or read-only disk, with few open files, and without a home."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from hyocr_core.evaluation.recorded.record_folder import load_evaluation
from tests.report import built

HYOCR = str(Path(sys.executable).with_name("hyocr"))

SINKS = {"full": ">/dev/full", "closed": ">&-", "pipe": "| true"}


def run(*arguments: object, sink: str = "", **environment: str) -> tuple[int, list[str]]:
    """Exit code and lines on stderr of the command; sink: where a shell leads its streams."""
    # The pipe is read by nobody from the start, so that it is broken whenever it is written.
    script = f'{{ sleep 0.2; "$@"; echo $? >&3; }} {sink}' if sink == "| true" else f'"$@" {sink}; echo $? >&3'
    reading, writing = os.pipe()
    with os.fdopen(reading) as code:
        done = subprocess.run(
            ["bash", "-c", f"exec 3>&{writing}; {script}", "bash", HYOCR, *map(str, arguments)],
            pass_fds=[writing],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            check=False,
        )
        os.close(writing)
        return int(code.read()), done.stderr.splitlines()


def broken(outcome: tuple[int, list[str]]) -> bool:
    """Whether a command ended with 1, and with one line that says why, behind what it said of its work."""
    code, lines = outcome
    wrong = [line for line in lines if "Traceback" in line or "Exception ignored" in line]
    return code == 1 and not wrong and lines[-1].startswith("hyocr: error: cannot write to stdout: ")


@pytest.mark.parametrize("sink", SINKS.values(), ids=SINKS)
@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["quant", "-h"], ["observers"], ["observers", "--json"]], ids=" ".join
)
def test_a_broken_stdout_is_one_line(arguments: list[str], sink: str) -> None:
    outcome = run(*arguments, sink=sink)
    assert broken(outcome), outcome
    assert len(outcome[1]) == 1


@pytest.mark.parametrize("arguments", [["compare"], ["report"], ["verify", "-h"], ["doctor"], ["compare", "--json"]])
def test_a_broken_stdout_of_what_reads_checkpoints_is_one_line(tmp_path: Path, arguments: list[str]) -> None:
    folders = [built.checkpoint(tmp_path / name, None, built.evaluation(built.some_pages(4))) for name in "ab"]
    given: dict[str, list[Path]] = {"compare": folders, "report": folders[:1]}
    assert broken(run(*arguments, *given.get(arguments[0], []), sink=">/dev/full"))
    assert (folders[0] / "report" / "index.html").exists() == (arguments == ["report"])


def test_what_new_methods_are_is_written_all_the_same(tmp_path: Path) -> None:
    assert broken(run("methods", "new", "mine", "--output", tmp_path / "mine", sink=">&-"))
    assert (tmp_path / "mine" / "pyproject.toml").is_file()


def test_an_evaluation_whose_stdout_breaks_loses_nothing(tiny: Path, heldout: str, tmp_path: Path) -> None:
    model, table = shutil.copytree(tiny, tmp_path / "model"), tmp_path / "pages.csv"
    command = ("eval", model, "--data", heldout, "--num-samples", 3, "--max-new-tokens", 2, "--csv", table, "--record")
    for sink in (SINKS["full"], SINKS["pipe"]):
        for path in (table, model / "report"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        outcome = run(*command, sink=sink)
        assert broken(outcome), outcome
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        recorded = load_evaluation(model)
        assert recorded is not None
        assert [row["name"] for row in rows] == [page.name for page in recorded.pages]
    code, lines = run(*command)
    assert code == 0
    assert "3 of 3 pages are kept from an interrupted run and not read again" in lines


@pytest.mark.needs_methods
def test_a_run_whose_streams_break_is_published(tiny: Path, tmp_path: Path) -> None:
    command = ("quant", "--method", "rtn", "--model", tiny, "--json", "--output")
    assert broken(run(*command, tmp_path / "a", sink=">/dev/full"))
    assert run(*command, tmp_path / "b", sink=">/dev/null 2>/dev/full") == (0, [])
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
    assert (tmp_path / "b" / "report" / "index.html").is_file()


def test_a_closed_stdout_is_no_file_that_is_written_into(tiny: Path, heldout: str, tmp_path: Path) -> None:
    """The first file that is opened has the number of a closed stream, and gets what is printed there."""
    table = tmp_path / "pages.csv"
    command = ("eval", tiny, "--data", heldout, "--num-samples", 2, "--max-new-tokens", 2, "--csv", table)
    assert run(*command, sink=">&- 2>&- <&-") == (1, [])
    assert table.read_text(encoding="utf-8").startswith("name,reference,text,")


@pytest.mark.needs_methods
def test_a_full_disk_is_one_line_and_the_run_goes_on(tiny: Path, tmp_path: Path) -> None:
    """The limit of a file's size stands for the disk's: the system refuses to write on."""
    output = tmp_path / "out"
    command = ["quant", "--method", "rtn", "--model", str(tiny), "--output", str(output)]
    done = subprocess.run(
        [HYOCR, *command],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**15, 2**15)),
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("hyocr: error: cannot write ")
    assert "Traceback" not in done.stderr
    assert not output.exists()
    assert run(*command, "--resume")[0] == 0
    assert (output / "hyocr_report.json").is_file()


def test_a_full_disk_of_an_evaluation_is_one_line(tiny: Path, heldout: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [HYOCR, "eval", str(tiny), "--data", heldout, "--num-samples", "1", "--max-new-tokens", "2", "--json"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "batch-" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("most", "code"), [(16, 0), (8, 1)])
def test_a_low_limit_of_open_files(tiny: Path, tmp_path: Path, most: int, code: int) -> None:
    """More pages than files; eight are what Python has open, and no pipe to another process."""
    for number in range(2 * most):
        Image.new("RGB", (64, 32), (number, 0, 0)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("x")
    command = ["eval", str(tiny), "--data", str(tmp_path), "--keep-duplicates", "--max-new-tokens", "1"]
    done = subprocess.run(
        [HYOCR, *command],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)),
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code:
        assert done.stderr.splitlines()[-1].startswith("hyocr: error: cannot start the process that renders ")
        assert done.stderr.endswith(": Too many open files\n")


@pytest.mark.parametrize("option", ["--csv", "--state"])
def test_what_is_read_only_is_refused_before_reading(tiny: Path, heldout: str, option: str) -> None:
    """In /proc nobody, root included, makes a file."""
    code, lines = run("eval", tiny, "--data", heldout, "--num-samples", 1, option, "/proc/x")
    assert code == 2
    assert lines[-1].startswith("hyocr: error: cannot ")
    assert "/proc/x" in lines[-1]
    assert not any(line.startswith("read pages") for line in lines)


def test_outputs_of_other_commands_that_are_read_only_are_refused(tiny: Path, tmp_path: Path) -> None:
    folder = built.checkpoint(tmp_path / "a", None, None)
    for arguments in (
        ("report", folder, "--output", "/proc/x.html"),
        ("quant", "--method", "rtn", "--model", tiny, "--output", "/proc/x"),
        ("methods", "new", "mine", "--output", "/proc/x"),
    ):
        code, lines = run(*arguments)
        assert code == 2, lines
        assert lines[-1].startswith("hyocr: error: ")
        assert "/proc" in lines[-1]


@pytest.mark.needs_methods
def test_without_a_home(tiny: Path, heldout: str, tmp_path: Path) -> None:
    homeless = {"HOME": "/dev/null", "XDG_CACHE_HOME": ""}
    assert run("doctor", **homeless)[0] in (0, 1)
    assert run("quant", "--method", "rtn", "--model", tiny, "--output", tmp_path / "out", **homeless)[0] == 0
    command = ("eval", tiny, "--data", heldout, "--num-samples", 1, "--max-new-tokens", 2)
    code, lines = run(*command, **homeless)
    assert code == 2
    assert "cannot keep pages in /dev/null/.cache/hyocr/eval" in lines[-1]
    assert lines[-1].endswith("give another folder with --state")
    assert run(*command, "--state", tmp_path / "state", **homeless)[0] == 0


def test_json_is_whole_in_a_locale_without_letters(tmp_path: Path) -> None:
    folders = [built.checkpoint(tmp_path / name, None, built.evaluation(built.some_pages(4))) for name in "ab"]
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    target = tmp_path / "out.json"
    assert run("compare", *folders, "--json", sink=f">{target}", **bare) == (0, [])
    assert [row["name"] for row in json.loads(target.read_text())["candidates"]][1:] == ["a", "b"]
    assert run("compare", *folders, sink=f">{target}", **bare) == (0, [])
