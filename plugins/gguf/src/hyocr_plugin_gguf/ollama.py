"""What `ollama create` makes a model of: the files, the prompt's frame, where an answer ends, greedy decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hyocr_plugin_gguf.tokenizer import chat_template, stop_ids

if TYPE_CHECKING:
    from hyocr_plugin_gguf.opened import Opened

FILE_NAME = "Modelfile"
SYSTEM, PROMPT = "{{ .System }}", "{{ .Prompt }}"
FORBIDDEN = ("{{", '"""')
"""In the rest of a template: an action of Go's, and the end of the text."""
PENALTY = 1.08
"""With which HunyuanOCR's authors decode."""
CONTEXT = 16384
"""Tokens for a page and its answer, which Ollama keeps memory for."""


def modelfile(opened: Opened, files: Sequence[str]) -> str:
    """The text of a Modelfile for GGUF files beside it; without a chat template, Ollama takes the file's own."""
    lines = [f"FROM ./{name}" for name in files]
    template = _frame(opened)
    if template is not None:
        lines.append(f'TEMPLATE """{template}"""')
    lines += [f'PARAMETER stop "{text}"' for text in _stops(opened)]
    context = min(CONTEXT, opened.config.text_config.max_position_embeddings)
    lines += [
        "PARAMETER temperature 0",
        f"PARAMETER repeat_penalty {PENALTY}",
        "PARAMETER repeat_last_n -1",
        f"PARAMETER num_ctx {context}",
    ]
    return "\n".join(lines) + "\n"


def _frame(opened: Opened) -> str | None:
    """The checkpoint's template around Ollama's two variables; Ollama itself puts the page before the prompt."""
    template = chat_template(opened)
    if template is None:
        return None
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": PROMPT}]
    return _rendered(template, messages)


def _rendered(template: str, messages: Sequence[dict[str, Any]]) -> str | None:
    """Of text alone: strings, as the official client writes them, or lists for a template that takes no strings."""
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    for shape in (lambda text: text, lambda text: [{"type": "text", "text": text}]):
        given = [{**message, "content": shape(message["content"])} for message in messages]
        try:
            text = environment.from_string(template).render(messages=given, add_generation_prompt=True)
        except (TemplateError, TypeError, KeyError):
            continue
        if text.count(SYSTEM) == 1 and text.count(PROMPT) == 1:
            rest = text.replace(SYSTEM, "").replace(PROMPT, "")
            return None if any(part in rest for part in FORBIDDEN) else text
    return None


def _stops(opened: Opened) -> list[str]:
    """The tokens that end an answer, as texts."""
    tokenizer = opened.read_json("tokenizer.json") or {}
    texts = {token["id"]: token["content"] for token in tokenizer.get("added_tokens") or ()}
    return [texts[token] for token in stop_ids(opened) if token in texts]
