"""The model card of a quantized checkpoint: what it is made from and how, and how to serve it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from hyocr_core.checkpoint.durable import replacing, save_bytes, writing
from hyocr_core.checkpoint.hub_name import MODELSCOPE, page_of
from hyocr_core.checkpoint.quant_report import FILE_NAME as REPORT_NAME
from hyocr_core.checkpoint.quant_report import (
    EvaluationRecord,
    GateRecord,
    MethodRecord,
    QuantReport,
    ScoreRecord,
    read_report,
)
from hyocr_core.contract.backend import Forward
from hyocr_core.evaluation.scores.gate import failures
from hyocr_core.evaluation.scores.numbers import (
    RTN,
    agreed,
    apart,
    measured,
    number,
    percent,
    points,
    signed_span,
    size,
    span,
)
from hyocr_core.formats import TRANSFORMERS
from hyocr_core.formats.runtimes import Answer
from hyocr_core.models.known_formats import known_formats, known_runtimes
from hyocr_core.outside.aliases import check_aliases
from hyocr_core.outside.regular import read_text
from hyocr_core.report.example_requests import with_curl, with_openai
from hyocr_core.report.kinds import kinds_of
from hyocr_core.report.text import told
from hyocr_core.shown import code, markdown, message, visible
from hyocr_core.wording import listed, phrase, sentences, speaking, tr

FILE_NAME = "README.md"
TEMPLATE = Path(__file__).with_name("card.md.j2")
CARRIED = ("license", "license_name", "license_link", "language", "pipeline_tag")
"""What the card of the base model says of every copy of it."""

ACCURACY = phrase("Accuracy")
"""The heading of what an evaluation found."""

RUNTIMES = {
    "transformers": "Transformers",
    "dequant": phrase("Transformers on the unpacked weights, quantized activations emulated"),
    "vllm": "vLLM",
    "endpoint": phrase("a server"),
}

OF_FORWARDS: Mapping[Forward, str] = {
    "reference": phrase("the reference's"),
    "transformers": phrase("Transformers'"),
}

LOADS: Mapping[Answer, str] = {"yes": phrase("yes"), "no": phrase("no"), "unsure": phrase("unsure")}

LOAD = """\
from transformers import {imports}

processor = HunYuanVLProcessor.from_pretrained({name})
model = HunYuanVLForConditionalGeneration.from_pretrained({name}, dtype="auto"{how})"""
LATER = "\nmodel.hf_quantizer.compressor.decompress_model(model)"


def model_card(
    report: QuantReport,
    name: str,
    quantization_config: Mapping[str, Any],
    base_card: Path,
    *,
    penalty: float,
    from_hub: bool,
) -> str:
    """Return the text of the checkpoint's README.md, in the language of the report.

    name: of the checkpoint's folder. base_card: the base model's own card, if there is one. penalty: the repetition
    penalty to ask for. from_hub: the base model is named by its hub id.
    """
    source, shown = report.model.source, message(name)
    # The hub knows models of its own only.
    base_model = source if from_hub and not source.startswith(MODELSCOPE) else None
    gguf = _gguf(report)
    data = ModelCardData(
        base_model=base_model,
        base_model_relation=base_model and "quantized",
        library_name="gguf" if gguf else "transformers",
        tags=["hyocr", "ocr", *(method.name for method in report.methods), str(quantization_config["quant_method"])],
        **_carried(base_card),
    )
    with speaking(report.lang):
        card = ModelCard.from_template(
            data,
            template_path=str(TEMPLATE),
            tr=tr,
            words=markdown,
            code=code,
            loads=LOADS,
            name=name,
            quoted_name=shlex.quote(shown),
            base_link=f"[{markdown(report.model.name)}]({page_of(source)})" if from_hub else markdown(source),
            report=report,
            forward=report.calibration and tr(OF_FORWARDS[report.calibration.forward]),
            quant_method=quantization_config["quant_method"],
            before=size(report.weight_bytes_before),
            after=size(report.weight_bytes_after),
            ratio=f"{report.weight_bytes_before / report.weight_bytes_after:.2f}",
            asked=report.calibration and markdown(_scaled(report.calibration.max_pixels) + told(report.calibration)),
            methods=reduce(_and, map(_method, report.methods)),
            options={method.name: json.dumps(method.config, indent=2) for method in report.methods},
            kinds=kinds_of(report),
            accuracy_heading=tr(ACCURACY),
            accuracy=_accuracy(report, name),
            runtimes=known_runtimes(quantization_config, _shapes(report)),
            gguf=[shlex.quote(message(file)) for file in gguf],
            penalty=penalty,
            curl=with_curl(shown, penalty),
            openai=with_openai(shown, penalty),
            snippet=_snippet(shown, quantization_config, report),
        )
    return str(card).rstrip() + "\n"


def with_numbers(card: str, report: QuantReport, name: str) -> str:
    """Return a card with what `report` says of accuracy; one without the heading is left as it is."""
    with speaking(report.lang):
        section = re.compile(rf"(?<=^## {tr(ACCURACY)}\n\n).*?(?=\n\n## |\Z)", re.DOTALL | re.MULTILINE)
        return section.sub(lambda _found: _accuracy(report, name), card, count=1)


def record_numbers(
    folder: Path, evaluation: EvaluationRecord, gate: GateRecord | None, spoken: EvaluationRecord | None = None
) -> None:
    """Put an evaluation into the report and the card of a checkpoint that hyocr wrote, in the place of an older one.

    gate: None leaves the verdict that is there, so that what was not accepted stays so until it is. spoken: the
    evaluation in the language of the card, where that is another.
    The rest of the card, which its owner may have edited, stays. Raises CheckpointError for a folder without a report,
    RunError when it cannot be written.
    """
    old = read_report(folder)
    report = old.model_copy(update={"evaluation": evaluation, "gate": gate or old.gate})
    texts = {REPORT_NAME: report.model_dump_json(indent=2) + "\n"}
    card = folder / FILE_NAME
    if card.is_file():
        told = report.model_copy(update={"evaluation": spoken or evaluation})
        texts[FILE_NAME] = with_numbers(read_text(card), told, folder.resolve().name)
    for name, text in texts.items():
        with writing(folder / name), replacing(folder / name) as partial:
            save_bytes(partial, text.encode())


def _carried(base_card: Path) -> dict[str, Any]:
    """What can be read of it: a card with faults, which the hub may refuse, is the base model's affair."""
    if not base_card.is_file():
        return {}
    try:
        text = read_text(base_card)
        # The hub's client writes merged aliases out.
        check_aliases(text.partition("\n---")[0])
        metadata = ModelCard(text, ignore_metadata_errors=True).data.to_dict()  # type: ignore[no-untyped-call]
    except Exception:  # what the readers of YAML raise on odd metadata is no closed set
        return {}
    return {key: metadata[key] for key in CARRIED if _is_text(metadata.get(key))}


def _is_text(value: object) -> bool:
    """Whether this is text, or a list of texts, which can be written."""
    texts = value if isinstance(value, list) else [value]
    return all(isinstance(text, str) and visible(text) == text for text in texts)


def _method(method: MethodRecord) -> str:
    distribution = f"{markdown(method.distribution)} {markdown(method.version)}"
    return tr("{method} ({distribution})", method=code(method.name), distribution=distribution)


def _and(some: str, one: str) -> str:
    return tr("{some} and {one}", some=some, one=one)


def _shapes(report: QuantReport) -> dict[str, tuple[int, int]]:
    return {layer.name: layer.shape for layer in report.layers}


def _gguf(report: QuantReport) -> list[str]:
    """The files for llama.cpp, the decoder's first; empty for a checkpoint without them."""
    files = [name for name in report.output_sha256 if name.endswith(".gguf")]
    pair = [next((name for name in files if name.startswith(part)), "") for part in ("model-", "mmproj-")]
    return pair if all(pair) else []


def _accuracy(report: QuantReport, name: str) -> str:
    own, base = shlex.quote(message(name)), shlex.quote(message(report.model.typed))
    measure = f"hyocr eval {own} --data your-pages/ --baseline {base}"
    own = tr("On your own pages, where the folder {name} lies:", name=code(name)) + f"\n\n```sh\n{measure}\n```"
    if report.evaluation is None:
        return tr("Not measured yet. ") + own
    return "\n\n".join([*_found(report.evaluation), *_measured(report.evaluation), *_gate(report), own])


def _found(numbers: EvaluationRecord) -> Iterator[str]:
    """What it comes to."""
    if numbers.verdict is not None:
        yield markdown(numbers.verdict.text)
        for warning in numbers.verdict.warnings:
            yield tr("**Warning**: {warning}.", warning=markdown(warning))


def _measured(numbers: EvaluationRecord) -> Iterator[str]:
    """A sentence on how, a table of what, a sentence on the difference. No times: the card is the same each run."""
    yield tr(
        "{pages} pages of {source}{told}, read greedily ({decoding}, seed {seed}, device {device}):",
        pages=numbers.pages,
        source=markdown(numbers.data),
        told=_scaled(numbers.max_pixels) + markdown(told(numbers)),
        decoding=numbers.decoding,
        seed=numbers.seed,
        device=numbers.device,
    )
    rows = {
        tr("original"): numbers.baseline,
        tr(RTN): numbers.rounded,
        tr("this checkpoint"): numbers.model,
    }
    found = {label: score for label, score in rows.items() if score is not None}
    titles = [markdown(tr(metric.title)) for metric in numbers.metrics.values()]
    head = ("", "CER", tr("95 % interval"), tr("agreement"), "KL", tr("loops"), *titles, tr("weights"))
    lines = [head, ["---"] * len(head), *([label, *_cells(score, numbers)] for label, score in found.items())]
    yield "\n".join(f"| {' | '.join(line)} |" for line in lines)
    if numbers.cer_difference is not None:
        yield tr(
            "The CER is {points} points from the original's (95 % interval, page by page: {interval}).",
            points=points(numbers.cer_difference),
            interval=signed_span(numbers.cer_difference_interval),
        )
    yield from _by_part(numbers)
    yield tr("Runtime: {runtimes}. {meaning}", runtimes=_runtimes(found), meaning=_meaning(numbers))


def _by_part(numbers: EvaluationRecord) -> Iterator[str]:
    """How far the further metrics are from the original's."""
    found = [
        markdown(f"{tr(metric.title)} {apart(numbers.differences[name], metric.unit)}")
        for name, metric in numbers.metrics.items()
        if name in numbers.differences
    ]
    if found:
        yield tr("Less the original's (95 % interval, page by page): {parts}.", parts=tr("; ").join(found))


def _scaled(max_pixels: int | None) -> str:
    return "" if max_pixels is None else tr(", scaled down to {pixels} pixels", pixels=f"{max_pixels:,}")


def _cells(score: ScoreRecord, numbers: EvaluationRecord) -> Iterator[str]:
    yield percent(score.cer)
    yield span(score.cer_interval)
    yield agreed(score.agreement, score.agreement_interval)
    yield number(score.kl, 2)
    yield str(score.loops)
    for name, metric in numbers.metrics.items():
        yield markdown(measured(score.metrics.get(name), metric.unit))
    yield size(score.weight_bytes)


def _runtimes(found: Mapping[str, ScoreRecord]) -> str:
    """`Transformers` for original, ...; one for all is said once."""
    by_runtime: dict[str, list[str]] = {}
    for label, score in found.items():
        by_runtime.setdefault(_runtime(score), []).append(label)
    if len(by_runtime) == 1:
        return next(iter(by_runtime))
    return tr("; ").join(
        tr("{runtime} ({labels})", runtime=runtime, labels=listed(labels)) for runtime, labels in by_runtime.items()
    )


def _runtime(score: ScoreRecord) -> str:
    name = tr(RUNTIMES.get(score.runtime, markdown(score.runtime)))
    if score.forward is None:
        return name
    return tr("{runtime}, {whose} forward", runtime=name, whose=tr(OF_FORWARDS[score.forward]))


def _meaning(numbers: EvaluationRecord) -> str:
    told = tr("CER: character error rate; loops: pages that end in a repetition loop")
    if numbers.model.agreement is None:
        return sentences([told])
    nearness = tr(
        "agreement and KL: next tokens that are the original's too, and how far the predictions are from its, along "
        "its own answers"
    )
    return sentences([told + tr("; ") + nearness])


def _gate(report: QuantReport) -> Iterator[str]:
    if report.gate is None:
        return
    asked = ",".join(f"{figure.metric}={figure.bound:g}" for figure in report.gate.figures)
    if report.gate.accepted:
        yield tr("Gate {bounds}: held.", bounds=code(asked))
    else:
        failed = markdown(failures(report.gate))
        yield tr("Gate {bounds}: **not held**: {failures}.", bounds=code(asked), failures=failed)


def _snippet(name: str, quantization_config: Mapping[str, Any], report: QuantReport) -> str | None:
    """How Transformers loads it; None when it does not."""
    shapes, formats = _shapes(report), known_formats(quantization_config)
    if formats is None or not any(
        runtime.name == TRANSFORMERS and runtime.loads == "yes" for runtime in formats.runtimes(shapes)
    ):
        return None
    unpacking = formats.unpacking(shapes)
    unpack = unpacking == "as it loads"
    names = ["HunYuanVLForConditionalGeneration", "HunYuanVLProcessor"]
    snippet = LOAD.format(
        name=json.dumps(name),
        imports=", ".join(["CompressedTensorsConfig", *names] if unpack else names),
        how=", quantization_config=CompressedTensorsConfig(dequantize=True)" if unpack else "",
    )
    return snippet + LATER if unpacking == "once loaded" else snippet
