"""A checkpoint of an evaluation whose files are here, opened once and only as far as it is needed."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.checkpoint.resolve import ResolvedModel
from hyocr_core.contract.decoding import Decoding
from hyocr_core.models.dequantized import DequantizedCheckpoint
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.load import unpacked
from hyocr_core.models.own_decoding import own_decoding
from hyocr_core.pages.processor import load_processor


class Opened:
    """What is known of the files. Every property raises CheckpointError for what cannot be read."""

    def __init__(self, source: ResolvedModel, max_pixels: int | None = None) -> None:
        """max_pixels: most that its processor is to make of a page."""
        self.source = source
        self._max_pixels = max_pixels

    @property
    def folder(self) -> Path:
        return self.source.folder

    @cached_property
    def reader(self) -> CheckpointReader:
        return CheckpointReader(self.folder)

    @property
    def quantized(self) -> bool:
        return bool(self.reader.config.get("quantization_config"))

    @cached_property
    def weights(self) -> CheckpointReader | DequantizedCheckpoint:
        """Full-precision tensors; see `unpacked`."""
        return unpacked(self.reader)

    @cached_property
    def processor(self) -> Any:
        return load_processor(self.folder, self._max_pixels)

    @cached_property
    def shape(self) -> HunYuanVL:
        """The model without its weights."""
        return HunYuanVL(self.weights, torch.device("meta"))

    @cached_property
    def decoding(self) -> Decoding:
        """How it is meant to write."""
        return own_decoding(self.folder, self.shape.config.text_config, self.processor.tokenizer)
