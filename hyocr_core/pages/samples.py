"""Turn records into model inputs, one at a time: each alone, without padding."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError, CheckpointError, RunError, one_line
from hyocr_core.pages.chat_template import Texts, Written, write
from hyocr_core.pages.images import digest_image, is_nearly_uniform
from hyocr_core.pages.pixels import check_pixels
from hyocr_core.pages.prompts import prompt_of, system_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_PER_TOKEN = ("input_ids", "mm_token_type_ids")
_INPUTS = (*_PER_TOKEN, "pixel_values", "image_grid_thw")
_SHOWN_FAILURES = 3

UNIFORM = "warning: this page is nearly of one colour; look at it: its file may be read wrongly, or the page is blank"


@dataclass(frozen=True)
class Sample:
    """One page as the model takes it.

    inputs: `input_ids` and `mm_token_type_ids` (1, tokens) int64, the latter 1 at image tokens; `pixel_values`
        (patches, 3 * 16 * 16) float32; `image_grid_thw` (1, 3) int64.
    prompt_tokens: tokens before the answer; all of them if there is no answer. cut_tokens: of the answer's end, which
        is left out because the model takes no more.
    uniform: whether its image is nearly of one colour.
    digest: SHA-256 of the page's pixels and texts; image_digest: of its pixels alone.
    """

    name: str
    inputs: dict[str, Tensor]
    prompt_tokens: int
    answer: str | None
    digest: str
    image_digest: str
    cut_tokens: int = 0
    uniform: bool = False

    @property
    def notices(self) -> list[str]:
        """What to tell the user of it, a line each."""
        lines = []
        if self.uniform:
            lines.append(f"{self.name}: {UNIFORM}")
        if self.cut_tokens:
            left = self.inputs["input_ids"].shape[1] - self.prompt_tokens
            whole = left + self.cut_tokens
            lines.append(f"{self.name}: its answer is cut to {left} of {whole} tokens, since the model takes no more")
        return lines


@dataclass(frozen=True)
class Failure:
    """A record that could not be used, and why."""

    name: str
    reason: str


def iter_samples(
    records: Iterable[Record], processor: Any, *, with_answer: bool, max_tokens: int | None = None
) -> Iterator[Sample | Failure]:
    """Build the sample of each record when it is asked for; a record that cannot be used yields a Failure.

    with_answer: append the assistant's turn, as the chat template writes it, where the record has an answer.
    max_tokens: a longer answer is cut there; one whose image and question leave it no room is a Failure.
    Raises CheckpointError if the chat template does not begin a whole conversation with its prompt.
    """
    for record in records:
        try:
            yield build_sample(record, processor, with_answer=with_answer, max_tokens=max_tokens)
        except CalibrationError as error:
            yield Failure(record.name, str(error))


def build_sample(record: Record, processor: Any, *, with_answer: bool, max_tokens: int | None = None) -> Sample:
    """Build one sample. Raises CalibrationError, without the record's name, and CheckpointError as `iter_samples`."""
    image = record.open_image()
    prompt, rest = _write(record, processor, with_answer=with_answer)
    inputs = _process(processor, prompt + rest, image)
    tokens = inputs["input_ids"].shape[1]
    prompt_tokens = _count_prompt(processor, prompt, inputs["input_ids"][0]) if rest else tokens
    cut = 0
    if max_tokens is not None:
        _check_room(inputs, prompt_tokens, max_tokens)
        cut = max(tokens - max_tokens, 0)
        inputs |= {name: inputs[name][:, : tokens - cut] for name in _PER_TOKEN}
    digest, image_digest = digest_page(record, image)
    return Sample(
        record.name, inputs, prompt_tokens, record.answer, digest, image_digest, cut, uniform=is_nearly_uniform(image)
    )


def changed_page(name: str) -> RunError:
    """What to raise for a calibration page that is not what it was when it was read first."""
    return RunError(
        f"the calibration sample {name} has changed since the run began: put back what it was and give the same "
        "command again, or start anew with --fresh"
    )


def digest_page(record: Record, image: Image) -> tuple[str, str]:
    """SHA-256 of a page's pixels and texts, and of its pixels alone."""
    image_digest = digest_image(image)
    return _digest(image_digest, *_texts(record, with_answer=True)), image_digest


def prompt_text(record: Record, processor: Any) -> str:
    """What the chat template writes before the answer, the image as one token. Raises as `build_sample`."""
    return _write(record, processor, with_answer=False).prompt


def check_failures(failures: Sequence[Failure], total: int) -> None:
    """Raise CalibrationError if more than a tenth of `total` records failed, or all of them; callable at any time."""
    if total < 1:
        raise CalibrationError("there is no sample to use")
    if len(failures) * 10 <= total:
        return
    shown = "; ".join(f"{failure.name}: {failure.reason}" for failure in failures[:_SHOWN_FAILURES])
    more = f"; and {len(failures) - _SHOWN_FAILURES} more" if len(failures) > _SHOWN_FAILURES else ""
    raise CalibrationError(f"{len(failures)} of {total} samples cannot be used: {shown}{more}")


def _texts(record: Record, *, with_answer: bool) -> Texts:
    return Texts(system_of(record), prompt_of(record), record.answer if with_answer else None)


def _write(record: Record, processor: Any, *, with_answer: bool) -> Written:
    """Write the conversation about a page, whose texts, used or not, must hold no control token."""
    for text in _texts(record, with_answer=True):
        _refuse_control_tokens(text, processor)
    return write(processor, _texts(record, with_answer=with_answer))


def _refuse_control_tokens(text: str | None, processor: Any) -> None:
    """Refuse text that would be read as the end of a turn or as an image.

    Only these: an answer may well hold other special tokens, such as those that mark boxes.
    """
    tokenizer = processor.tokenizer
    names = ("image_token", "image_start_token", "image_end_token", "bos_token", "eos_token", "pad_token")
    for token in (getattr(tokenizer, name, None) for name in names):
        if text and token and token in text:
            raise CalibrationError(f"its text holds the control token {token}")


def _process(processor: Any, text: str, image: Image) -> dict[str, Tensor]:
    try:
        # Not verbose: what counts is not the tokenizer's own limit but the model's, which is checked here.
        made = processor(
            text=[text], images=[image], return_tensors="pt", padding=False, truncation=False, verbose=False
        )
        inputs: dict[str, Tensor] = {name: made[name] for name in _INPUTS}
        patch_size = int(processor.image_processor.patch_size)
    except Exception as error:  # what Transformers raises on odd files of a processor is no closed set
        raise CalibrationError(f"the processor refuses it: {one_line(error)}") from error
    rows, columns = (side * patch_size for side in inputs["image_grid_thw"][0, 1:].tolist())
    check_pixels(processor.image_processor, image.size, (columns, rows))
    return inputs


def _check_room(inputs: dict[str, Tensor], prompt_tokens: int, max_tokens: int) -> None:
    """Raise CalibrationError for a prompt after which there is no room for an answer."""
    kinds = inputs["mm_token_type_ids"]
    tokens, image = kinds.shape[1], int(kinds.sum())
    if prompt_tokens >= max_tokens:
        raise CalibrationError(
            f"its image has {image} tokens, its question {prompt_tokens - image} and its answer "
            f"{tokens - prompt_tokens}, and the model takes {max_tokens}: no answer fits; lower --max-pixels"
        )


def _count_prompt(processor: Any, prompt: str, ids: Tensor) -> int:
    """Count the tokens of the prompt in the ids (tokens,) of the whole conversation, and check that they are its."""
    image_token = processor.image_token_id
    images = int((ids == image_token).sum())
    expected: list[int] = []
    for token in processor.tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]:
        expected += [token] * (images if token == image_token else 1)
    if ids[: len(expected)].tolist() != expected:
        raise CheckpointError(
            "tokenizer: with this chat template the tokens of a conversation that has an answer do not begin with "
            "those of the prompt for that answer, so that answers cannot be scored"
        )
    return len(expected)


def _digest(image_digest: str, *texts: str | None) -> str:
    digest = hashlib.sha256(image_digest.encode())
    for text in texts:
        encoded = b"" if text is None else text.encode()
        digest.update(b"-" if text is None else f"{len(encoded)}:".encode())
        digest.update(encoded)
    return digest.hexdigest()
