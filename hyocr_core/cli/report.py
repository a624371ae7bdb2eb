"""`hyocr report`: everything that is known of a checkpoint, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyocr_core.cli.common import print_json, say, tell
from hyocr_core.cli.subjects import with_model
from hyocr_core.wording import LANGUAGES, Language

if TYPE_CHECKING:
    from hyocr_core.evaluation.recorded.evidence import Evidence


@click.command(epilog="Exit codes: 0 done, 1 the page cannot be written, 2 bad input.")
@with_model("The checkpoint; an argument says the same.", required=True, name="CHECKPOINT")
@click.option(
    "--compare",
    "others",
    multiple=True,
    metavar="CHECKPOINT",
    type=click.Path(path_type=Path),
    help="Put another quantization of the same model beside it; may be given several times.",
)
@click.option(
    "--evaluation",
    metavar="NAME",
    help="Tell of this one of the recorded evaluations: the name of its data, or one that the command prints. "
    " [default: the newest of most pages]",
)
@click.option("--cross-runtime", is_flag=True, help="Compare also what different runtimes, or other decoding, gave.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write.  [default: report/index.html in the checkpoint]",
)
@click.option("--lang", type=click.Choice(LANGUAGES), help="Language of the page.  [default: the model card's]")
@click.option(
    "--card",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the model card too, into this new file, such as README_zh.md with --lang zh.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print where the page is, and what it tells of, as JSON on stdout."
)
def report(
    model: str,
    others: tuple[Path, ...],
    evaluation: str | None,
    cross_runtime: bool,
    output: Path | None,
    lang: Language | None,
    card: Path | None,
    as_json: bool,
) -> None:
    """Write the report of a checkpoint: how much smaller, how much worse, where.

    CHECKPOINT is a folder that `hyocr quant` wrote. The page stands alone: it needs no network, no script and no file
    beside it. How it reads is on it once it was measured: `hyocr eval CHECKPOINT --data pages/ --baseline MODEL
    --record`. Every evaluation is kept, by its pages and in its order; the page tells of one and names the others. It
    shows some of the pages, so hand it only to those who may see them; `hyocr push` leaves it out.

    \b
    hyocr report HunyuanOCR-int4 --compare HunyuanOCR-fp8
    hyocr report HunyuanOCR-int4 --evaluation heldout.jsonl
    """
    # Imported here, for a quick --help.
    from hyocr_core.evaluation.recorded.evidence import gather
    from hyocr_core.report.card_again import check_card, write_card
    from hyocr_core.report.page import write_page

    checkpoint = Path(model)
    if card is not None:
        check_card(card)
    page = write_page(checkpoint, others, output=output, cross_runtime=cross_runtime, chosen=evaluation, lang=lang)
    evidence = gather(checkpoint, evaluation)
    if card is not None:
        write_card(evidence, card, lang or evidence.report.lang)
        tell(f"card {card}")
    if not as_json:
        _tell(evidence)
        say(page)
        return
    recorded = [*evidence.evaluations[:1], *evidence.others]
    results = [{"name": each.name} | each.result.model_dump(mode="json") for each in recorded]
    print_json({"page": str(page), "report": evidence.report.model_dump(mode="json"), "evaluations": results})


def _tell(evidence: Evidence) -> None:
    """Name the evaluation that the page tells of, and those that it could tell of."""
    from hyocr_core.evaluation.recorded.evidence import told_short

    if evidence.recorded is not None and evidence.others:
        tell(f"it tells of {evidence.recorded.name}: {told_short(evidence.recorded)}")
        for other in evidence.others:
            tell(f"  --evaluation {other.name}: {told_short(other)}")
