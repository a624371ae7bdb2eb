"""The writer: what appears, byte for byte, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from torch import Tensor

from hyocr_core.checkpoint.journal import Journal
from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.checkpoint.writer import StagedCheckpoint, refuse_unaccepted
from hyocr_core.errors import CalibrationError, OutputError, RunError

Raw = dict[str, tuple[str, list[int], bytes]]
ReadRaw = Callable[[Path], Raw]

QUANTIZED = ("model.layers.0.q_proj", "model.layers.10.q_proj")
CONFIG = {"model_type": "hunyuan_vl", "a": [1, 2.5], "name": "混元", "quantization_config": {"bits": 4}}
EXTRA = {"hyocr_report.json": b'{"layers": []}'}


@pytest.fixture
def model(write_single: Callable[[Mapping[str, Tensor]], Path], tensors: dict[str, Tensor]) -> Path:
    return write_single(tensors)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def stage_folder(tmp_path: Path) -> Path:
    return tmp_path / ".out.hyocr-partial"


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def packed(layer: str) -> dict[str, Tensor]:
    seed = QUANTIZED.index(layer)
    return {
        f"{layer}.qweight": torch.arange(8, dtype=torch.int32).reshape(2, 4) + seed,
        f"{layer}.scales": torch.full((2, 2), 0.5 + seed).bfloat16(),
    }


def carried(reader: CheckpointReader) -> list[str]:
    return [name for name in reader.tensors if name.removesuffix(".weight") not in QUANTIZED]


def add_parts(stage: StagedCheckpoint) -> None:
    for layer in QUANTIZED:
        stage.add_part(layer, packed(layer))


def finish(stage: StagedCheckpoint, model: Path, *, accepted: bool = True, **options: Any) -> None:
    reader = CheckpointReader(model)
    digests = stage.build(reader, carried(reader), QUANTIZED, CONFIG, **options)
    for name, content in EXTRA.items():
        stage.add_file(name, content)
    place = stage.publish(accepted=accepted)
    weights = place.glob("*.safetensors")
    assert digests == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in weights}


def write(model: Path, target: Path, **options: Any) -> dict[str, bytes]:
    with StagedCheckpoint.open(target, resume=False) as stage:
        add_parts(stage)
        finish(stage, model, **options)
    return contents(target)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Nothing(BaseModel):
    """What a run writes down that has done nothing."""


def begin_journal(stage: StagedCheckpoint) -> None:
    Journal.start(stage.journal_path, {"seed": 0}, Nothing())


def interrupted(target: Path) -> None:
    """A run that was killed after its first part."""
    with StagedCheckpoint.open(target, resume=False) as stage:
        begin_journal(stage)
        stage.add_part(QUANTIZED[0], packed(QUANTIZED[0]))


def fail_after_the_journal(target: Path, error: BaseException) -> None:
    with StagedCheckpoint.open(target, resume=False) as stage:
        begin_journal(stage)
        raise error


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


class TestUnaccepted:
    def test_it_appears_beside_the_target(self, model: Path, target: Path, tmp_path: Path) -> None:
        expected = write(model, tmp_path / "expected")
        (tmp_path / "out.unaccepted").mkdir()
        refuse_unaccepted(target)  # an empty folder is in no one's way
        with StagedCheckpoint.open(target, resume=False) as stage:
            add_parts(stage)
            finish(stage, model, accepted=False)
        assert contents(tmp_path / "out.unaccepted") == expected
        assert {path.name for path in tmp_path.iterdir()} - {model.name} == {"expected", "out.unaccepted"}

    def test_beside_what_a_link_leads_to(self, model: Path, target: Path, tmp_path: Path) -> None:
        (tmp_path / "disk" / "real").mkdir(parents=True)
        target.symlink_to("disk/real")
        with StagedCheckpoint.open(target, resume=False) as stage:
            add_parts(stage)
            finish(stage, model, accepted=False)
        assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["real", "real.unaccepted"]
        assert not any(target.iterdir())

    @pytest.mark.parametrize("folder", [True, False], ids=["a folder", "a file"])
    def test_what_is_there_is_never_lost(self, model: Path, target: Path, tmp_path: Path, folder: bool) -> None:
        old = tmp_path / "out.unaccepted"
        if folder:
            old.mkdir()
        (old / "precious" if folder else old).write_text("precious")
        with pytest.raises(OutputError, match=rf"{old} is there.*: delete or rename that, or give another output"):
            refuse_unaccepted(target)
        with StagedCheckpoint.open(target, resume=False) as stage:
            begin_journal(stage)
            add_parts(stage)
            with pytest.raises(RunError, match=r"out\.unaccepted.*--resume"):
                finish(stage, model, accepted=False)
        assert (old / "precious" if folder else old).read_text() == "precious"
        StagedCheckpoint.open(target, resume=True).close()


class TestParts:
    def test_a_part_comes_back(self, target: Path) -> None:
        interrupted(target)
        with StagedCheckpoint.open(target, resume=True) as stage:
            read = stage.read_part(QUANTIZED[0])
            with pytest.raises(OutputError, match=QUANTIZED[1]):
                stage.read_part(QUANTIZED[1])
        expected = packed(QUANTIZED[0])
        assert read.keys() == expected.keys()
        assert all(torch.equal(read[name], tensor) for name, tensor in expected.items())

    def test_strided_and_shared_tensors(self, target: Path) -> None:
        base = torch.arange(12.0).reshape(3, 4)
        with StagedCheckpoint.open(target, resume=False) as stage:
            stage.add_part("p", {"turned": base.T, "same": base, "again": base, "slice": base[:, 1]})
            read = stage.read_part("p")
        assert torch.equal(read["turned"], base.T)
        assert torch.equal(read["again"], base)
        assert torch.equal(read["slice"], base[:, 1])

    def test_damaged(self, target: Path, stage_folder: Path) -> None:
        interrupted(target)
        part = stage_folder / "parts" / f"{QUANTIZED[0]}.safetensors"
        part.write_bytes(part.read_bytes()[:-1])
        with (
            StagedCheckpoint.open(target, resume=True) as stage,
            pytest.raises(OutputError, match=r"cannot resume.*truncated.*delete"),
        ):
            stage.read_part(QUANTIZED[0])

    def test_a_tensor_written_twice(self, model: Path, target: Path, stage_folder: Path) -> None:
        with StagedCheckpoint.open(target, resume=False) as stage:
            begin_journal(stage)
            add_parts(stage)
            reader = CheckpointReader(model)
            stage.add_part("other", {"vit.half": torch.ones(1)})
            with pytest.raises(RunError, match=r"vit\.half would be written twice"):
                stage.build(reader, carried(reader), [*QUANTIZED, "other"], CONFIG)
        assert not target.exists()
        assert stage_folder.exists()


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


class TestOpen:
    def test_not_empty(self, target: Path) -> None:
        target.mkdir()
        (target / "precious").touch()
        for resume in (False, True):
            with pytest.raises(OutputError, match=rf"{target} is not empty"):
                StagedCheckpoint.open(target, resume=resume)
        assert list(target.iterdir()) == [target / "precious"]

    def test_a_file(self, target: Path) -> None:
        target.touch()
        with pytest.raises(OutputError, match="is a file"):
            StagedCheckpoint.open(target, resume=False)

    def test_below_a_file(self, target: Path) -> None:
        target.touch()
        with pytest.raises(OutputError, match="cannot write in"):
            StagedCheckpoint.open(target / "out", resume=False)

    def test_a_mount_point(self, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        target.mkdir()
        monkeypatch.setattr(Path, "is_mount", lambda path: path == target)
        with pytest.raises(OutputError, match="mount point"):
            StagedCheckpoint.open(target, resume=False)

    def test_an_unfinished_run_is_not_lost(self, target: Path, stage_folder: Path) -> None:
        interrupted(target)
        with pytest.raises(OutputError, match=rf"{stage_folder}: continue it with --resume, or delete that folder"):
            StagedCheckpoint.open(target, resume=False)
        with StagedCheckpoint.open(target, resume=True) as stage:
            assert stage.read_part(QUANTIZED[0])

    def test_nothing_to_resume(self, target: Path, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="no unfinished run"):
            StagedCheckpoint.open(target, resume=True)
        assert not list(tmp_path.iterdir())

    def test_one_run_at_a_time(self, target: Path) -> None:
        with StagedCheckpoint.open(target, resume=False) as stage:
            begin_journal(stage)
            for resume in (False, True):
                with pytest.raises(OutputError, match="another run is writing"):
                    StagedCheckpoint.open(target, resume=resume)
        StagedCheckpoint.open(target, resume=True).close()

    def test_a_stage_without_a_journal_is_rubbish(self, target: Path, stage_folder: Path) -> None:
        (stage_folder / "inputs").mkdir(parents=True)
        (stage_folder / "lost").touch()
        with StagedCheckpoint.open(target, resume=False) as stage:
            assert sorted(path.name for path in stage.folder.iterdir()) == ["lock", "parts"]

    def test_rubbish_of_a_published_run_goes(self, model: Path, target: Path, stage_folder: Path) -> None:
        write(model, target)
        (stage_folder / "parts").mkdir(parents=True)
        with pytest.raises(OutputError, match="not empty"):
            StagedCheckpoint.open(target, resume=False)
        assert not stage_folder.exists()


class TestLeaving:
    def test_before_the_journal_leaves_nothing(self, target: Path, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt), StagedCheckpoint.open(target, resume=False):
            raise KeyboardInterrupt
        assert not list(tmp_path.iterdir())

    def test_bad_input_before_the_first_part_leaves_nothing(self, target: Path, tmp_path: Path) -> None:
        with pytest.raises(CalibrationError):
            fail_after_the_journal(target, CalibrationError())
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RunError])
    def test_otherwise_the_work_stays(self, target: Path, error: type[BaseException]) -> None:
        with pytest.raises(error):
            fail_after_the_journal(target, error())
        StagedCheckpoint.open(target, resume=True).close()

    def test_a_refused_resumption_keeps_the_work(self, target: Path, stage_folder: Path) -> None:
        with StagedCheckpoint.open(target, resume=False) as stage:
            begin_journal(stage)
        with pytest.raises(OutputError, match="seed: 0 -> 1"), StagedCheckpoint.open(target, resume=True) as stage:
            Journal.resume(stage.journal_path, {"seed": 1}, Nothing)
        assert (stage_folder / "journal.json").is_file()


class TestDisk:
    def test_a_full_disk_is_one_line_and_can_be_resumed(
        self, model: Path, target: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        expected = write(model, tmp_path / "expected")
        with StagedCheckpoint.open(target, resume=False) as stage:
            begin_journal(stage)
            add_parts(stage)

            def full(*_args: object) -> None:
                raise OSError(28, "No space left on device")

            with monkeypatch.context() as patch:
                patch.setattr(shutil, "copyfile", full)
                with pytest.raises(RunError, match=r"No space left.*--resume"):
                    finish(stage, model)
        assert not target.exists()
        with StagedCheckpoint.open(target, resume=True) as stage:
            finish(stage, model)
        assert contents(target) == expected

    def test_a_target_filled_meanwhile_is_left_alone(self, model: Path, target: Path) -> None:
        with StagedCheckpoint.open(target, resume=False) as stage:
            begin_journal(stage)
            add_parts(stage)
            target.mkdir()
            (target / "precious").touch()
            with pytest.raises(RunError, match=r"not empty.*--resume"):
                finish(stage, model)
        assert list(target.iterdir()) == [target / "precious"]
        (target / "precious").unlink()
        with StagedCheckpoint.open(target, resume=True) as stage:
            finish(stage, model)
        assert "config.json" in contents(target)
