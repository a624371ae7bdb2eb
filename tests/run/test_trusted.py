"""Files that were damaged between the kill and the resumption: made anew, or refused, but never gone on from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hyocr_core.checkpoint.reader import digest
from hyocr_core.checkpoint.sealed import seal, unseal
from hyocr_core.checkpoint.writer import stage_folder
from hyocr_core.errors import HyocrError, OutputError, RunError
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.plugin.method import Method
from hyocr_core.progress import Silent
from hyocr_core.run import publish, quantize
from hyocr_core.run.own_answers import own_answers
from hyocr_core.run.quantize import quantize as run_quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.testing.jobs import file_digests
from hyocr_core.testing.tiny import write_checkpoint
from tests.run.test_prepare_model import FOLD, install

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

FILES = (
    "parts/block-00000.safetensors",
    "parts/block-00001.safetensors",
    "parts/vision-00000.safetensors",
    "parts/vision-00001.safetensors",
    "patches/00001.safetensors",
    "inputs/00000.safetensors",
    "reference/00001.safetensors",
)
"""One of each kind that a run of GPTQ through both towers, on both paths, keeps."""


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class StoppedError(Exception):
    """Ends a run before it publishes."""


def flip(path: Path) -> None:
    """One bit of the last tensor."""
    content = bytearray(path.read_bytes())
    content[-9] ^= 16
    path.write_bytes(content)


def zero(path: Path) -> None:
    """A block of a disk that was never written."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def swap(path: Path) -> None:
    """A sound file in the place of another."""
    other = next(other for other in sorted(path.parent.iterdir()) if other.name != path.name)
    shutil.copyfile(other, path)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a flipped bit": flip,
    "a zeroed block": zero,
    "a truncated file": truncate,
    "a deleted file": Path.unlink,
    "another's content": swap,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    write_checkpoint(folder)
    return folder


def stop(*_arguments: Any, **_more: Any) -> None:
    raise StoppedError


def settings(model: Path, output: Path, **changes: Any) -> RunConfig:
    given = {"model": str(model), "output": output, "method": "gptq", "calib": "synthetic:2", "num_samples": 2}
    options = {"quant_vit": True, "target_strength": 0.5, "group_size": 32}
    return RunConfig.model_validate({**given, "device": "cpu", "options": options, **changes})


@pytest.fixture(scope="module")
def world(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the result of a run, `out`, and the stage of one that was stopped before it published."""
    folder = tmp_path_factory.mktemp("world")
    run_quantize(settings(model, folder / "out"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "publish", stop)
        with pytest.raises(StoppedError):
            run_quantize(settings(model, folder / "stopped"))
    return folder


@pytest.fixture
def begun(model: Path, world: Path, tmp_path: Path) -> RunConfig:
    """An unfinished run of one's own: all of it is done but the checkpoint."""
    shutil.copytree(stage_folder(world / "stopped"), stage_folder(tmp_path / "out"))
    return settings(model, tmp_path / "out")


@pytest.mark.needs_methods
class TestStage:
    def test_every_kind_of_file_is_tried(self, begun: RunConfig) -> None:
        folder = stage_folder(begun.output)
        found = {path.relative_to(folder).parent for path in folder.rglob("*.safetensors")}
        assert found == {Path(name).parent for name in FILES}
        assert all((folder / name).is_file() for name in FILES)

    @pytest.mark.parametrize(
        ("damage", "name"),
        [*(("a flipped bit", name) for name in FILES), *product(list(DAMAGES)[1:], (FILES[1], FILES[5]))],
    )
    def test_a_damaged_file_is_made_anew_to_the_same_bytes(
        self, damage: str, name: str, begun: RunConfig, world: Path
    ) -> None:
        DAMAGES[damage](stage_folder(begun.output) / name)
        said = Said()
        run_quantize(begun, resume=True, progress=said)
        assert file_digests(begun.output) == file_digests(world / "out")
        state = "gone" if damage == "a deleted file" else "damaged"
        assert [line for line in said.lines if "anew" in line] == [f"{name} is {state}: it is made anew"]

    def test_several_at_once(self, begun: RunConfig, world: Path) -> None:
        for name in FILES:
            flip(stage_folder(begun.output) / name)
        run_quantize(begun, resume=True)
        assert file_digests(begun.output) == file_digests(world / "out")

    def test_what_is_sound_is_not_made_again(self, begun: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        said = Said()
        monkeypatch.setattr(Method, "quantize_group", lambda *_: pytest.fail("a finished block is quantized again"))
        monkeypatch.setattr(HunYuanVL, "embed", lambda *_: pytest.fail("a sample is embedded again"))
        run_quantize(begun, resume=True, progress=said)
        assert not any("anew" in line for line in said.lines)

    def test_a_damaged_journal_is_refused_in_one_line(self, begun: RunConfig) -> None:
        path = stage_folder(begun.output) / "journal.json"
        path.write_bytes(path.read_bytes().replace(b'"bytes": ', b'"bytes": 1', 1))
        with pytest.raises(OutputError, match=r"journal\.json is unreadable; --fresh starts again, without"):
            run_quantize(begun, resume=True)

    def test_a_block_that_comes_out_otherwise_is_refused(self, begun: RunConfig) -> None:
        """As from a machine that computes otherwise: the blocks after it were made for what it was."""
        path = stage_folder(begun.output) / "journal.json"
        journal = unseal(path.read_bytes())
        journal["record"]["blocks"]["block-00000"]["sha256"] = "0" * 64
        path.write_bytes(seal(journal))
        with pytest.raises(RunError, match=r"block-00000\.safetensors was lost, and made anew it is another: .*anew$"):
            run_quantize(begun, resume=True)
        assert not begun.output.exists()

    def test_a_part_that_is_damaged_before_it_is_published(
        self, begun: RunConfig, world: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(quantize, "publish", after(flip, stage_folder(begun.output) / FILES[0], publish.publish))
            with pytest.raises(
                RunError, match=r"block-00000\.safetensors was damaged .*: the same command makes it anew$"
            ):
                run_quantize(begun, resume=True)
        assert not begun.output.exists()
        run_quantize(begun, resume=True)
        assert file_digests(begun.output) == file_digests(world / "out")


def after(damage: Callable[[Path], None], path: Path, call: Callable[..., Any]) -> Callable[..., Any]:
    """Damage a file, then do what was to be done."""

    def damaged(*arguments: Any, **more: Any) -> Any:
        damage(path)
        return call(*arguments, **more)

    return damaged


def test_damaged_tensors_of_a_methods_own_are_asked_for_again(
    plugins: PluginFolder, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYOCR_TEST_LOG", str(tmp_path / "log"))
    install(plugins, "folds", FOLD)
    given = {"method": "folds", "options": {"quant_vit": True}}
    run_quantize(settings(model, tmp_path / "straight" / "out", **given))
    run = settings(model, tmp_path / "out", **given)
    with monkeypatch.context() as patch:
        patch.setattr(quantize, "publish", stop)
        with pytest.raises(StoppedError):
            run_quantize(run)
    flip(stage_folder(run.output) / "parts/prepared.safetensors")
    said = Said()
    run_quantize(run, resume=True, progress=said)
    assert "parts/prepared.safetensors is damaged: it is made anew" in said.lines
    assert file_digests(run.output) == file_digests(tmp_path / "straight" / "out")


@pytest.fixture
def own_model(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "model"))


def other_weights(model: Path) -> None:
    """Put a file with other weights in the place of the checkpoint's, as a download does."""
    path = model / "model.safetensors"
    shutil.copyfile(path, model / ".new")
    flip(model / ".new")
    (model / ".new").replace(path)


def when(method: str, count: int, act: Callable[[], object], patch: pytest.MonkeyPatch) -> None:
    """Do something before a hook of the method is called for the time `count`, from zero."""
    call, calls = getattr(Method, method), iter(range(1000))

    def watched(*arguments: Any) -> Any:
        if next(calls) == count:
            act()
        return call(*arguments)

    patch.setattr(Method, method, watched)


@pytest.mark.needs_methods
class TestSources:
    """Something of what a run reads is replaced while it goes on."""

    @pytest.fixture
    def run(self, own_model: Path, tmp_path: Path) -> RunConfig:
        return settings(own_model, tmp_path / "out", options={"group_size": 32})

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"])
    def test_a_file_of_the_model(
        self, name: str, run: RunConfig, own_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, before = own_model / name, (own_model / name).read_bytes()
        with monkeypatch.context() as patch:
            when("pack_exactly", 0, lambda: path.write_bytes(before + b"\n"), patch)
            with pytest.raises(RunError) as caught:
                run_quantize(run)
        assert str(caught.value).startswith(f"{path} was replaced while the run was going on: ")
        assert caught.value.exit_code == 1
        assert not run.output.exists()
        path.write_bytes(before)
        run_quantize(run, resume=True)
        run_quantize(settings(own_model, tmp_path / "again" / "out", options={"group_size": 32}))
        assert file_digests(run.output) == file_digests(tmp_path / "again" / "out")

    def test_weights_between_two_blocks_are_never_mixed(
        self, run: RunConfig, own_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Found when the block that was read from them is done, and not noted as done."""
        when("pack_exactly", 7, lambda: other_weights(own_model), monkeypatch)
        with pytest.raises(RunError, match=r"model\.safetensors was replaced"):
            run_quantize(run)
        journal = unseal((stage_folder(run.output) / "journal.json").read_bytes())
        assert list(journal["record"]["blocks"]) == ["block-00000"]
        with pytest.raises(OutputError, match=r"cannot resume.*model\.model\.safetensors"):
            run_quantize(run, resume=True)

    def test_a_file_that_was_only_touched_is_let_be(
        self, run: RunConfig, own_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        when("pack_exactly", 0, (own_model / "model.safetensors").touch, monkeypatch)
        run_quantize(run)
        assert run.output.is_dir()

    def test_a_disk_that_gives_other_bytes_ends_the_run_for_good(
        self, run: RunConfig, own_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody has written to the file, so that nobody can say which blocks were made of what."""
        path = own_model / "model.safetensors"
        monkeypatch.setattr(
            "hyocr_core.checkpoint.unchanged._digest", lambda asked: "0" * 64 if asked == path else digest(asked)
        )
        with pytest.raises(RunError, match=rf"^{path} no longer holds what it held .*: what was made of it is deleted"):
            run_quantize(run)
        assert not run.output.exists()
        assert not stage_folder(run.output).exists()

    @pytest.fixture
    def scans(self, tmp_path: Path) -> Path:
        from tests.tiny import page

        folder = tmp_path / "scans"
        folder.mkdir()
        for index in range(2):
            page(index).open_image().save(folder / f"{index}.png")
        return folder

    @pytest.mark.parametrize("quant_vit", [False, True])
    def test_a_calibration_page(
        self, quant_vit: bool, own_model: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also between the two times that a quantized vision tower has it read."""
        options = {"group_size": 32, "quant_vit": quant_vit}
        run = settings(own_model, tmp_path / "out", calib=str(scans), options=options)
        when("pack_exactly", 0, lambda: shutil.copyfile(scans / "0.png", scans / "1.png"), monkeypatch)
        with pytest.raises(HyocrError) as caught:
            run_quantize(run)
        assert str(caught.value).startswith("the calibration sample 1.png has changed since the run began: put back")
        assert caught.value.exit_code == 1
        assert not run.output.exists()

    def test_a_calibration_page_after_it_was_answered(
        self, own_model: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        more = {"answers": "generate", "max_new_tokens": 4, "options": {"group_size": 32}}
        run = settings(own_model, tmp_path / "out", calib=str(scans), **more)

        def replacing(*arguments: Any) -> Any:
            answered = own_answers(*arguments)
            shutil.copyfile(scans / "0.png", scans / "1.png")
            return answered

        monkeypatch.setattr(quantize, "own_answers", replacing)
        with pytest.raises(RunError, match=r"^the calibration sample 1\.png has changed since the run began: put back"):
            run_quantize(run)

    def test_a_calibration_page_that_is_gone_is_not_needed_any_more(
        self, own_model: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = settings(own_model, tmp_path / "out", calib=str(scans), options={"group_size": 32})
        when("pack_exactly", 0, (scans / "1.png").unlink, monkeypatch)
        report = run_quantize(run)
        assert report.calibration is not None
        assert report.calibration.samples == 2

    def test_a_page_of_the_evaluation(
        self, own_model: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One of those that are too many to be kept in memory."""
        monkeypatch.setattr("hyocr_core.pages.checked.KEPT_PATCHES", 0)
        for index in range(2):
            (scans / f"{index}.txt").write_text("abc")
        run = settings(own_model, tmp_path / "out", eval=str(scans), options={"group_size": 32}, max_new_tokens=4)
        when("pack_exactly", 0, lambda: shutil.copyfile(scans / "0.png", scans / "1.png"), monkeypatch)
        with pytest.raises(RunError, match=r"1\.png: the page has changed since it was checked"):
            run_quantize(run)
        assert not run.output.exists()
