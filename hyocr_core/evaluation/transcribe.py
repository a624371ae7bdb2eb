"""Read pages with one or two checkpoints and hand over what they wrote, page by page: nothing is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import BadInputError
from hyocr_core.evaluation.evaluate import notices
from hyocr_core.evaluation.reading.choice import choose_backends
from hyocr_core.evaluation.reading.local import Reader, read_page
from hyocr_core.evaluation.reading.memory import reading_bytes
from hyocr_core.evaluation.reading.participants import Participants, gather
from hyocr_core.evaluation.reading.read_pages import load_readers
from hyocr_core.evaluation.scores.loops import ends_in_loop
from hyocr_core.evaluation.scores.result import Role
from hyocr_core.evaluation.scores.score import Answer
from hyocr_core.models.load import pick_device
from hyocr_core.pages.checked import Pages, look_at_pages
from hyocr_core.pages.sources import draw_pages
from hyocr_core.progress import Progress, Silent
from hyocr_core.resources import RUNTIME_BYTES, check_memory
from hyocr_core.settings.eval_config import EvalConfig


@dataclass(frozen=True)
class Transcript:
    """What came of a page. answers: by who read it; without the model's the page was not read, and reason says why."""

    record: Record
    answers: Mapping[Role, Answer] = field(default_factory=dict)
    reason: str = ""

    @property
    def texts(self) -> dict[Role, str]:
        """What each wrote."""
        return {role: answer.text for role, answer in self.answers.items()}

    @property
    def faults(self) -> dict[Role, str]:
        """What is plainly wrong with an answer, by who wrote it; those without a fault are missing."""
        return {role: fault for role, answer in self.answers.items() if (fault := _fault(answer))}


def _fault(answer: Answer) -> str:
    if not answer.text.strip():
        return "is empty"
    if ends_in_loop(answer.text):
        return "ends in a repetition loop"
    return "" if answer.ended else "is cut at the limit of tokens"


def open_pages(config: EvalConfig, say: Callable[[str], None]) -> list[Record]:
    """Every page of the source, in order. Raises CalibrationError for a source that cannot be used."""
    data = (config.data, config.task, config.system, None, config.seed)
    return draw_pages(*data, keep_duplicates=True, say=say).records


def transcribe(
    config: EvalConfig,
    records: Sequence[Record],
    progress: Progress,
    *,
    begin: Callable[[Record], None],
    told: Callable[[str], None] | None,
) -> Iterator[Transcript]:
    """Read pages in their order, greedily; one that cannot be read does not end it.

    begin: told of a page before it is read, or handed over. told: given the text of a page piece by piece while it is
    written, where that is by this process; None has it at the end only.
    Raises BadInputError, before the first page, for a checkpoint or backend that cannot be used; RunError when one
    fails.
    """
    participants = gather(config, choose_backends(config))
    for line in notices(participants, config):
        progress.say(line)
    if participants.entries:
        yield from _in_process(config, records, participants, progress, begin, told)
    else:
        yield from _by_text(config, records, participants, progress, begin)


def _in_process(
    config: EvalConfig,
    records: Sequence[Record],
    participants: Participants,
    progress: Progress,
    begin: Callable[[Record], None],
    told: Callable[[str], None] | None,
) -> Iterator[Transcript]:
    device = pick_device(config.device)
    weights = sum(info.nbytes for each in participants.entries.values() for info in each.weights.tensors.values())
    if device.type == "cpu":
        check_memory(RUNTIME_BYTES + weights, "use a larger machine, or read with one checkpoint")
    readers = load_readers(participants, device)
    progress.start("read pages", len(records))
    for record in records:
        pages = _look([record], participants, config, Silent())
        reason = pages.failures.get(record.name) or _too_large(pages, participants, on_cpu=device.type == "cpu")
        begin(record)
        yield Transcript(record, reason=reason) if reason else _read(record, pages, readers, told)
        progress.step(record.name)


def _look(records: Sequence[Record], participants: Participants, config: EvalConfig, progress: Progress) -> Pages:
    most = participants.max_tokens
    return look_at_pages(records, participants.processor, progress, max_tokens=most, max_pixels=config.max_pixels)


def _too_large(pages: Pages, participants: Participants, *, on_cpu: bool) -> str:
    """Why the only page cannot be read; empty where it can be."""
    needed = max(reading_bytes(opened.shape, pages, 1) for opened in participants.sources.values())
    try:
        if on_cpu:
            check_memory(needed, "lower --max-pixels")
    except BadInputError as error:
        return str(error)
    return ""


def _read(
    record: Record, pages: Pages, readers: Mapping[Role, Reader], told: Callable[[str], None] | None
) -> Transcript:
    return Transcript(record, read_page(pages.inputs(0), readers, told))


def _by_text(
    config: EvalConfig,
    records: Sequence[Record],
    participants: Participants,
    progress: Progress,
    begin: Callable[[Record], None],
) -> Iterator[Transcript]:
    """Whoever returns text reads all pages at a stretch, in any order; handed over are those that all have read."""
    progress.start("check pages", len(records))
    pages = _look(records, participants, config, progress)
    found: dict[str, Transcript] = {
        record.name: Transcript(record, reason=pages.failures.get(record.name, "")) for record in records
    }
    waiting = list(records)
    texts = [pages.text(index) for index in range(len(pages.records))]
    for role, reader in participants.texts.items():
        progress.start(f"read pages ({role})", len(texts))
        for page in reader.read(texts, progress.say) if texts else ():
            before = found[pages.records[page.index].name]
            if page.reading is None:
                found[before.record.name] = replace(before, answers={}, reason=page.reason)
            elif not before.reason:
                answers = {**before.answers, role: page.reading.answers[0]}
                found[before.record.name] = replace(before, answers=answers)
            progress.step(before.record.name)
            while waiting and _done(found[waiting[0].name], participants):
                begin(waiting[0])
                yield found[waiting.pop(0).name]
    for record in waiting:
        begin(record)
        yield found[record.name]


def _done(transcript: Transcript, participants: Participants) -> bool:
    return bool(transcript.reason) or transcript.answers.keys() == participants.texts.keys()
