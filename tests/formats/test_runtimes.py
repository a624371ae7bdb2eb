"""Which runtimes load what, as tried with vLLM 0.32 on CPU and Transformers 5.23."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hyocr_core.formats import (
    AwqFormat,
    CompressedFp8Format,
    Format,
    Fp8Format,
    GptqFormat,
    IntQuantizedFormat,
    PackQuantizedFormat,
)
from hyocr_core.models.known_formats import known_runtimes

SHAPES = {"model.layers.0.mlp.up_proj": (512, 256)}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (GptqFormat(4, 128, sym=True), ("yes", "yes", "yes")),
        (GptqFormat(4, -1, sym=True, version=2), ("yes", "yes", "yes")),
        (GptqFormat(8, 128, sym=True), ("no", "yes", "yes")),
        (GptqFormat(4, 128, sym=False), ("no", "no", "unsure")),
        (GptqFormat(4, 16, sym=True), ("no", "no", "unsure")),
        (GptqFormat(4, 128, sym=True, desc_act=True), ("no", "no", "unsure")),
        (AwqFormat(128, zero_point=True), ("yes", "yes", "yes")),
        (AwqFormat(128, zero_point=False), ("yes", "yes", "yes")),
        (PackQuantizedFormat(4, 128, sym=True), ("yes", "yes", "yes")),
        (PackQuantizedFormat(4, -1, sym=True), ("yes", "yes", "yes")),
        (PackQuantizedFormat(4, 64, sym=False), ("yes", "yes", "yes")),
        (PackQuantizedFormat(8, 128, sym=True), ("no", "yes", "yes")),
        (PackQuantizedFormat(8, 128, sym=False), ("no", "no", "unsure")),
        (CompressedFp8Format("channel", "dynamic"), ("yes", "yes", "yes")),
        (CompressedFp8Format("tensor", "static"), ("no", "yes", "yes")),
        (CompressedFp8Format("tensor", "dynamic"), ("no", "yes", "yes")),
        (CompressedFp8Format("channel", "static"), ("no", "yes", "yes")),
        (IntQuantizedFormat("channel", "dynamic"), ("yes", "yes", "yes")),
        (IntQuantizedFormat("tensor", "static"), ("yes", "yes", "yes")),
        (Fp8Format("static"), ("no", "yes", "no")),
        (Fp8Format("dynamic"), ("no", "yes", "no")),
    ],
    ids=str,
)
def test_table(written: Format, expected: tuple[str, str, str]) -> None:
    found = list(written.runtimes(SHAPES))
    assert [runtime.name for runtime in found] == ["vLLM CPU", "vLLM CUDA", "Transformers"]
    assert tuple(runtime.loads for runtime in found) == expected
    assert all(runtime.why for runtime in found if runtime.loads != "yes")


def test_the_cpu_kernels_want_multiples_of_32() -> None:
    written = PackQuantizedFormat(4, -1, sym=True)
    on_cpu, on_cuda, _ = list(written.runtimes(SHAPES | {"vit.layers.0.mlp.dense_h_to_4h": (4304, 1152)}))
    assert (on_cpu.loads, on_cuda.loads) == ("no", "yes")
    assert (
        on_cpu.why == "vit.layers.0.mlp.dense_h_to_4h is 4304x1152; the CPU kernels want multiples of 32, `ignore` it"
    )


@pytest.mark.parametrize("merger", ["vit.perceive.mlp", "model.vision_tower.patch_merger.mlp"])
def test_transformers_reads_an_fp8_vision_tower_only_unpacked(merger: str) -> None:
    written = CompressedFp8Format("channel", "dynamic")
    assert "dequantize=True" not in list(written.runtimes(SHAPES))[-1].why
    assert "dequantize=True" in list(written.runtimes(SHAPES | {merger: (1024, 4608)}))[-1].why


@pytest.mark.parametrize("merger", ["vit.perceive.mlp", "model.vision_tower.patch_merger.mlp"])
def test_vllm_cpu_misreads_an_integer_patch_merger(merger: str) -> None:
    written = GptqFormat(4, 128, sym=True)
    on_cpu, on_cuda, _ = list(written.runtimes(SHAPES | {merger: (1024, 4608)}))
    assert (on_cpu.loads, on_cuda.loads) == ("no", "yes")
    assert "patch merger" in on_cpu.why


def test_an_unknown_kind_is_said_to_be_unknown() -> None:
    found = known_runtimes({"quant_method": "codebook"}, SHAPES)
    assert [runtime.loads for runtime in found] == ["unsure"] * 3
    assert all("codebook" in runtime.why for runtime in found)


def test_the_formats_import_no_torch() -> None:
    code = "import sys, hyocr_core.formats; assert not {'torch', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
