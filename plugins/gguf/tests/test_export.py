"""The GGUF files of a run: what they hold, what `verify` finds in damaged ones, and what a failed export leaves."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize
from hyocr_plugin_gguf import export, ollama
from hyocr_plugin_gguf.check import file_problems
from hyocr_plugin_gguf.config import GgufConfig
from hyocr_plugin_gguf.opened import Opened
from hyocr_plugin_gguf.tokenizer import DENSE
from safetensors.torch import load_file

from hyocr_core import CheckpointError, ConfigError, HyocrError, quantize, verify
from hyocr_core.testing import GENERATIONS, write_generation

CALIB: dict[str, Any] = {"calib": "synthetic:3", "num_samples": 3, "device": "cpu"}


@pytest.fixture(scope="module", params=GENERATIONS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A published generation in small, and what a run makes of it."""
    base = tmp_path_factory.mktemp(f"gguf-{request.param}")
    write_generation(base / "model", request.param)
    quantize(model=str(base / "model"), output=base / "out", method="gguf", options={"type": "q4_1"}, **CALIB)
    return base / "model", base / "out"


def fields(path: Path) -> dict[str, Any]:
    return {key: field.contents() for key, field in GGUFReader(path).fields.items()}


def test_the_decoder_is_described(made: tuple[Path, Path]) -> None:
    model, out = made
    found = fields(out / "model-q4_1.gguf")
    config = json.loads((model / "config.json").read_text())
    text = config.get("text_config", config)
    assert found["general.architecture"] == "hunyuan_vl"
    assert found["hunyuan_vl.block_count"] == text["num_hidden_layers"]
    assert found["hunyuan_vl.context_length"] == text["max_position_embeddings"]
    assert found["hunyuan_vl.rope.dimension_sections"] == text["rope_scaling"]["xdrope_section"]
    assert found["hunyuan_vl.rope.scaling.alpha"] == 1000.0
    assert found["hunyuan_vl.rope.freq_base"] == 10000.0
    assert found["hunyuan_vl.attention.key_length"] == text["head_dim"]
    stops = json.loads((model / "generation_config.json").read_text())["eos_token_id"]
    assert [found["tokenizer.ggml.eos_token_id"], found["tokenizer.ggml.eot_token_id"]] == stops
    assert found["tokenizer.ggml.padding_token_id"] >= 0
    assert found["tokenizer.ggml.pre"] == "hunyuan-dense"
    assert found["tokenizer.ggml.merges"]
    assert len(found["tokenizer.ggml.tokens"]) == text["vocab_size"]
    assert found["tokenizer.chat_template"] == (model / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    for token in tokenizer["added_tokens"]:
        assert found["tokenizer.ggml.tokens"][token["id"]] == token["content"]
        assert found["tokenizer.ggml.token_type"][token["id"]] == (3 if token["special"] else 4)


def test_the_vision_part_is_described_and_whole(made: tuple[Path, Path]) -> None:
    model, out = made
    found = fields(out / "mmproj-f16.gguf")
    pages = json.loads((model / "preprocessor_config.json").read_text())
    size = pages.get("size", {})
    assert found["clip.projector_type"] == "hunyuanvl"
    assert found["clip.vision.image_min_pixels"] == pages.get("min_pixels", size.get("shortest_edge"))
    assert found["clip.vision.image_max_pixels"] == pages.get("max_pixels", size.get("longest_edge"))
    tensors = {tensor.name: tensor for tensor in GGUFReader(out / "mmproj-f16.gguf").tensors}
    original = {name: value for path in model.glob("*.safetensors") for name, value in load_file(path).items()}
    for name, source in (
        ("v.position_embd.weight", "vit.embeddings.position_embedding.weight"),
        ("mm.image_begin", "vit.perceive.image_begin"),
        ("mm.image_end", "vit.perceive.image_end"),
        ("v.image_newline", "vit.perceive.image_newline"),
        ("v.view_seperator", "vit.perceive.image_sep"),
        ("mm.0.weight", "vit.perceive.proj.0.weight"),
        ("v.blk.0.ffn_up.weight", "vit.layers.0.mlp.dense_h_to_4h.weight"),
    ):
        expected = original[source].float().numpy()[1 if "position" in name else 0 :]
        tensor = tensors.pop(name)
        assert tuple(reversed(tensor.shape)) == expected.shape
        values = dequantize(tensor.data, tensor.tensor_type).reshape(expected.shape)
        assert np.allclose(values, expected, rtol=1e-3, atol=1e-6), name
    assert len(tensors) == sum(name.startswith("vit.") for name in original) - 7


def test_codes_are_the_checkpoints_and_the_head_is_written_once(made: tuple[Path, Path]) -> None:
    _, out = made
    stored = {name: value for path in out.glob("*.safetensors") for name, value in load_file(path).items()}
    tensors = {tensor.name: tensor for tensor in GGUFReader(out / "model-q4_1.gguf").tensors}
    blocks = stored["model.layers.1.self_attn.v_proj.weight_blocks"]
    assert tensors["blk.1.attn_v.weight"].data.tobytes() == blocks.numpy().tobytes()
    kinds = {name: tensor.tensor_type.name for name, tensor in tensors.items()}
    assert kinds.pop("token_embd.weight") == "Q8_0"
    assert "output.weight" not in kinds
    assert {kind for name, kind in kinds.items() if "norm" in name} == {"F32"}
    assert {kind for name, kind in kinds.items() if "blk" in name and "norm" not in name} == {"Q4_1"}


def test_the_importance_matrix_names_every_linear_of_the_decoder(made: tuple[Path, Path]) -> None:
    _, out = made
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(out / "imatrix.gguf").tensors}
    linears = [t.name for t in GGUFReader(out / "model-q4_1.gguf").tensors if t.tensor_type.name == "Q4_1"]
    assert tensors.keys() == {f"{name}.{part}" for name in linears for part in ("in_sum2", "counts")}
    assert all(float(tensor.min()) >= 0 and np.isfinite(tensor).all() for tensor in tensors.values())


def commands(modelfile: str) -> list[tuple[str, str]]:
    """Names and values as Ollama's parser takes them apart: a name, and a value that quotes or the line end."""
    value = r'(?:"""(?P<long>.*?)"""|"(?P<short>[^\n]*)"|(?P<bare>[^\n]*))'
    found = []
    for line in re.finditer(rf"^(?P<name>[A-Z]+(?: [a-z_]+)?) {value}\n", modelfile, re.MULTILINE | re.DOTALL):
        found.append((line["name"], line["long"] or line["short"] or line["bare"]))
    assert sum(len(name) + len(text) for name, text in found) > 0.8 * len(modelfile), "it understands all lines"
    return found


def test_ollama_gets_the_official_frame_and_decoding(made: tuple[Path, Path]) -> None:
    found = commands((made[1] / "Modelfile").read_text(encoding="utf-8"))
    assert found[:3] == [
        ("FROM", "./model-q4_1.gguf"),
        ("FROM", "./mmproj-f16.gguf"),
        ("TEMPLATE", "<｜hy_begin▁of▁sentence｜>{{ .System }}<｜hy_place▁holder▁no▁3｜>{{ .Prompt }}<｜hy_User｜>"),
    ]
    generation = json.loads((made[1] / "generation_config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((made[1] / "tokenizer.json").read_text(encoding="utf-8"))
    texts = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    assert [text for name, text in found if name == "PARAMETER stop"] == [
        texts[token] for token in generation["eos_token_id"]
    ]
    parameters = {name: text for name, text in found if name.startswith("PARAMETER")}
    assert parameters["PARAMETER temperature"] == "0"
    assert parameters["PARAMETER repeat_penalty"] == "1.08"
    assert parameters["PARAMETER repeat_last_n"] == "-1"


@pytest.mark.parametrize("text", ["{{ .Response }}", '"""', "{{/* a comment */}}"])
def test_a_frame_that_ollama_would_read_otherwise_is_left_out(
    made: tuple[Path, Path], tmp_path: Path, text: str
) -> None:
    shutil.copytree(made[1], tmp_path / "out")
    template = "{{ " + repr(text) + " }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    (tmp_path / "out" / "chat_template.jinja").write_text(template, encoding="utf-8")
    names = {name for name, _ in commands(ollama.modelfile(Opened(tmp_path / "out"), ("model.gguf",)))}
    assert {"FROM", "PARAMETER stop"} <= names
    assert "TEMPLATE" not in names


def test_verify_finds_no_fault(made: tuple[Path, Path]) -> None:
    model, out = made
    result = verify(out, original=model)
    assert result.faults == ()
    assert [runtime.name for runtime in result.runtimes if runtime.loads == "yes"] == ["llama.cpp"]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def _flip(path: Path, name: str) -> None:
    [tensor] = [tensor for tensor in GGUFReader(path, "r+").tensors if tensor.name == name]
    tensor.data[...] = tensor.data[::-1].copy()


def _replace(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert content.count(old) >= 1
    path.write_bytes(content.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("model-q4_1.gguf", Path.unlink, "there are 0 such files"),
        ("model-q4_1.gguf", _cut, "is no whole GGUF file"),
        ("model-q4_1.gguf", lambda path: path.write_bytes(b"no"), "is no whole GGUF file"),
        ("model-q4_1.gguf", lambda path: _flip(path, "blk.0.ffn_up.weight"), "holds other blocks than the checkpoint"),
        ("model-q4_1.gguf", lambda path: _flip(path, "token_embd.weight"), "holds other values than the checkpoint"),
        ("mmproj-f16.gguf", lambda path: _flip(path, "v.position_embd.weight"), "holds other values"),
        ("mmproj-f16.gguf", lambda path: _replace(path, b"v.image_newline", b"v.image_nowline"), "is missing"),
        ("model-q4_1.gguf", lambda path: _replace(path, b"hunyuan-dense", b"hunyuan-dance"), "tokenizer.ggml.pre is"),
    ],
)
def test_verify_finds_damage(
    made: tuple[Path, Path], tmp_path: Path, file: str, damage: Callable[[Path], object], said: str
) -> None:
    shutil.copytree(made[1], tmp_path / "out")
    damage(tmp_path / "out" / file)
    problems = [problem for _, problem in file_problems(tmp_path / "out")]
    assert any(said in problem for problem in problems), problems


def test_a_failed_export_leaves_nothing_and_resumes(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, straight = made
    settings: dict[str, Any] = {"model": str(model), "output": tmp_path / "out", "method": "gguf", **CALIB}
    settings["options"] = {"type": "q4_1"}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(export, "vision_writer", stop)
        with pytest.raises(KeyboardInterrupt):
            quantize(**settings)
    assert not (tmp_path / "out").exists()
    quantize(**settings, resume=True)
    for path in straight.glob("*.gguf"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_verify_names_the_file_at_fault_and_the_card_the_program(made: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(made[1], tmp_path / "out")
    _flip(tmp_path / "out" / "model-q4_1.gguf", "blk.0.ffn_up.weight")
    faults = [(fault.place, fault.problem) for fault in verify(tmp_path / "out").faults]
    assert ("model-q4_1.gguf", "blk.0.ffn_up.weight holds other blocks than the checkpoint") in faults
    card = (made[1] / "README.md").read_text(encoding="utf-8")
    assert "llama-server -m model-q4_1.gguf --mmproj mmproj-f16.gguf" in card
    assert "library_name: gguf" in card
    assert "vllm serve" not in card


def test_a_mixture_stores_some_linears_in_more_bits(made: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = {"type": "q4_k_m", "codes": "nearest"}
    quantize(model=str(made[0]), output=out, method="gguf", options=options, device="cpu")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(out / "model-q4_k_m.gguf").tensors}
    # Of the two blocks the second is in the last eighth. Rows of 128 do not fill a super-block.
    assert [kinds[f"blk.{index}.ffn_down.weight"] for index in (0, 1)] == ["Q4_K", "Q6_K"]
    assert kinds["blk.0.attn_v.weight"] == kinds["blk.0.ffn_up.weight"] == "Q8_0"
    assert verify(out, original=made[0]).faults == ()
    assert not (out / "imatrix.gguf").exists()


def test_single_layers_are_stored_as_an_override_says(made: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = {"*.down_proj": {"type": "q8_0"}, "model.layers.0.self_attn.o_proj": {"type": "f16"}}
    options = {"type": "q4_0", "codes": "nearest"}
    quantize(model=str(made[0]), output=out, method="gguf", options=options, overrides=more, device="cpu")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(out / "model-q4_0.gguf").tensors}
    assert {kinds[f"blk.{index}.ffn_down.weight"] for index in (0, 1)} == {"Q8_0"}
    assert [kinds[f"blk.{index}.attn_output.weight"] for index in (0, 1)] == ["F16", "Q4_0"]
    assert verify(out, original=made[0]).faults == ()


def test_a_recipe_has_no_place_for_it(made: tuple[Path, Path], tmp_path: Path) -> None:
    rules = [
        {"match": "*.down_proj", "method": "gguf", "options": {"type": "q8_0"}},
        {"match": "model.layers", "method": "gguf"},
    ]
    with pytest.raises(ConfigError, match=r"gguf .* can share none; use it without a recipe, as --method, with --over"):
        quantize(model=str(made[0]), output=tmp_path / "out", recipe=rules, device="cpu")
    assert not (tmp_path / "out").exists()


def _edited(made: tuple[Path, Path], folder: Path, edit: Callable[[dict[str, Any]], object]) -> Opened:
    shutil.copytree(made[1], folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    edit(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return Opened(folder)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda t: t["model"].update(type="Unigram"), "is no byte-level BPE"),
        (lambda t: t["model"].update(merges=["a b"]), "is not known to cut texts"),
        (lambda t: t["added_tokens"][0].update(id=10_000), "token 10000 is beyond"),
        (lambda t: t.update(pre_tokenizer={"type": "Split", "pattern": {"Regex": "x+"}}), r"cut texts as .*: x\+"),
    ],
)
def test_a_tokenizer_that_llama_cpp_lacks_is_refused(
    made: tuple[Path, Path], tmp_path: Path, edit: Callable[[dict[str, Any]], object], said: str
) -> None:
    opened = _edited(made, tmp_path / "out", edit)
    with pytest.raises(CheckpointError, match=said):
        export.text_writer(opened, "f16")


def test_the_published_way_to_cut_texts_is_known(made: tuple[Path, Path], tmp_path: Path) -> None:
    steps: list[dict[str, Any]] = [{"type": "Split", "pattern": {"Regex": pattern}} for pattern in DENSE]
    steps.append({"type": "ByteLevel", "use_regex": False})
    cut = {"type": "Sequence", "pretokenizers": steps}
    opened = _edited(
        made, tmp_path / "out", lambda t: (t.update(pre_tokenizer=cut), t["model"].update(merges=[["a", "b"]]))
    )
    writer = export.text_writer(opened, "f16")
    assert writer.kv_data[0]["tokenizer.ggml.pre"].value == "hunyuan-dense"
    assert writer.kv_data[0]["tokenizer.ggml.merges"].value == ["a b"]


def test_a_checkpoint_without_limits_of_pixels_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(made[1], tmp_path / "out")
    path = tmp_path / "out" / "preprocessor_config.json"
    pages = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in pages.items() if k not in ("size", "max_pixels", "min_pixels")}))
    with pytest.raises(HyocrError, match="says neither max_pixels nor size"):
        export.export_files(tmp_path / "out", tmp_path, GgufConfig(type="q4_1"))
