"""Who reads is found and checked without opening anything twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.evaluation.reading.choice import choose_backends
from hyocr_core.evaluation.reading.participants import gather
from hyocr_core.settings.eval_config import EvalConfig

pytestmark = pytest.mark.needs_methods


@pytest.mark.parametrize("backend", ["auto", "transformers"])
def test_headers_are_read_once_for_each_checkpoint(
    tiny: Path, noisy: Path, by_rtn: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    real = CheckpointReader.__init__

    def counted(self: CheckpointReader, folder: Path, *arguments: Any) -> None:
        opened.append(folder)
        real(self, folder, *arguments)

    monkeypatch.setattr(CheckpointReader, "__init__", counted)
    model = by_rtn if backend == "auto" else noisy
    config = EvalConfig(model=str(model), data="pages", baseline=str(tiny), backend=backend, rounded=backend == "auto")
    participants = gather(config, choose_backends(config))
    assert opened == [model, tiny]
    assert participants.decoding.max_new_tokens == 12
    assert [entry.runtime for entry in participants.entries.values()] == (
        ["dequant", "transformers", "dequant"] if backend == "auto" else ["transformers"] * 2
    )
