"""Both published generations, in small, through the commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CompressedTensorsConfig, HunYuanVLForConditionalGeneration

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.errors import CheckpointError
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.load import load_model
from hyocr_core.pages.processor import load_processor
from hyocr_core.testing.generations import EMBEDDING, GENERATIONS, HEAD, write_generation
from hyocr_core.testing.tiny import PIXELS
from tests.published import METHODS, READ, done, hyocr, quant

CPU = torch.device("cpu")
BUFFERS = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.arange(16.0) for layer in range(2)}
"""As old versions of Transformers saved them."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Generation -> folder; read only."""
    base = tmp_path_factory.mktemp("generations")
    for generation in GENERATIONS:
        write_generation(base / generation, generation)
    return {generation: base / generation for generation in GENERATIONS}


@pytest.fixture
def contradicting(models: dict[str, Path], tmp_path: Path) -> Path:
    """v1.5 with one value of the head changed."""
    folder = shutil.copytree(models["1.5"], tmp_path / "contradicting")
    tensors = load_file(folder / "model.safetensors")
    tensors[HEAD][3, 5] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_the_stand_ins_are_laid_out_as_published(models: dict[str, Path]) -> None:
    new, old = models["1.5"], models["1.0"]
    assert sorted(path.name for path in new.glob("*.safetensors*")) == ["model.safetensors"]
    assert {path.name for path in new.iterdir() if path.is_dir()} == {"dflash", "v1.0", "assets"}
    assert len(list(old.glob("model-0000?-of-00004.safetensors"))) == 4
    names, old_names = (set(CheckpointReader(folder).tensors) for folder in (new, old))
    assert names - old_names == {HEAD}
    assert "vit.perceive.image_sep" in old_names
    assert old_names == set(CheckpointReader(new / "v1.0").tensors)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_transformers_and_the_adapter_read_the_same_config(models: dict[str, Path], generation: str) -> None:
    folder = models[generation]
    loaded: Any = HunYuanVLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.bfloat16, output_loading_info=True
    )
    model, report = loaded
    assert not any(report.values())
    ours = load_model(folder, CPU).state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in model.state_dict().items())
    text = HunYuanVL(CheckpointReader(folder), CPU).config.text_config
    rope = text.rope_parameters
    assert (rope["rope_type"], rope["rope_theta"], rope["mrope_section"]) == ("dynamic", 10000.0, [4, 4, 4, 4])
    # 5.16 knows `pad_id` of v1.0 in a nested config alone, and nothing of hyocr or of the model asks for it.
    if generation == "1.5" or "org_vocab_size" in text.attribute_map:
        assert text.pad_token_id == load_processor(folder).tokenizer.pad_token_id


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_processor_has_the_pixels_of_its_generation(models: dict[str, Path], generation: str) -> None:
    size = load_processor(models[generation]).image_processor.size
    assert (size["shortest_edge"], size["longest_edge"]) == PIXELS


@pytest.mark.needs_methods
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("method", METHODS)
def test_the_commands_run_on_both(models: dict[str, Path], tmp_path: Path, generation: str, method: str) -> None:
    model, output = models[generation], tmp_path / "out"
    result = quant(model, output, method)
    assert result.exit_code == 0, result.output
    assert not [path for path in output.iterdir() if path.name in ("dflash", "v1.0", "assets")]
    assert HEAD not in CheckpointReader(output).tensors
    done("verify", output, "--original", model)
    read = done("eval", output, "--baseline", model, *READ, "--json", "--record")
    assert json.loads(read.stdout)["baseline"] is not None
    page = Path(done("report", output).stdout.strip()).read_text(encoding="utf-8")
    assert f"{json.loads(read.stdout)['comparison']['identical_pages']} of 2" in page


@pytest.mark.needs_methods
def test_a_head_that_is_a_copy_is_left_out_with_a_notice(models: dict[str, Path], tmp_path: Path) -> None:
    model = models["1.5"]
    plain, kept = tmp_path / "plain", tmp_path / "kept"
    left_out, stays = quant(model, plain, "rtn"), quant(model, kept, "rtn", "--keep-head")
    assert f"{HEAD} is a copy of {EMBEDDING}" in " ".join(left_out.stderr.split())
    assert "left out; --keep-head keeps it" in " ".join(left_out.stderr.split())
    assert "kept" in " ".join(stays.stderr.split())
    head = CheckpointReader(model).tensors[HEAD].nbytes
    sizes = [json.loads((folder / "hyocr_report.json").read_text(encoding="utf-8")) for folder in (plain, kept)]
    assert sizes[0]["weight_bytes_before"] == sizes[1]["weight_bytes_before"]
    assert sizes[0]["weight_bytes_after"] == sizes[1]["weight_bytes_after"] - head
    tensors, others = (load_file(folder / "model.safetensors") for folder in (kept, plain))
    assert torch.equal(tensors.pop(HEAD), tensors[EMBEDDING])
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)
    assert hyocr("verify", kept, "--original", model).exit_code == 0
    for folder in (plain, kept):
        assert load_model(folder, CPU).lm_head.weight.shape == (384, 128)


@pytest.mark.needs_methods
def test_transformers_loads_the_result_without_the_head(models: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    output = tmp_path / "out"
    written = quant(models["1.5"], output, "rtn", "--format", "compressed-tensors")
    assert written.exit_code == 0, written.output
    assert HEAD not in CheckpointReader(output).tensors
    loaded: Any = HunYuanVLForConditionalGeneration.from_pretrained(
        output, dtype=torch.bfloat16, quantization_config=CompressedTensorsConfig(dequantize=True)
    )
    embedding = load_file(output / "model.safetensors")[EMBEDDING]
    assert torch.equal(loaded.lm_head.weight, embedding)
    assert torch.equal(loaded.get_input_embeddings().weight, embedding)


@pytest.mark.needs_methods
def test_the_plan_counts_the_head(models: dict[str, Path], tmp_path: Path) -> None:
    sizes = {}
    for flags in ((), ("--keep-head",)):
        plan = json.loads(quant(models["1.5"], tmp_path / "out", "rtn", "--dry-run", "--json", *flags).stdout)
        sizes[flags] = next(size for size in plan["sizes"] if size["part"] == "embeddings")
    embedding = CheckpointReader(models["1.5"]).tensors[EMBEDDING].nbytes
    assert [(size["before"], size["after"]) for size in sizes.values()] == [
        (2 * embedding, embedding),
        (2 * embedding, 2 * embedding),
    ]


@pytest.mark.needs_methods
@pytest.mark.parametrize("flags", [(), ("--keep-head",), ("--dry-run",)])
def test_a_head_that_contradicts_the_tie_is_refused(
    contradicting: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    result = quant(contradicting, tmp_path / "out", "rtn", *flags)
    assert result.exit_code == 2
    assert f"{HEAD} differs from {EMBEDDING}" in result.stderr
    assert not (tmp_path / "out").exists()


def test_nor_is_it_read(contradicting: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{HEAD} differs from {EMBEDDING}"):
        load_model(contradicting, CPU)


def test_a_head_of_its_own_may_differ(contradicting: Path) -> None:
    path = contradicting / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False
    path.write_text(json.dumps(config), encoding="utf-8")
    model: Any = load_model(contradicting, CPU)
    assert not torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)


@pytest.mark.needs_methods
def test_verify_names_a_head_that_contradicts_the_tie(models: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "out"
    quant(models["1.5"], output, "rtn", "--keep-head")
    tensors = load_file(output / "model.safetensors")
    tensors[HEAD][0, 0] += 1
    save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
    result = hyocr("verify", output)
    assert result.exit_code == 1
    assert f"{HEAD}" in result.output
    assert f"differs from {EMBEDDING}, to which config.json ties it" in " ".join(result.output.split())


@pytest.mark.needs_methods
def test_buffers_on_disk_are_ignored_with_a_notice(models: dict[str, Path], tmp_path: Path) -> None:
    model, clean, output = shutil.copytree(models["1.0"], tmp_path / "model"), tmp_path / "clean", tmp_path / "out"
    _add(model / "model-00002-of-00004.safetensors", BUFFERS, model / "model.safetensors.index.json")
    notice = f"{next(iter(BUFFERS))} and 1 more tensors are no weight, runtimes compute it themselves: ignored"
    quantized = quant(model, output, "rtn")
    assert quantized.exit_code == 0, quantized.output
    assert notice in " ".join(quantized.stderr.split())
    assert quant(models["1.0"], clean, "rtn").exit_code == 0
    assert (output / "model.safetensors").read_bytes() == (clean / "model.safetensors").read_bytes()
    verified = hyocr("verify", output, "--original", model)
    assert verified.exit_code == 0, verified.output

    _add(output / "model.safetensors", BUFFERS)
    (output / "hyocr_report.json").unlink()  # as if another tool had written it, which keeps them
    verified = hyocr("verify", output, "--original", model)
    assert verified.exit_code == 0, verified.output
    assert notice in " ".join(verified.output.split())
    read = done("eval", output, "--baseline", model, *READ)
    said = " ".join(read.stderr.split())
    assert all(f"{folder}: {notice}" in said for folder in (output, model))


def test_what_is_no_buffer_is_still_refused(models: dict[str, Path], tmp_path: Path) -> None:
    model = shutil.copytree(models["1.5"], tmp_path / "model")
    _add(model / "model.safetensors", {"model.layers.0.self_attn.rotary_emb.freqs": torch.ones(4)})
    with pytest.raises(CheckpointError, match=r"rotary_emb\.freqs is no tensor of"):
        load_model(model, CPU)


def _add(file: Path, tensors: dict[str, torch.Tensor], index: Path | None = None) -> None:
    save_file(load_file(file) | tensors, file, metadata={"format": "pt"})
    if index is not None:
        content = json.loads(index.read_text(encoding="utf-8"))
        content["weight_map"] |= dict.fromkeys(tensors, file.name)
        index.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.needs_methods
def test_folders_beside_the_model_are_never_read(models: dict[str, Path], tmp_path: Path) -> None:
    model = shutil.copytree(models["1.5"], tmp_path / "model")
    for path in [path for path in model.glob("*/*") if path.is_file()]:
        path.write_bytes(b"\0 not what it says")
    assert quant(model, tmp_path / "a", "rtn").exit_code == 0
    assert quant(models["1.5"], tmp_path / "b", "rtn").exit_code == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
