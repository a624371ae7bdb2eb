"""The reader: what it gives, and one line for every way in which a checkpoint can be broken."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hyocr_core.checkpoint.reader import CheckpointReader, TensorInfo
from hyocr_core.errors import CheckpointError

WriteSingle = Callable[[Mapping[str, Tensor]], Path]
WriteSharded = Callable[..., Path]
A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def complaint(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        CheckpointReader(folder)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def two() -> dict[str, dict[str, Tensor]]:
    return {A: {"a": torch.ones(4), "b": torch.zeros(2, 3)}, B: {"c": torch.full((5,), 7)}}


class TestWhatItGives:
    def test_single_file(self, write_single: WriteSingle, tensors: dict[str, Tensor]) -> None:
        reader = CheckpointReader(write_single(tensors))
        assert reader.config["name"] == "混元"
        assert dict(reader.tensors) == {
            name: TensorInfo(tuple(t.shape), t.dtype, t.numel() * t.element_size(), "model.safetensors")
            for name, t in tensors.items()
        }

    def test_shards(self, write_sharded: WriteSharded, two: dict[str, dict[str, Tensor]]) -> None:
        reader = CheckpointReader(write_sharded(two))
        assert {name: info.shard for name, info in reader.tensors.items()} == {"a": A, "b": A, "c": B}

    def test_single_file_goes_before_an_index_as_in_transformers(
        self, write_sharded: WriteSharded, two: dict[str, dict[str, Tensor]]
    ) -> None:
        folder = write_sharded(two)
        save_file({"only": torch.ones(1)}, folder / "model.safetensors")
        assert list(CheckpointReader(folder).tensors) == ["only"]

    def test_read_keeps_values_and_the_order_asked_for(
        self, write_sharded: WriteSharded, two: dict[str, dict[str, Tensor]]
    ) -> None:
        read = CheckpointReader(write_sharded(two)).read(iter(["c", "a", "b"]))
        assert list(read) == ["c", "a", "b"]
        for name, tensor in (two[A] | two[B]).items():
            assert read[name].dtype == tensor.dtype
            assert torch.equal(read[name], tensor)

    def test_read_holds_no_file(self, write_single: WriteSingle, tensors: dict[str, Tensor]) -> None:
        folder = write_single(tensors)
        read = CheckpointReader(folder).read(tensors)
        assert str(folder) not in Path("/proc/self/maps").read_text(encoding="utf-8")
        assert all(str(folder) not in str(link.resolve()) for link in Path("/proc/self/fd").iterdir())
        (folder / "model.safetensors").write_bytes(b"")
        assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())

    def test_a_hub_snapshot_of_links_to_blobs(
        self, write_single: WriteSingle, tensors: dict[str, Tensor], tmp_path: Path
    ) -> None:
        folder = write_single(tensors)
        blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
        blobs.mkdir()
        snapshot.mkdir(parents=True)
        for number, path in enumerate(path for path in folder.iterdir() if path.is_file()):
            path.rename(blobs / str(number))
            (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
        reader = CheckpointReader(snapshot)
        assert torch.equal(reader.read(["vit.position"])["vit.position"], tensors["vit.position"])
        assert [path.name for path in reader.side_files()] == ["chat_template.jinja", "tokenizer.json"]

    def test_side_files(self, write_single: WriteSingle, tensors: dict[str, Tensor]) -> None:
        folder = write_single(tensors)
        assert CheckpointReader(folder).side_files() == [folder / "chat_template.jinja", folder / "tokenizer.json"]

    def test_digests(self, write_sharded: WriteSharded, two: dict[str, dict[str, Tensor]]) -> None:
        folder = write_sharded(two)
        names = ["config.json", "model.safetensors.index.json", A, B, "chat_template.jinja", "tokenizer.json"]
        expected = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
        assert CheckpointReader(folder).digests() == expected


class TestFolder:
    def test_missing(self, tmp_path: Path) -> None:
        assert str(tmp_path / "nowhere") in complaint(tmp_path / "nowhere")

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert "is not a folder" in complaint(tmp_path / "file")

    def test_no_weights(self, write_single: WriteSingle) -> None:
        folder = write_single({})
        (folder / "model.safetensors").unlink()
        assert "model.safetensors" in complaint(folder)

    def test_no_config(self, write_single: WriteSingle) -> None:
        folder = write_single({})
        (folder / "config.json").unlink()
        assert "config.json is missing" in complaint(folder)

    @pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff\xfe{}", b"[" * 100_000])
    def test_config_is_no_json_object(self, write_single: WriteSingle, content: bytes) -> None:
        folder = write_single({})
        (folder / "config.json").write_bytes(content)
        assert "config.json" in complaint(folder)

    def test_a_link_to_a_blob_that_is_gone(self, write_single: WriteSingle) -> None:
        folder = write_single({})
        (folder / "merges.txt").symlink_to("../blobs/gone")
        with pytest.raises(CheckpointError, match=r"merges\.txt"):
            CheckpointReader(folder).side_files()

    @pytest.mark.parametrize("there", [True, False])
    def test_a_link_out_of_the_folder(self, write_single: WriteSingle, tmp_path: Path, there: bool) -> None:
        """Not to be copied, whether it leads out at once or by way of the hub's cache."""
        folder, blobs = write_single({}), tmp_path / "blobs"
        blobs.mkdir()
        (tmp_path / "secret").write_text("a key")
        (blobs / "0").symlink_to("../secret")
        (folder / "merges.txt").symlink_to("../secret" if there else "../blobs/0")
        with pytest.raises(CheckpointError, match=r"merges\.txt is a link to .*secret, outside of the checkpoint"):
            CheckpointReader(folder).side_files()


class TestShards:
    @pytest.mark.parametrize("keep", [0, 7, 8, 60, -1])
    def test_truncated(self, write_sharded: WriteSharded, two: dict[str, dict[str, Tensor]], keep: int) -> None:
        folder = write_sharded(two)
        (folder / B).write_bytes((folder / B).read_bytes()[:keep])
        message = complaint(folder)
        assert str(folder / B) in message
        assert "truncated" in message

    def test_longer_than_its_header_says(self, write_single: WriteSingle, tensors: dict[str, Tensor]) -> None:
        folder = write_single(tensors)
        with (folder / "model.safetensors").open("ab") as file:
            file.write(b"more")
        assert "model.safetensors is damaged" in complaint(folder)

    @pytest.mark.parametrize("offsets", [[0, 4], [0, 12], [4, 12], [0, 1 << 60], [8, 0]])
    def test_offsets_that_do_not_fit_the_shape(self, write_single: WriteSingle, offsets: list[int]) -> None:
        folder = write_single({})
        header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": offsets}}).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
        assert "model.safetensors is damaged" in complaint(folder)

    def test_git_lfs_pointer(self, write_single: WriteSingle) -> None:
        folder = write_single({})
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
        (folder / "model.safetensors").write_text(pointer, encoding="utf-8")
        assert "git lfs pull" in complaint(folder)

    def test_missing(self, write_sharded: WriteSharded, two: dict[str, dict[str, Tensor]]) -> None:
        folder = write_sharded(two)
        (folder / B).unlink()
        assert f"{B} is missing" in complaint(folder)

    def test_tensor_in_two_shards(self, write_sharded: WriteSharded, two: dict[str, dict[str, Tensor]]) -> None:
        two[B]["a"] = torch.ones(4)
        message = complaint(write_sharded(two, {"a": A, "b": A, "c": B}))
        assert "tensor a is in both" in message
        assert A in message
        assert B in message


class TestIndex:
    @pytest.mark.parametrize(
        "shard", ["../model.safetensors", "/etc/x.safetensors", "v1.0/x.safetensors", "a\\b.safetensors"]
    )
    def test_entry_outside_the_folder(
        self, write_sharded: WriteSharded, two: dict[str, dict[str, Tensor]], shard: str
    ) -> None:
        folder = write_sharded(two, {"a": A, "b": A, "c": shard})
        # There is a sound file outside: only the name is at fault.
        save_file(two[B], folder.parent / "model.safetensors")
        message = complaint(folder)
        assert "entry of c" in message
        assert "a file of this folder" in message

    @pytest.mark.parametrize("shard", [None, 3, "", "..", "config.json", ["x.safetensors"]])
    def test_entry_that_is_no_safetensors_file(
        self, write_sharded: WriteSharded, two: dict[str, dict[str, Tensor]], shard: Any
    ) -> None:
        assert "entry of c" in complaint(write_sharded(two, {"a": A, "b": A, "c": shard}))

    def test_entry_missing_from_its_shard(self, write_sharded: WriteSharded, two: dict[str, dict[str, Tensor]]) -> None:
        message = complaint(write_sharded(two, {"a": A, "b": A, "c": B, "d": B}))
        assert "tensor d" in message
        assert B in message

    def test_entry_in_the_wrong_shard(self, write_sharded: WriteSharded, two: dict[str, dict[str, Tensor]]) -> None:
        assert "tensor b" in complaint(write_sharded(two, {"a": A, "b": B, "c": B}))

    def test_tensor_that_is_not_named(self, write_sharded: WriteSharded, two: dict[str, dict[str, Tensor]]) -> None:
        message = complaint(write_sharded(two, {"a": A, "c": B}))
        assert "tensor b" in message
        assert A in message

    def test_tensor_named_twice(self, write_sharded: WriteSharded, two: dict[str, dict[str, Tensor]]) -> None:
        folder = write_sharded(two)
        index = f'{{"weight_map": {{"a": "{A}", "b": "{A}", "c": "{B}", "a": "{B}"}}}}'
        (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
        assert "names a twice" in complaint(folder)

    @pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": []}'])
    def test_without_a_map(self, write_sharded: WriteSharded, two: dict[str, dict[str, Tensor]], index: str) -> None:
        folder = write_sharded(two)
        (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
        assert "model.safetensors.index.json" in complaint(folder)


class TestTensors:
    def test_missing(self, write_single: WriteSingle, tensors: dict[str, Tensor]) -> None:
        with pytest.raises(CheckpointError, match=r"tensor model\.norm is missing"):
            CheckpointReader(write_single(tensors)).read(["vit.scale", "model.norm"])

    def test_finite(self, write_single: WriteSingle, tensors: dict[str, Tensor]) -> None:
        tensors["largest"] = torch.tensor([torch.finfo(torch.float16).max], dtype=torch.float16)
        tensors["empty"] = torch.empty(0, 4)
        tensors["fp8"] = torch.tensor([448.0, -448.0]).to(torch.float8_e4m3fn)
        seen: list[str] = []
        reader = CheckpointReader(write_single(tensors))
        reader.check_finite(reader.tensors, seen.append)
        assert sorted(seen) == sorted(tensors)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.float8_e5m2])
    def test_not_finite(
        self, write_single: WriteSingle, tensors: dict[str, Tensor], dtype: torch.dtype, value: float
    ) -> None:
        bad = torch.ones(3, 5)
        bad[1, 2] = value
        reader = CheckpointReader(write_single(tensors | {"bad.weight": bad.to(dtype)}))
        with pytest.raises(CheckpointError, match=r"model\.safetensors: tensor bad\.weight holds NaN or infinite"):
            reader.check_finite(reader.tensors)
        reader.check_finite(tensors)
