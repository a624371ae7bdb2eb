"""The writer: what appears, byte for byte."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.checkpoint.writer import StagedCheckpoint
from hyocr_core.errors import RunError
from tests.checkpoint.conftest import Raw
from tests.checkpoint.staging import (
    CONFIG,
    EXTRA,
    QUANTIZED,
    add_parts,
    carried,
    contents,
    finish,
    packed,
    write,
)

ReadRaw = Callable[[Path], Raw]


class TestResult:
    def test_files(self, model: Path, target: Path, stage_folder: Path) -> None:
        files = write(model, target)
        side = {"chat_template.jinja", "tokenizer.json"}
        assert set(files) == {"config.json", "model.safetensors", *EXTRA, *side}
        assert {name: files[name] for name in side} == {name: (model / name).read_bytes() for name in side}
        assert files["hyocr_report.json"] == EXTRA["hyocr_report.json"]
        assert not stage_folder.exists()

    def test_config(self, model: Path, target: Path) -> None:
        text = write(model, target)["config.json"].decode()
        assert list(json.loads(text).items()) == list(CONFIG.items())
        assert text.startswith('{\n  "model_type"')
        assert text.endswith("}\n")

    @pytest.mark.parametrize("sharded", [False, True])
    def test_carried_tensors_keep_their_bytes_and_packed_ones_replace_the_rest(
        self, model: Path, target: Path, raw: ReadRaw, sharded: bool
    ) -> None:
        write(model, target, **({"shard_bytes": 100} if sharded else {}))
        files = sorted(target.glob("*.safetensors"))
        assert (len(files) > 2) == sharded
        written = {name: entry for file in files for name, entry in raw(file).items()}
        source = raw(model / "model.safetensors")
        for layer in QUANTIZED:
            source.pop(f"{layer}.weight")
            for name, tensor in packed(layer).items():
                code = {torch.int32: "I32", torch.bfloat16: "BF16"}[tensor.dtype]
                source[name] = (code, list(tensor.shape), bytes(tensor.view(torch.uint8).flatten().tolist()))
        assert written == source

    def test_index(self, model: Path, target: Path, raw: ReadRaw) -> None:
        write(model, target, shard_bytes=700)
        index = json.loads((target / "model.safetensors.index.json").read_text(encoding="utf-8"))
        files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
        held = {name: file for file in files for name in raw(target / file)}
        assert index["weight_map"] == held
        assert index["metadata"] == {
            "total_size": sum(len(data) for file in files for _, _, data in raw(target / file).values())
        }
        assert not (target / "model.safetensors").exists()

    def test_the_reader_takes_what_the_writer_gives(self, model: Path, target: Path) -> None:
        write(model, target, shard_bytes=700)
        again = CheckpointReader(target)
        name = "vit.half"
        assert torch.equal(again.read([name])[name], CheckpointReader(model).read([name])[name])

    @pytest.mark.parametrize("options", [{}, {"shard_bytes": 300}])
    def test_two_runs_give_the_same_bytes(self, model: Path, tmp_path: Path, options: dict[str, int]) -> None:
        assert write(model, tmp_path / "one", **options) == write(model, tmp_path / "two", **options)

    def test_sharded_sources(self, write_sharded: Callable[..., Path], target: Path) -> None:
        one = torch.arange(6.0)
        two = torch.arange(9.0)
        model = write_sharded({"a.safetensors": {"x": one}, "b.safetensors": {"y": two}})
        with StagedCheckpoint.open(target, resume=False) as stage:
            stage.build(CheckpointReader(model), ["y", "x"], [], CONFIG)
            stage.publish()
        read = CheckpointReader(target).read(["x", "y"])
        assert torch.equal(read["x"], one)
        assert torch.equal(read["y"], two)

    def test_transformers_reads_shards_and_writes_what_we_read(self, tmp_path: Path) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        sizes: dict[str, Any] = {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
        }
        LlamaForCausalLM(LlamaConfig(vocab_size=64, num_hidden_layers=2, **sizes)).save_pretrained(
            tmp_path / "model", max_shard_size="8KB"
        )
        reader = CheckpointReader(tmp_path / "model")
        with StagedCheckpoint.open(tmp_path / "out", resume=False) as stage:
            stage.build(reader, reader.tensors, [], reader.config, shard_bytes=12_000)
            stage.publish()
        assert len({info.shard for info in reader.tensors.values()}) > 1
        assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
        loaded = LlamaForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").state_dict()
        expected = LlamaForCausalLM.from_pretrained(tmp_path / "model", dtype="auto").state_dict()
        assert loaded.keys() == expected.keys()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())

    @pytest.mark.usefixtures("umask")
    def test_modes_follow_the_umask(self, model: Path, target: Path) -> None:
        write(model, target, shard_bytes=300)
        assert {oct(path.stat().st_mode & 0o777) for path in target.iterdir()} == {"0o640"}
        assert oct(target.stat().st_mode & 0o777) == "0o750"

    def test_an_empty_target_keeps_its_mode(self, model: Path, target: Path) -> None:
        target.mkdir()
        target.chmod(0o700)
        assert "config.json" in write(model, target)
        assert oct(target.stat().st_mode & 0o777) == "0o700"

    def test_a_link_to_an_empty_folder_stays_a_link(self, model: Path, target: Path, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        target.symlink_to("real")
        assert "config.json" in write(model, target)
        assert target.is_symlink()
        assert (tmp_path / "real" / "config.json").is_file()


class TestReplaced:
    """Tensors that a method made anew before the first block, in the place of the original's."""

    def test_they_take_the_place_of_the_originals(self, model: Path, target: Path, raw: ReadRaw) -> None:
        new = torch.full((8,), 0.25).bfloat16()
        with StagedCheckpoint.open(target, resume=False) as stage:
            add_parts(stage)
            stage.add_part("prepared", {"model.layers.0.norm.weight": new, "vit.half": torch.ones(3, 5).half()})
            finish(stage, model, replaced={"model.layers.0.norm.weight": "prepared"})
        expected = write(model, target.with_name("plain"))
        found, plain = (raw(folder / "model.safetensors") for folder in (target, target.with_name("plain")))
        assert found.keys() == plain.keys()
        assert [name for name in found if found[name] != plain[name]] == ["model.layers.0.norm.weight"]
        assert found["model.layers.0.norm.weight"] == ("BF16", [8], b"\x80\x3e" * 8)
        assert contents(target).keys() == expected.keys()

    def test_one_that_is_quantized_too_would_be_written_twice(self, model: Path, target: Path) -> None:
        name = f"{QUANTIZED[0]}.scales"
        with StagedCheckpoint.open(target, resume=False) as stage:
            add_parts(stage)
            stage.add_part("prepared", {name: torch.ones(1)})
            with pytest.raises(RunError, match=rf"{name} would be written twice"):
                finish(stage, model, replaced={name: "prepared"})


class TestFilesOfAMethod:
    def test_they_are_published_with_the_checkpoint(self, model: Path, target: Path, tmp_path: Path) -> None:
        made = tmp_path / "made"
        (made / "deep" / "er").mkdir(parents=True)
        (made / "model.gguf").write_bytes(b"GGUF")
        (made / "deep" / "er" / "part.bin").write_bytes(b"")
        reader = CheckpointReader(model)
        with StagedCheckpoint.open(target, resume=False) as stage:
            add_parts(stage)
            stage.build(reader, carried(reader), QUANTIZED, CONFIG)
            digests = stage.take_files(made)
            stage.publish()
        assert digests == {
            "model.gguf": hashlib.sha256(b"GGUF").hexdigest(),
            "deep/er/part.bin": hashlib.sha256(b"").hexdigest(),
        }
        assert (target / "model.gguf").read_bytes() == b"GGUF"
        assert (target / "deep" / "er" / "part.bin").read_bytes() == b""

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
    def test_none_takes_the_place_of_another(self, model: Path, target: Path, tmp_path: Path, name: str) -> None:
        made = tmp_path / "made"
        made.mkdir()
        (made / name).write_bytes(b"mine")
        reader = CheckpointReader(model)
        with StagedCheckpoint.open(target, resume=False) as stage:
            add_parts(stage)
            stage.build(reader, carried(reader), QUANTIZED, CONFIG)
            before = contents(stage.checkpoint)
            with pytest.raises(RunError, match=rf"^{name} would take the place of a file of the checkpoint"):
                stage.take_files(made)
            assert contents(stage.checkpoint) == before
