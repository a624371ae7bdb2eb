"""How a checkpoint's chat template is given a conversation, and whether it writes what it was given.

A template is a program of the checkpoint, and is run by `rendering` alone. Some join strings and break on a list of
parts, others walk through parts and lose a string without a word, or write the list itself; so the form of the messages
is found out once, with texts that every such accident would change, and every page is held against what the template
makes of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from hyocr_core.errors import CalibrationError, CheckpointError, one_line
from hyocr_core.pages.prompts import Message, conversation, text_part
from hyocr_core.pages.rendering import RENDERER, RefusedError, UnboundedError


class Texts(NamedTuple):
    """What the messages of a page say; without an answer it is the prompt alone."""

    system: str
    question: str
    answer: str | None


class Written(NamedTuple):
    """A conversation as text: the prompt, and from the answer on; the latter is empty without an answer."""

    prompt: str
    rest: str


# Quotes, line breaks, backslashes and tags are what Python, JSON and HTML write otherwise.
_PROBE = Texts("Be 'exact',\n\"now\" \\ <é>.", 'What\'s\n"written" \\ <ü> here?', 'It\'s\n"this" \\ <ö>.')
_ANOTHER = Texts("Do.", "And here?", "That.")

_NO_PREFIX = (
    "does not begin a conversation that has an answer with the prompt for that answer, so that answers cannot be "
    "scored; use a template that keeps the prompt as it is"
)

_Form = Callable[[Message, Any], Message]


def _official(message: Message, _processor: Any) -> Message:
    return message


def _as_parts(message: Message, _processor: Any) -> Message:
    content = message["content"]
    return {**message, "content": [text_part(content)] if isinstance(content, str) else content}


def _as_string(message: Message, processor: Any) -> Message:
    """The image is then what the tokenizer knows as one."""
    content, tokenizer = message["content"], processor.tokenizer
    if isinstance(content, str):
        return message
    start, end = (getattr(tokenizer, f"image_{side}_token", "") for side in ("start", "end"))
    image = f"{start}{processor.image_token}{end}"
    return {**message, "content": "".join(image if part["type"] == "image" else part["text"] for part in content)}


_FORMS: tuple[_Form, ...] = (_official, _as_parts, _as_string)


class _WrongError(Exception):
    """What a template does wrong with a conversation: the rest of a sentence. raised: it ended in an error."""

    def __init__(self, problem: str, *, raised: bool = False) -> None:
        super().__init__(problem)
        self.raised = raised


_Kind = tuple[bool, bool]
"""Whether a conversation has a text for the system turn, and an answer."""


@dataclass
class _Choice:
    """The form that a template takes, and what it writes around texts of a kind: the probe's are in their place."""

    form: _Form
    frames: dict[_Kind, Written] = field(default_factory=dict)


_CHOICES: WeakKeyDictionary[Any, _Choice] = WeakKeyDictionary()


def check_template(processor: Any) -> None:
    """Raise CheckpointError of one line unless the template writes a question and an image, once each."""
    if processor not in _CHOICES:
        _CHOICES[processor] = _choose(processor)


def write(processor: Any, texts: Texts) -> Written:
    """Write a page's conversation.

    Raises CalibrationError for a page that the template refuses or of which it changes a text; CheckpointError for a
    template that cannot be used, or not for such pages: it leaves out what they say, or writes it twice.
    """
    check_template(processor)
    choice = _CHOICES[processor]
    frame = _frame(texts, choice, processor)
    try:
        written = _write(texts, choice.form, processor)
    except _WrongError as error:
        raise CalibrationError(f"the chat template {error}") from error
    if written != _filled(frame, texts):
        whole = written.prompt + written.rest
        changed = (name for name, text in texts._asdict().items() if text and text not in whole)
        raise CalibrationError(f"the chat template changes the text of the {next(changed, 'page')}")
    return written


def _choose(processor: Any) -> _Choice:
    """The first form in which the template writes all that there can be, else the official prompt at least."""
    problems: list[_WrongError] = []
    for kind in ((True, True), (False, False)):
        problems.clear()
        for form in _FORMS:
            try:
                return _Choice(form, {kind: _checked(kind, form, processor)})
            except _WrongError as error:
                problems.append(error)
    # What it writes wrongly says more than what it breaks on.
    told = next((problem for problem in problems if not problem.raised), problems[0])
    raise CheckpointError(f"{_name(processor)} {told}") from told


def _frame(texts: Texts, choice: _Choice, processor: Any) -> Written:
    kind = (bool(texts.system), texts.answer is not None)
    if kind not in choice.frames:
        try:
            choice.frames[kind] = _checked(kind, choice.form, processor)
        except _WrongError as error:
            raise CheckpointError(f"{_name(processor)} {error}") from error
    return choice.frames[kind]


def _checked(kind: _Kind, form: _Form, processor: Any) -> Written:
    """The probe as written: each text and the image once, the answer where the prompt ends, nothing else of them."""
    probe, another = _of_kind(_PROBE, kind), _of_kind(_ANOTHER, kind)
    written = _write(probe, form, processor)
    whole = written.prompt + written.rest
    for name, text in probe._asdict().items():
        count = whole.count(text) if text else 1
        if count > 1:
            raise _WrongError(f"writes the text of the {name} {count} times")
        if count < 1:
            raise _WrongError(f"leaves out the text of the {name}, or changes it")
    images = whole.count(processor.image_token)
    if images != 1:
        raise _WrongError(f"places the image {images} times, not once")
    if not written.rest.startswith(probe.answer or ""):
        raise _WrongError(_NO_PREFIX)
    if _write(another, form, processor) != _filled(written, another):
        raise _WrongError("writes more of what a message says than its text")
    return written


def _of_kind(texts: Texts, kind: _Kind) -> Texts:
    system, answer = kind
    return Texts(texts.system if system else "", texts.question, texts.answer if answer else None)


def _filled(frame: Written, texts: Texts) -> Written:
    places = {probe: text for probe, text in zip(_PROBE, texts, strict=True) if probe is not None and text is not None}
    pattern = "|".join(map(re.escape, places))
    return Written(*(re.sub(pattern, lambda found: places[found[0]], part) for part in frame))


def _write(texts: Texts, form: _Form, processor: Any) -> Written:
    prompt = _render(conversation(texts.system, texts.question), form, processor, generation=True)
    if texts.answer is None:
        return Written(prompt, "")
    whole = _render(conversation(*texts), form, processor, generation=False)
    if not whole.startswith(prompt):
        raise _WrongError(_NO_PREFIX)
    return Written(prompt, whole.removeprefix(prompt))


def _render(messages: list[Message], form: _Form, processor: Any, *, generation: bool) -> str:
    formed = [form(message, processor) for message in messages]
    variables = {**processor.tokenizer.special_tokens_map, "add_generation_prompt": generation}
    try:
        return RENDERER.render(_template(processor), formed, variables)
    except RefusedError as error:
        raise _WrongError(f"does not render: {one_line(error)}", raised=True) from error
    except UnboundedError as error:
        raise CheckpointError(f"{_name(processor)} {error}") from error


def _template(processor: Any) -> str:
    """The template that `apply_chat_template` takes: of several the one that is called default."""
    given = processor.chat_template
    found = given.get("default") if isinstance(given, Mapping) else given
    if not isinstance(found, str):
        raise _WrongError("is no text, and none of several is called default")
    return found


def _name(processor: Any) -> str:
    folder = getattr(processor.tokenizer, "name_or_path", "")
    return f"{folder}: its chat template" if folder else "the chat template"
