"""The functions for notebooks: the commands' results and errors, with no terminal, no exit and no trace."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import hyocr_core
from hyocr_core import ConfigError, EvalConfig, HyocrError, RunConfig, api, bench, evaluate, quantize, verify
from hyocr_core.cli.bench import bench as bench_command
from hyocr_core.cli.eval import eval_command
from hyocr_core.cli.main import main
from hyocr_core.cli.verify import verify as verify_command
from hyocr_core.errors import OutputError
from hyocr_core.pages.sources import open_source
from hyocr_core.progress import Silent

pytestmark = pytest.mark.needs_methods

REPO = Path(__file__).parents[1]

STATE = """
import faulthandler, gc, json, locale, logging, os, signal, sys, threading, warnings
import torch

def state():
    root = logging.getLogger()
    signals = [str(signal.getsignal(number)) for number in signal.valid_signals()]
    return {
        "threads": torch.get_num_threads(), "grad": torch.is_grad_enabled(), "dtype": str(torch.get_default_dtype()),
        "precision": torch.get_float32_matmul_precision(), "inference": torch.is_inference_mode_enabled(),
        "environment": dict(os.environ), "folder": os.getcwd(), "signals": signals, "excepthook": str(sys.excepthook),
        "deterministic": torch.are_deterministic_algorithms_enabled(), "rng": torch.random.get_rng_state().tolist(),
        "logging": [root.level, str(root.handlers), logging.root.manager.disable, str(sys.stdout), str(sys.stderr)],
        "locale": locale.getlocale(), "running": [thread.name for thread in threading.enumerate() if not thread.daemon],
    }
"""


def python(code: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program without a terminal."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error::ResourceWarning"},
        check=False,
    )


def test_the_process_is_left_as_it_was_and_nothing_is_printed(
    demo: Path, calib: str, heldout: str, tmp_path: Path
) -> None:
    code = STATE + (
        # What torch and transformers import late: sympy and scipy add filters, the model's modules a variable of the
        # environment.
        "import scipy.optimize, sympy, transformers.models.hunyuan_vl.modeling_hunyuan_vl\n"
        "from hyocr_core import evaluate, quantize, verify\n"
        "demo, calib, heldout = sys.argv[1:]\n"
        "before, filters = state(), list(warnings.filters)\n"
        "for method in ('gptq', 'rtn'):\n"
        "    report = quantize(model=demo, method=method, output=method, calib=calib, num_samples=2)\n"
        "    assert report.method.name == method\n"
        "    assert verify(method, original=demo).faults == ()\n"
        "assert evaluate(model=method, data=heldout, num_samples=2, baseline=demo).model.cer is not None\n"
        "after = state()\n"
        "assert before == after, [(key, before[key], after[key]) for key in before if before[key] != after[key]]\n"
        "assert filters == list(warnings.filters)\n"
        "assert 'click' not in sys.modules\n"
        # The packages behind the functions must not hide them.
        "import hyocr_core\n"
        "assert [hyocr_core.evaluate, hyocr_core.quantize, hyocr_core.verify] == [evaluate, quantize, verify]\n"
    )
    done = python(code, str(demo), calib, heldout, folder=tmp_path)
    assert (done.stderr, done.stdout, done.returncode) == ("", "", 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gptq", "rtn"]


def test_the_commands_give_the_same(demo: Path, calib: str, heldout: str, tmp_path: Path) -> None:
    common: dict[str, Any] = {"model": str(demo), "method": "gptq", "calib": calib, "num_samples": 2}
    report = quantize(**common, output=tmp_path / "one", options={"group_size": 64})
    again = quantize(RunConfig(**common, output=tmp_path / "two", options={"group_size": 64}))
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in common.items()]
    three = tmp_path / "three"
    done = CliRunner().invoke(main, ["quant", *flags, f"--output={three}", "-o", "group_size=64", "--json"])
    printed = json.loads(done.stdout)
    assert report.output_sha256 == again.output_sha256 == printed["output_sha256"]
    assert report.model_dump(mode="json").keys() == printed.keys()

    settings: dict[str, Any] = {"data": heldout, "num_samples": 4, "baseline": demo, "seed": 1, "gate": "loops=0"}
    result = evaluate(model=tmp_path / "one", **settings)
    assert evaluate(EvalConfig(model=str(tmp_path / "one"), **settings)).pages == result.pages
    assert result.gate is not None
    assert result.gate.accepted
    arguments = ["--data", heldout, "--num-samples=4", f"--baseline={demo}", "--seed=1", "--json", "--gate=loops=0"]
    printed = json.loads(CliRunner().invoke(main, ["eval", str(three), *arguments]).stdout)
    assert [page.model_dump(mode="json") for page in result.pages] == printed["pages"]
    assert (result.data, result.seed) == (printed["data"], printed["seed"])

    checked = verify(str(tmp_path / "one"), original=demo)
    printed = json.loads(CliRunner().invoke(main, ["verify", str(three), f"--original={demo}", "--json"]).stdout)
    assert checked.model_dump(mode="json") | {"folder": ""} == printed | {"folder": ""}


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({"method": "gptq", "num_samples": 0}, ["--method=gptq", "--num-samples=0"]),
        ({"method": "gptqq"}, ["--method=gptqq"]),
        ({"method": "rtn", "options": {"group": 3}}, ["--method=rtn", "-o", "group=3"]),
        ({"method": "rtn", "observers": {"dump": {}}}, ["--method=rtn", "--observe=dump"]),
        ({"method": "rtn", "gate": "cer=-1", "eval": "x"}, ["--method=rtn", "--gate=cer=-1", "--eval=x"]),
        ({"method": "gptq", "calib": "no/pages/here"}, ["--method=gptq", "--calib=no/pages/here"]),
        ({"method": "rtn", "task": "sing"}, ["--method=rtn", "--task=sing"]),
    ],
)
def test_quantize_refuses_in_the_words_of_the_command(
    demo: Path, tmp_path: Path, settings: dict[str, Any], flags: list[str]
) -> None:
    output = tmp_path / "out"
    with pytest.raises(HyocrError) as caught:
        quantize(model=str(demo), output=output, **settings)
    done = CliRunner().invoke(main, ["quant", f"--model={demo}", f"--output={output}", *flags])
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (caught.value.exit_code, f"hyocr: error: {caught.value}")


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (lambda demo: evaluate(model=demo, data="no/pages"), ["eval", "DEMO", "--data=no/pages"]),
        (lambda demo: evaluate(model="no/model", data=demo), ["eval", "no/model", "--data=DEMO"]),
        (
            lambda demo: evaluate(model=demo, data="synthetic:2", task="sing"),
            ["eval", "DEMO", "--data=synthetic:2", "--task=sing"],
        ),
        (
            lambda demo: evaluate(model=demo, data="x", backend="magic"),
            ["eval", "DEMO", "--data=x", "--backend=magic"],
        ),
        (lambda demo: evaluate(model=demo, data="x", rounded=True), ["eval", "DEMO", "--data=x", "--rtn"]),
        (
            lambda demo: evaluate(model=demo, data="x", baseline_backend="vllm"),
            ["eval", "DEMO", "--data=x", "--baseline-backend=vllm"],
        ),
        (lambda demo: evaluate(model=demo, data="x", metrics="chrf"), ["eval", "DEMO", "--data=x", "--metrics=chrf"]),
        (lambda demo: verify(demo), ["verify", "DEMO"]),
        (lambda demo: verify(demo / "no"), ["verify", "DEMO/no"]),
    ],
)
def test_the_others_refuse_in_the_words_of_the_command(
    demo: Path, call: Callable[[Path], object], arguments: list[str]
) -> None:
    with pytest.raises(HyocrError) as caught:
        call(demo)
    done = CliRunner().invoke(main, [argument.replace("DEMO", str(demo)) for argument in arguments])
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (caught.value.exit_code, f"hyocr: error: {caught.value}")


def test_a_config_and_fields_together_are_a_mistake(demo: Path, tmp_path: Path) -> None:
    run = RunConfig(model=str(demo), output=tmp_path / "out", method="rtn")
    with pytest.raises(TypeError, match="not both: seed"):
        quantize(run, seed=1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="not both: seed"):
        evaluate(EvalConfig(model=str(demo), data="x"), seed=1)  # type: ignore[call-overload]


def test_progress_is_told_and_what_it_raises_stops_the_run(demo: Path, tmp_path: Path) -> None:
    class Stop(Silent):
        def __init__(self) -> None:
            self.phases: dict[str, int] = {}
            self.steps = 0

        def start(self, phase: str, total: int) -> None:
            self.phases[phase] = total

        def step(self, detail: str = "") -> None:  # noqa: ARG002
            self.steps += 1
            if "blocks" in self.phases and self.steps == self.phases["check"] + 2:
                raise InterruptedError("enough")

    stop = Stop()
    settings: dict[str, Any] = {"model": str(demo), "output": tmp_path / "out", "method": "rtn"}
    with pytest.raises(InterruptedError, match="enough"):
        quantize(**settings, progress=stop)
    assert stop.phases["blocks"] == 4
    assert not (tmp_path / "out").exists()
    with pytest.raises(OutputError, match="unfinished run"):
        quantize(**settings, resume=False)
    assert quantize(**settings).resumed_after_block == 1


def test_the_functions_take_what_the_commands_take() -> None:
    offered = {*EvalConfig.model_fields, *inspect.signature(evaluate).parameters} - {"config", "settings", "progress"}
    # Beside what is shown and kept how.
    options = {str(option.name) for option in eval_command.params}
    assert options - offered == {"file", "as_json", "csv_file", "named", "record", "verbose"}
    assert offered <= options
    options = {str(option.name) for option in verify_command.params}
    assert options - inspect.signature(verify).parameters.keys() <= {"as_json", "model", "named", "verbose"}
    options = {str(option.name) for option in bench_command.params}
    with pytest.raises(ConfigError, match="unknown key nonsense; known are ") as caught:
        bench(model="int4", backend="vllm", nonsense=1)
    taken = set(str(caught.value).partition("known are ")[2].split(", "))
    assert options - taken <= {"as_json", "csv_file", "lang", "named", "page", "record", "verbose"}
    assert taken <= options


def test_public_names_are_there_and_import_no_torch(tmp_path: Path) -> None:
    names = (
        *("BenchResult", "EvalResult", "Progress", "QuantReport", "RunConfig", "VerifyResult"),
        *("bench", "evaluate", "quantize", "verify"),
    )
    assert set(names) <= set(hyocr_core.__all__)
    assert set(names) <= set(dir(hyocr_core))
    code = (
        "import sys\nfrom hyocr_core import Progress, RunConfig, bench, evaluate, quantize, verify\n"
        "assert not {'torch', 'transformers', 'click', 'rich'} & set(sys.modules)\n"
    )
    done = python(code, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (hyocr_core.verify, hyocr_core.quantize, hyocr_core.bench) == (api.verify, api.quantize, api.bench)


def test_the_documented_example_runs(
    hub_cache: Path, calib: str, heldout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(hub_cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, source in (("pages", calib), ("heldout", heldout)):
        (tmp_path / name).mkdir()
        for index, record in enumerate(open_source(source)[:4]):
            record.open_image().save(tmp_path / name / f"{index}.png")
            (tmp_path / name / f"{index}.txt").write_text(record.answer or "", encoding="utf-8")
    page = (REPO / "docs" / "python-api.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"(?ms)^```python\n(.*?)^```", page))
    done = python(code, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    smaller, sound, rates, rest = done.stdout.split("\n", 3)
    assert re.fullmatch(r"\d\.\d\d times smaller", smaller)
    assert (sound, rates.partition(" ")[0]) == ("sound", "CER")
    assert re.search(r"blocks 4/4 model\.layers\.3\b", rest)
