"""One run in several processes: what they make together, what is refused, and what becomes of it when one dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hyocr_core.checkpoint.reader import digest
from hyocr_core.errors import ConfigError, OutputError
from hyocr_core.evaluation.evaluate import evaluate
from hyocr_core.ranks.ranks import Ranks
from hyocr_core.run.quantize import quantize
from hyocr_core.run.sweep import SweepConfig, SweepOutcome, plan_sweep, run_sweep
from hyocr_core.settings.eval_config import EvalConfig
from hyocr_core.settings.run_config import RunConfig
from tests.conftest import REPO
from tests.ranks.in_threads import in_threads

pytestmark = pytest.mark.needs_methods

PAGES, PIXELS = "synthetic:4", 65536
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
DYING = """
import os, signal, sys
from hyocr_core.cli.main import main
from hyocr_core.run import blocks

carry_on = blocks._carry_on

def dying(*arguments):
    carry_on(*arguments)
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)

blocks._carry_on = dying
main(sys.argv[1:], prog_name="hyocr")
"""


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    """As many as each of two processes has; what is compared with theirs is to be the same bytes."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(CORES // 2, 1))
    yield
    torch.set_num_threads(before)


def config(model: Path, output: Path, **changes: Any) -> RunConfig:
    given = {
        "model": str(model),
        "output": output,
        "method": "gptq",
        "calib": PAGES,
        "max_pixels": PIXELS,
        "device": "cpu",
    }
    return RunConfig(**(given | changes))


def together(size: int, run: RunConfig, **how: Any) -> None:
    def work(ranks: Ranks) -> None:
        quantize(run, ranks=ranks, **how)

    in_threads(size, work)


def weights(folder: Path) -> str:
    return digest(folder / "model.safetensors")


@pytest.fixture(scope="module")
def two(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks make."""
    output = tmp_path_factory.mktemp("two") / "out"
    together(2, config(tiny, output))
    return output


def torchrun(*arguments: object, script: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Two processes of the command."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "hyocr_core"] if script is None else [str(script)]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = os.pathsep.join([str(REPO), environment.get("PYTHONPATH", "")])
    return subprocess.run(
        [*command, *map(str, arguments)], check=False, capture_output=True, text=True, env=environment, timeout=200
    )


def given(run: RunConfig) -> list[object]:
    calibration = ["--calib", run.calib, "--max-pixels", run.max_pixels]
    return ["quant", "--model", run.model, "--method", run.method, "--output", run.output, *calibration]


def test_what_torchrun_starts_makes_the_same_bytes_and_speaks_once(two: Path, tiny: Path, tmp_path: Path) -> None:
    done = torchrun(*given(config(tiny, tmp_path / "out")), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["calibration"]["samples"] == 4
    assert done.stderr.count("decoder blocks") == done.stderr.count(f"wrote {tmp_path / 'out'}") == 1
    assert weights(tmp_path / "out") == weights(two)


def test_a_rank_that_is_killed_ends_all_and_leaves_a_run_to_resume(two: Path, tiny: Path, tmp_path: Path) -> None:
    script, run = tmp_path / "dying.py", config(tiny, tmp_path / "out")
    script.write_text(DYING)
    start = time.monotonic()
    done = torchrun(*given(run), script=script)
    assert done.returncode == 1
    assert time.monotonic() - start < 150
    [line] = [line for line in done.stderr.splitlines() if line.startswith("hyocr: error:")]
    assert line.startswith("hyocr: error: rank 1 (process ")
    assert line.endswith(" died")
    with pytest.raises(OutputError, match="ranks: 2 -> 1"):
        quantize(run, resume=True)
    together(2, run, resume=True)
    assert weights(run.output) == weights(two)


def changed(one: Path, other: Path, block: str) -> float:
    """The share of elements in which what is stored of a block differs."""
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    names = [name for name in first if name.startswith(f"{block}.")]
    assert names
    # Four bits are one code.
    differing = [(_codes(first[name]) != _codes(second[name])).flatten() for name in names]
    return torch.cat(differing).float().mean().item()


def _codes(stored: Tensor) -> Tensor:
    if stored.dtype != torch.int32:
        return stored.float()
    return torch.stack([(stored >> shift) & 15 for shift in range(0, 32, 4)])


def test_one_process_makes_nearly_the_same(two: Path, tiny: Path, tmp_path: Path) -> None:
    """Up to the order of sums; one code that differs makes others differ in its row, and in the layers behind it."""
    one = tmp_path / "one"
    quantize(config(tiny, one))
    for layer in ("q_proj", "k_proj", "v_proj"):
        assert changed(one, two, f"model.layers.0.self_attn.{layer}") < 0.01
    result = evaluate(EvalConfig(model=str(two), baseline=str(one), data="synthetic:4", device="cpu"))
    assert result.comparison is not None
    assert result.comparison.kl is not None
    assert result.comparison.kl < 0.05


@pytest.mark.parametrize(
    ("method", "options", "block"),
    [
        ("awq", {}, "model.layers.0"),
        ("fp8", {"activation_scheme": "static"}, "model.layers.0"),
        ("gptq", {"quant_vit": True, "group_size": 64}, "vit.layers.0.self_attn.q_proj"),
    ],
    ids=["searched on all pages", "most of all pages", "vision"],
)
def test_every_way_of_calibrating_is_shared(
    method: str, options: dict[str, Any], block: str, tiny: Path, tmp_path: Path
) -> None:
    runs = [config(tiny, tmp_path / name, method=method, options=options) for name in ("one", "three")]
    quantize(runs[0])
    together(3, runs[1])
    assert changed(runs[0].output, runs[1].output, block) < 0.01


def test_more_processes_than_pages_are_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 pages are too few for 3 processes: have torchrun start fewer"):
        together(3, config(tiny, tmp_path / "out", num_samples=2))


def test_several_processes_read_what_one_reads(tiny: Path) -> None:
    asked = EvalConfig(model=str(tiny), data="synthetic:5", batch_size=1, device="cpu")
    alone = evaluate(asked)
    results, _ = in_threads(2, lambda ranks: evaluate(asked, ranks=ranks))
    for result in results:
        assert [page.text for page in result.pages] == [page.text for page in alone.pages]


def test_processes_share_the_runs_of_a_sweep(tiny: Path, tmp_path: Path) -> None:
    asked = {"model": str(tiny), "output": tmp_path / "sweep", "eval": "synthetic:2", "run": {"device": "cpu"}}
    grid = [{"method": "rtn", "options": {"mse": False}, "grid": {"group_size": [32, 64]}}]
    sweep = SweepConfig.model_validate(asked | {"runs": grid})

    def work(ranks: Ranks) -> SweepOutcome:
        planned = plan_sweep(sweep, "grid.yaml", lambda _line: None)
        made[ranks.rank] = [planned[number].name for number in ranks.deal(len(planned))]
        return run_sweep(planned, ranks=ranks)

    made: dict[int, list[str]] = {}
    outcomes, _ = in_threads(2, work)
    folders = tuple(tmp_path / "sweep" / f"rtn-group_size={size}" for size in (32, 64))
    assert outcomes == [SweepOutcome(folders, {})] * 2
    assert made == {0: [folders[0].name], 1: [folders[1].name]}
    assert all((folder / "model.safetensors").is_file() for folder in folders)
