"""The measured speed of a checkpoint, kept beside it. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from hyocr_core.checkpoint.durable import replacing, save_bytes
from hyocr_core.checkpoint.output_file import REPORT
from hyocr_core.contract.config import parse_config
from hyocr_core.errors import CheckpointError, ConfigError
from hyocr_core.evaluation.recorded.record_folder import recording
from hyocr_core.evaluation.scores.speeds import BENCH_SCHEMA, BenchResult
from hyocr_core.outside.json_text import read_object

BENCH = "bench.json"
"""In the folder `report` of a checkpoint: the newest measurement."""


def save_bench(folder: Path, result: BenchResult) -> None:
    """Keep a measurement in a checkpoint folder, in the place of an older one.

    Raises RunError when the folder cannot be written.
    """
    path = folder / REPORT / BENCH
    with recording(folder):
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as partial:
            save_bytes(partial, result.model_dump_json(indent=2).encode())


def load_bench(folder: Path) -> BenchResult | None:
    """The measurement that `save_bench` kept; None if there is none.

    Raises CheckpointError when it cannot be read or was written by a version of hyocr with another schema.
    """
    path = folder / REPORT / BENCH
    if not path.exists():
        return None
    data = read_object(path, CheckpointError)
    if data.get("schema_version") != BENCH_SCHEMA:
        raise CheckpointError(
            f"{path}: has schema {data.get('schema_version')!r}, this hyocr reads {BENCH_SCHEMA}; delete it and "
            "measure again"
        )
    try:
        return parse_config(BenchResult, data, str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
