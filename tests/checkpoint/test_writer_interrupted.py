"""Runs that did not end: what stays of them, and what is made of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from hyocr_core.checkpoint.journal import Journal
from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.checkpoint.writer import StagedCheckpoint
from hyocr_core.errors import CalibrationError, OutputError, RunError
from tests.checkpoint.staging import (
    CONFIG,
    QUANTIZED,
    Nothing,
    add_parts,
    begin_journal,
    carried,
    contents,
    fail_after_the_journal,
    finish,
    interrupted,
    packed,
    write,
)


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
            pytest.raises(OutputError, match=r"cannot resume.*truncated.*--fresh"),
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
                with pytest.raises(RunError, match=r"No space left.*the same command again"):
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
            with pytest.raises(RunError, match=r"not empty.*the same command again"):
                finish(stage, model)
        assert list(target.iterdir()) == [target / "precious"]
        (target / "precious").unlink()
        with StagedCheckpoint.open(target, resume=True) as stage:
            finish(stage, model)
        assert "config.json" in contents(target)
