"""Evidence of checkpoints that nobody quantized: every value is made up, from a seed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rapidfuzz.distance import Levenshtein

from hyocr_core.checkpoint.quant_report import (
    FILE_NAME,
    CalibrationRecord,
    LayerRecord,
    MethodRecord,
    ModelRecord,
    QuantReport,
)
from hyocr_core.evaluation.recorded.record_folder import pages_key
from hyocr_core.evaluation.scores.conclusion import conclude
from hyocr_core.evaluation.scores.result import BlockError, Comparison, EvalResult, LayerError, ModelScore, PageResult
from tests.decoding import decoding

KINDS = {
    "self_attn.q_proj": (2048, 1024),
    "self_attn.k_proj": (1024, 1024),
    "self_attn.v_proj": (1024, 1024),
    "self_attn.o_proj": (1024, 2048),
    "mlp.gate_proj": (3584, 1024),
    "mlp.up_proj": (3584, 1024),
    "mlp.down_proj": (1024, 3584),
}
PARTS = {"decoder": 830_000_000, "vision": 850_000_000, "embeddings": 247_000_000, "rest": 40_000}


def quant_report(**changes: Any) -> QuantReport:
    """A report of GPTQ on the decoder of the published shape, 24 blocks."""
    random = np.random.default_rng(1)
    layers = [
        LayerRecord(
            name=f"model.layers.{block}.{kind}",
            shape=shape,
            seconds=0.5,
            metrics={"output_error": 0.01 + 0.02 * random.random(), "hessian_condition": 10 ** random.uniform(2, 6)},
            degraded=None,
        )
        for block in range(24)
        for kind, shape in KINDS.items()
    ]
    values: dict[str, Any] = {
        "hyocr": "0.1.0",
        "method": MethodRecord(
            name="gptq",
            distribution="hyocr-plugin-gptq",
            version="0.1.0",
            config={"bits": 4, "group_size": 128, "format": "gptq", "sym": True},
        ),
        "model": ModelRecord(source="tencent/HunyuanOCR", revision="0123456789abcdef", sha256={"model": "ab"}),
        "calibration": CalibrationRecord(
            source="pages", seed=0, samples=128, tokens=131_072, failures={"scan-7.png": "is no image"}, sha256="cd"
        ),
        "ignored": tuple(f"vit.layers.{block}.mlp.dense_h_to_4h" for block in range(27)),
        "rescaled": (),
        "layers": tuple(layers),
        "output_sha256": {"model.safetensors": "ef"},
        "weight_bytes_before": sum(PARTS.values()),
        "weight_bytes_after": sum(PARTS.values()) - 615_000_000,
        "phases": {"calibrate": 300.0, "quantize": 141.0},
        "peak_rss_bytes": 3_000_000_000,
        "resumed_after_block": None,
        "environment": {"torch": "2.13.0+cpu", "device": "cpu"},
    }
    return QuantReport(**values | changes)


def page(name: str, reference: str, text: str, baseline: str) -> PageResult:
    errors, before = Levenshtein.distance(reference, text), Levenshtein.distance(reference, baseline)
    return PageResult(
        name=name,
        reference=reference,
        text=text,
        errors=errors,
        cer=errors / len(reference),
        wer=0.1,
        loop=False,
        baseline_text=baseline,
        baseline_errors=before,
        baseline_cer=before / len(reference),
        baseline_wer=0.0,
        baseline_loop=False,
        compared_tokens=10,
        agreeing_tokens=9,
        kl=0.01,
    )


def some_pages(count: int = 40, seed: int = 0) -> tuple[PageResult, ...]:
    """Invoices, read with a few errors."""
    random, made = np.random.default_rng(seed), []
    for index in range(count):
        numbers = random.integers(10**6, size=(4, 2))
        lines = [f"Invoice {number}  Total {total / 100:.2f} EUR" for number, total in numbers]
        reference = "\n".join(lines)
        wrong = list(reference)
        for place in random.choice(len(wrong), size=random.choice((0, 0, 1, 3)), replace=False):
            wrong[place] = str(random.choice(("", "8", "l", wrong[place] * 2)))
        made.append(page(f"invoice-{index:03d}.png", reference, "".join(wrong), reference.replace("9", "g", index % 2)))
    return tuple(made)


def score(cer: float, **changes: Any) -> ModelScore:
    values: dict[str, Any] = {
        "model": "/home/someone/secret/HunyuanOCR-int4",
        "revision": None,
        "runtime": "dequant",
        "weight_bytes": sum(PARTS.values()) - 615_000_000,
        "part_bytes": PARTS | {"decoder": 215_000_000},
        **dict.fromkeys(("cer", "page_cer"), cer),
        **dict.fromkeys(("wer", "page_wer"), 3 * cer),
        **{f"{name}_interval": (0.8 * cer, 1.25 * cer) for name in ("cer", "page_cer")},
        **{f"{name}_interval": (2.5 * cer, 3.4 * cer) for name in ("wer", "page_wer")},
        "edit_distance": cer,
        "exact_match": 0.6,
        "length_ratio": 1.001,
        "loop_rate": 0.025,
        "tokens": 4096,
        "cut_pages": 1,
        "seconds": 200.0,
        "pages_per_second": 0.2,
        "tokens_per_second": 20.5,
        "first_token_seconds": 1.2,
    }
    return ModelScore(**values | changes)


def evaluation(pages: tuple[PageResult, ...] | None = None, **changes: Any) -> EvalResult:
    """An evaluation with a baseline, in which block 5 of the decoder is damaged."""
    random, pages = np.random.default_rng(2), some_pages() if pages is None else pages
    names = [f"model.layers.{block}" for block in range(24)]
    blocks = [BlockError(name=name, error=0.02 + 0.01 * random.random(), drift=0.05) for name in names]
    blocks[5] = BlockError(name=names[5], error=0.61, drift=0.2)
    layers = [
        LayerError(
            name=f"{name}.{kind}",
            shape=shape,
            bits=4.25,
            weight_error=0.09,
            output_error=0.7 if (name, kind) == (names[5], "mlp.down_proj") else 0.03 * (1 + random.random()),
            weight_max=0.2 + random.random(),
            input_max=10 ** random.uniform(0, 2.5),
        )
        for name in names
        for kind, shape in KINDS.items()
    ]
    near: dict[str, Any] = {
        "identical_pages": 30,
        "length_ratio": 1.0,
        "tokens": 4096,
        "agreement": 0.993,
        "kl": 0.0041,
    }
    values: dict[str, Any] = {
        "hyocr": "0.1.0",
        "data": "/home/someone/secret/heldout.jsonl",
        "seed": 0,
        "decoding": decoding(max_new_tokens=2048, repetition_penalty=1.08, stop_loops=True),
        "reference_characters": 4000,
        "reference_words": 800,
        "model": score(0.0123),
        "baseline": score(
            0.0104,
            model="tencent/HunyuanOCR",
            revision="0123",
            runtime="transformers",
            part_bytes=PARTS,
            weight_bytes=sum(PARTS.values()),
        ),
        "comparison": Comparison(cer_difference=0.0019, cer_difference_interval=(0.0004, 0.0036), **near),
        "rounded": score(0.0231),
        "rounded_comparison": Comparison(cer_difference=0.0127, cer_difference_interval=(0.009, 0.0168), **near),
        "blocks": tuple(blocks),
        "layers": tuple(layers),
        "peak_rss_bytes": 4_000_000_000,
        "environment": {"torch": "2.13.0+cpu", "device": "cpu"},
        "failures": {"broken.png": "/home/someone/secret/broken.png: is no image"},
        "pages": pages,
    }
    result = EvalResult(**values | changes)
    return result if "verdict" in changes else result.model_copy(update={"verdict": conclude(result)})


def checkpoint(
    folder: Path,
    report: QuantReport | None = None,
    result: EvalResult | None = None,
    commands: dict[str, str] | None = None,
) -> Path:
    """Write the evidence into a folder, with an image for every page; nothing of a checkpoint is there beside it."""
    (folder / "report").mkdir(parents=True)
    (folder / FILE_NAME).write_text((report or quant_report()).model_dump_json(), encoding="utf-8")
    if commands is not None:
        known = {"eval": "eval" if result is None else f"eval {pages_key(result)}"}
        noted = {known.get(name, name): command for name, command in commands.items()}
        (folder / "report" / "commands.json").write_text(json.dumps(noted), encoding="utf-8")
    if result is not None:
        record(folder, result, result.model_dump_json())
    return folder


def record(folder: Path, result: EvalResult, text: str) -> Path:
    """Write an evaluation as this text, and the images of its pages; return its file."""
    place = folder / "report" / "evaluations" / pages_key(result)
    images = place / f"pages-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    images.mkdir(parents=True)
    (place / "eval.json").write_text(text, encoding="utf-8")
    for index in range(len(result.pages)):
        Image.new("RGB", (640, 200), (250, 250, 240 - index % 40)).save(images / f"{index:05d}.webp")
    return place / "eval.json"


def recorded(folder: Path) -> Path:
    """The file of the only evaluation that is recorded in a folder."""
    (path,) = (folder / "report" / "evaluations").glob("*/eval.json")
    return path


def images(folder: Path) -> Path:
    """The images that belong to it."""
    newest = recorded(folder)
    return newest.parent / f"pages-{hashlib.sha256(newest.read_bytes()).hexdigest()[:16]}"
