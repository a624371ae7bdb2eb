"""A small checkpoint folder with every kind of file one has, and an own reading of the safetensors format."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

Raw = dict[str, tuple[str, list[int], bytes]]


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "model.embed_tokens.weight": normal(40, 8).bfloat16(),
        "model.layers.0.q_proj.weight": normal(16, 8).bfloat16(),
        "model.layers.0.norm.weight": normal(8).bfloat16(),
        "model.layers.10.q_proj.weight": normal(16, 8).bfloat16(),
        "vit.position": torch.arange(7),
        "vit.scale": torch.tensor(2.5),
        "vit.half": normal(3, 5).half(),
    }


@pytest.fixture
def write_single(tmp_path: Path) -> Callable[[Mapping[str, Tensor]], Path]:
    """Writes a checkpoint with one weight file."""

    def write(tensors: Mapping[str, Tensor]) -> Path:
        folder = _with_side_files(tmp_path / "model")
        save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return write


@pytest.fixture
def write_sharded(tmp_path: Path) -> Callable[..., Path]:
    """Writes a checkpoint of several weight files (file -> tensors), with the true index or the one given."""

    def write(shards: Mapping[str, Mapping[str, Tensor]], weight_map: Mapping[str, Any] | None = None) -> Path:
        folder = _with_side_files(tmp_path / "model")
        for shard, tensors in shards.items():
            save_file(dict(tensors), folder / shard, metadata={"format": "pt"})
        if weight_map is None:
            weight_map = {name: shard for shard, tensors in shards.items() for name in tensors}
        index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        return folder

    return write


@pytest.fixture
def raw() -> Callable[[Path], Raw]:
    """Reads a safetensors file as the format's specification says, without the library."""

    def read(path: Path) -> Raw:
        content = path.read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + size])
        assert header.pop("__metadata__") == {"format": "pt"}
        data = content[8 + size :]
        return {
            name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
            for name, entry in header.items()
        }

    return read


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


def _with_side_files(folder: Path) -> Path:
    folder.mkdir()
    config = {"model_type": "hunyuan_vl", "architectures": ["A"], "rope_theta": 10000.0, "eps": 1e-05, "name": "混元"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer.json").write_text('{"byte for byte":   1}', encoding="utf-8")
    (folder / "chat_template.jinja").write_bytes(b"\xef\xbb\xbf{{ messages }}\r\n")
    (folder / "README.md").write_text("of the source", encoding="utf-8")
    (folder / "hyocr_report.json").write_text("{}", encoding="utf-8")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    (folder / "adapter.safetensors").write_bytes(b"x")
    (folder / "model.gguf").write_bytes(b"x")
    (folder / ".gitattributes").write_text("x", encoding="utf-8")
    (folder / "v1.0").mkdir()
    (folder / "v1.0" / "tokenizer.json").write_text("older", encoding="utf-8")
    return folder
