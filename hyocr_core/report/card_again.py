"""The model card of a checkpoint once more: in another language, into a file of choice."""

from __future__ import annotations

from pathlib import Path

from hyocr_core.checkpoint.output_file import check_output, write_output
from hyocr_core.checkpoint.quant_report import QuantReport
from hyocr_core.errors import OutputError
from hyocr_core.evaluation.recorded.evidence import Evidence
from hyocr_core.evaluation.recorded.summary import summarize
from hyocr_core.outside.home import expanded
from hyocr_core.pages.sources import source_name
from hyocr_core.report.card import FILE_NAME, model_card
from hyocr_core.wording import Language, speaking


def check_card(path: Path) -> None:
    """Raise OutputError unless this is a new or empty file: a card may have been edited by hand."""
    if expanded(path).is_file() and expanded(path).stat().st_size:
        raise OutputError(f"{path} is there already, perhaps with somebody's own words; give a new file")
    check_output(path, b"")


def write_card(evidence: Evidence, path: Path, lang: Language) -> None:
    """Write the card in this language; licence and languages are those that the checkpoint's own card names.

    Raises CheckpointError for a checkpoint that cannot be read, OutputError as `check_card`, RunError when it cannot be
    written.
    """
    import torch

    from hyocr_core.models.hunyuan_vl import HunYuanVL
    from hyocr_core.models.load import open_weights
    from hyocr_core.models.own_decoding import own_penalty

    folder, report = evidence.folder, _in(lang, evidence)
    weights = open_weights(folder)
    model = HunYuanVL(weights, torch.device("meta"))
    card = model_card(
        report,
        evidence.name,
        weights.config["quantization_config"],
        folder / FILE_NAME,
        penalty=own_penalty(folder, model.config.text_config),
        from_hub=report.model.revision is not None,
    )
    write_output(path, card)


def _in(lang: Language, evidence: Evidence) -> QuantReport:
    """The report with a verdict in this language."""
    report, result = evidence.report.model_copy(update={"lang": lang}), evidence.evaluation
    if result is None:
        return report
    with speaking(lang):
        return report.model_copy(update={"evaluation": summarize(result, source_name(result.data))})
