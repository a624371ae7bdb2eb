"""What the writer refuses to begin, and where a checkpoint goes that was not accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyocr_core.checkpoint.writer import StagedCheckpoint, refuse_unaccepted
from hyocr_core.errors import OutputError, RunError
from tests.checkpoint.staging import (
    QUANTIZED,
    add_parts,
    begin_journal,
    contents,
    finish,
    interrupted,
    write,
)


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
        with pytest.raises(
            OutputError, match=rf"{stage_folder}: continue it with --resume, or start again with --fresh"
        ):
            StagedCheckpoint.open(target, resume=False)
        with StagedCheckpoint.open(target, resume=True) as stage:
            assert stage.read_part(QUANTIZED[0])

    def test_what_it_has_done_goes_when_asked_to_start_again(self, target: Path) -> None:
        interrupted(target)
        with StagedCheckpoint.open(target, resume=False, fresh=True) as stage:
            assert sorted(path.name for path in stage.folder.iterdir()) == ["lock", "parts"]
            assert not list((stage.folder / "parts").iterdir())
            with pytest.raises(OutputError, match="another run is writing"):
                StagedCheckpoint.open(target, resume=False, fresh=True)

    def test_a_finished_checkpoint_is_never_deleted_to_start_again(self, model: Path, target: Path) -> None:
        write(model, target)
        before = sorted((path, path.read_bytes()) for path in target.iterdir())
        with pytest.raises(OutputError, match="is not empty"):
            StagedCheckpoint.open(target, resume=False, fresh=True)
        assert sorted((path, path.read_bytes()) for path in target.iterdir()) == before

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
            with pytest.raises(RunError, match=r"out\.unaccepted.*the same command again"):
                finish(stage, model, accepted=False)
        assert (old / "precious" if folder else old).read_text() == "precious"
        StagedCheckpoint.open(target, resume=True).close()
