"""The tokenizer of a checkpoint as llama.cpp reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gguf import GGUFWriter, TokenType

from hyocr_core import CheckpointError

if TYPE_CHECKING:
    from hyocr_plugin_gguf.opened import Opened

DENSE = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"""
    r"""|\s*[\r\n]+|\s+(?!\S)|\s+""",
)
MOE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
PRE_TOKENIZERS = {DENSE: "hunyuan-dense", MOE: "hunyuan", (): "hunyuan-dense"}
"""Regular expressions that cut a text before merges -> what llama.cpp calls them.

Without any, and without merges, every byte is a token whatever the text is cut into.
"""


def add_tokenizer(writer: GGUFWriter, opened: Opened) -> None:
    """Write vocabulary, merges, special tokens and chat template."""
    tokenizer = opened.read_json("tokenizer.json")
    if tokenizer is None or tokenizer.get("model", {}).get("type") != "BPE":
        raise CheckpointError(f"{opened.folder / 'tokenizer.json'} is no byte-level BPE, which llama.cpp needs here")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"].get("merges") or ()]
    tokens, types = _tokens(tokenizer, opened.config.text_config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(opened, tokenizer, has_merges=bool(merges)))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    # llama.cpp asks for merges even if there are none, and the writer leaves out an empty list: this pair is no token.
    writer.add_token_merges(merges or [f"{tokens[0]} {tokens[0]}"])
    for add, token in _special_ids(writer, opened):
        add(token)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    template = chat_template(opened)
    if template is not None:
        writer.add_chat_template(template)


def chat_template(opened: Opened) -> str | None:
    """The checkpoint's own."""
    path = opened.folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        found = (opened.read_json(name) or {}).get("chat_template")
        if isinstance(found, str):
            return found
    return None


def stop_ids(opened: Opened) -> tuple[int, ...]:
    """The tokens that end an answer, each once, the first as generation_config.json has it."""
    generation = (opened.read_json("generation_config.json") or {}).get("eos_token_id")
    of_text = opened.config.text_config
    listed = generation if isinstance(generation, list) else [generation]
    found = [*listed, opened.raw.get("eos_token_id"), of_text.eos_token_id, getattr(of_text, "eod_token_id", None)]
    return tuple(dict.fromkeys(token for token in found if isinstance(token, int) and token >= 0))


def _special_ids(writer: GGUFWriter, opened: Opened) -> Iterator[tuple[Any, int]]:
    text = opened.config.text_config
    # llama.cpp stops at each of the three.
    yield from zip(
        (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id), stop_ids(opened), strict=False
    )
    pads = (text.pad_token_id, opened.raw.get("pad_token_id"), opened.raw.get("pad_id"))
    for add, found in ((writer.add_bos_token_id, (text.bos_token_id,)), (writer.add_pad_token_id, pads)):
        known = [token for token in found if isinstance(token, int) and token >= 0]
        if known:
            yield add, known[0]


def _tokens(tokenizer: Mapping[str, Any], size: int) -> tuple[list[str], list[TokenType]]:
    """Every token by its number, and what it is; numbers without a token are unused."""
    tokens = [f"[PAD{index}]" for index in range(size)]
    types = [TokenType.UNUSED] * size
    known = [(text, index, TokenType.NORMAL) for text, index in tokenizer["model"]["vocab"].items()]
    for added in tokenizer.get("added_tokens") or ():
        kind = TokenType.CONTROL if added.get("special") else TokenType.USER_DEFINED
        known.append((added["content"], added["id"], kind))
    for text, index, kind in known:
        if index >= size:
            raise CheckpointError(f"tokenizer.json: token {index} is beyond the {size} of config.json")
        tokens[index], types[index] = text, kind
    return tokens, types


def _pre_tokenizer(opened: Opened, tokenizer: Mapping[str, Any], *, has_merges: bool) -> str:
    found = tuple(_patterns(tokenizer.get("pre_tokenizer") or {}))
    if found in PRE_TOKENIZERS and (found or not has_merges):
        return PRE_TOKENIZERS[found]
    raise CheckpointError(
        f"{opened.folder / 'tokenizer.json'}: llama.cpp is not known to cut texts as its pre_tokenizer does: "
        f"{' and then '.join(found) or 'not at all'}"
    )


def _patterns(step: Mapping[str, Any]) -> Iterator[str]:
    if step.get("type") == "Sequence":
        for inner in step.get("pretokenizers") or ():
            yield from _patterns(inner)
    elif step.get("type") == "Split":
        pattern = step.get("pattern") or {}
        yield str(pattern.get("Regex", pattern))
    elif step.get("type") == "ByteLevel":
        if step.get("use_regex", True):
            yield "that of ByteLevel"
    elif step:
        yield str(step.get("type"))
