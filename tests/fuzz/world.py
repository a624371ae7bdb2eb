"""A folder with one of everything that a command reads: what fuzzing begins with, all of it sound."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file

from hyocr_core.checkpoint.shards import INDEX_NAME, SINGLE_NAME
from hyocr_core.cli.main import main
from hyocr_core.testing.jobs import StopAfterOneBlock
from hyocr_core.testing.tiny import write_checkpoint

QUANT = ("quant", "--model", "model", "--output", "new", "--device", "cpu")
RTN = (*QUANT, "--method", "rtn", "-o", "group_size=32")
READ = (*RTN, "--eval", "synthetic:2", "--max-new-tokens", "2")
GPTQ = (*QUANT, "--method", "gptq", "-o", "group_size=32", "--calib", "synthetic:2")
ANSWERS = (*GPTQ, "--answers", "generate", "--max-new-tokens", "2")
EVAL = ("eval", "model", "--data", "data.jsonl", "--max-new-tokens", "2", "--device", "cpu", "--keep-duplicates")
REMOTE = ("eval", "ocr", "--backend", "{url}", "--keep-duplicates", "--data", "data.jsonl")
"""`{url}` is the endpoint's."""

RUN: dict[str, Any] = {
    "model": "model",
    "output": "out",
    "method": "gptq",
    "options": {"group_size": 32, "ignore": ["*.down_proj"], "format": "compressed-tensors"},
    "overrides": {"*.o_proj": {"bits": 8}},
    "calib": "synthetic:2",
    "seed": 1,
    "num_samples": 2,
    "max_pixels": 65536,
    "observers": {"dump-stats": {"folder": "stats"}},
    "eval": "synthetic:2",
    "gate": {"cer": 0.5},
}
ANGELSLIM: dict[str, Any] = {
    "global": {"save_path": "out"},
    "model": {"name": "HunyuanVL", "model_path": "model", "torch_dtype": "auto", "device_map": "cpu"},
    "compression": {
        "name": "PTQ",
        "quantization": {
            "name": "int4_gptq",
            "bits": 4,
            "quant_method": {"weight": "per-group", "group_size": 128},
            "ignore_layers": ["lm_head"],
        },
    },
    "dataset": {"name": "MultiModalDataset", "data_path": "data.jsonl", "num_samples": 2, "batch_size": 1},
}
EVALUATION: dict[str, Any] = {
    "model": "model",
    "data": "data.jsonl",
    "num_samples": 1,
    "metrics": {"wer": {}},
    "max_new_tokens": 2,
    "gate": {"cer": 1},
    "baseline": "model",
}
SWEEP: dict[str, Any] = {
    "model": "model",
    "output": "swept",
    "eval": "synthetic:1",
    "runs": [{"method": "rtn", "options": {"group_size": 32}, "grid": {"bits": [4]}}],
    "run": {"max_new_tokens": 2},
}
CARD: dict[str, Any] = {
    "license": "other",
    "license_name": "x",
    "language": ["zh", "en"],
    "pipeline_tag": "image-to-text",
}
ROWS: list[dict[str, Any]] = [
    {"img_path": "page.png", "question": "Read.", "answer": "Invoice 7", "system_prompt": ""},
    {
        "messages": [
            {"role": "user", "content": [{"type": "image", "image": "page.jpg"}, {"type": "text", "text": "Read."}]},
            {"role": "assistant", "content": "Invoice 8"},
        ]
    },
]
MODELS = {"object": "list", "data": [{"id": "ocr", "object": "model", "root": "/models/ocr"}]}
COMPLETION = {
    "id": "x",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Invoice 7"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 55, "completion_tokens": 3, "total_tokens": 58},
}
PICTURES = ("png", "jpg", "webp", "bmp", "tiff", "gif")


def build(folder: Path) -> Path:
    """Make the world; return its folder."""
    write_checkpoint(folder / "model")
    _shard(folder / "model", folder / "sharded")
    _write_pages(folder)
    texts = {"run": RUN, "angelslim": ANGELSLIM, "eval": EVALUATION, "sweep": SWEEP}
    for name, document in texts.items():
        (folder / f"{name}.yaml").write_text(json.dumps(document, indent=1), encoding="utf-8")
    (folder / "model" / "README.md").write_text(f"---\n{json.dumps(CARD)}\n---\n# A model\n", encoding="utf-8")
    (folder / "served").mkdir()
    (folder / "served" / "models.json").write_text(json.dumps(MODELS), encoding="utf-8")
    (folder / "served" / "completion.json").write_text(json.dumps(COMPLETION), encoding="utf-8")
    with contextlib.chdir(folder), mock.patch.dict("os.environ", {"XDG_CACHE_HOME": str(folder / "cache")}):
        _quantize()
        _stop()
        _keep_pages(folder)
    return folder


def _shard(model: Path, folder: Path) -> None:
    shutil.copytree(model, folder)
    tensors = load_file(folder / SINGLE_NAME)
    (folder / SINGLE_NAME).unlink()
    half = len(tensors) // 2
    parts = {"a.safetensors": sorted(tensors)[:half], "b.safetensors": sorted(tensors)[half:]}
    for shard, names in parts.items():
        save_file({name: tensors[name] for name in names}, folder / shard, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: shard for shard, names in parts.items() for name in names}}
    (folder / INDEX_NAME).write_text(json.dumps(index), encoding="utf-8")


def _write_pages(folder: Path) -> None:
    (folder / "pages").mkdir()
    picture = Image.new("RGB", (64, 48), "white")
    picture.putpixel((5, 5), (1, 2, 3))
    for suffix in PICTURES:
        data = io.BytesIO()
        picture.save(data, {"jpg": "jpeg"}.get(suffix, suffix))
        (folder / "pages" / f"page.{suffix}").write_bytes(data.getvalue())
        (folder / f"page.{suffix}").write_bytes(data.getvalue())
    (folder / "pages" / "page.txt").write_text("Invoice 7", encoding="utf-8")
    picture.save(folder / "scan.pdf", "PDF")
    (folder / "data.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS), encoding="utf-8")


def _quantize() -> None:
    """Two checkpoints with a report, both evaluated."""
    for name, bits in {"int4": "bits=4", "int8": "bits=8"}.items():
        _hyocr(*READ, "-o", bits)
        Path("new").rename(name)


def _stop() -> None:
    """A run that was stopped after its first block, and before it the model's own answers."""
    with mock.patch("hyocr_core.terminal.progress_bar.TerminalProgress", _Stopping):
        assert CliRunner().invoke(main, [*ANSWERS, "--output", "out"]).exit_code == 130


class _Stopping(StopAfterOneBlock):
    def __init__(self, _console: object) -> None:
        super().__init__()

    def __enter__(self) -> _Stopping:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


def _keep_pages(folder: Path) -> None:
    """An evaluation that was stopped when all was read."""
    rmtree = shutil.rmtree

    def spare(path: Path, **options: Any) -> None:
        if not Path(path).is_relative_to("state"):
            rmtree(path, **options)

    with mock.patch("hyocr_core.evaluation.reading.kept.shutil.rmtree", spare):
        _hyocr(*EVAL, "--state", "state")


def _hyocr(*arguments: str) -> None:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.stderr
