"""The memory that a runtime takes to serve a checkpoint: an estimate by formula, before anything is loaded.

Where the numbers come from:

- weights: the bytes of the checkpoint's tensors. vLLM and GPTQModel compute with packed ones; compressed-tensors
  unpacks all of them at the first forward pass in Transformers (its class ModelCompressor, version 0.20).
- KV cache: a key and a value of every layer and key/value head for each token; vLLM in blocks of 16 tokens.
- vision: see `working_memory`. vLLM tries the largest page that the processor lets through when it starts, whatever is
  sent.
- decoder: likewise, for the tokens of one forward pass: in vLLM 2,048 of a chunked prefill (its default for a server on
  cards below 70 GiB), in Transformers all of the prompts; and the logits of one token of each page.
- rest: on a GPU. A process of PyTorch takes 0.8 GB before it holds a tensor (pytorch/pytorch#34323); logs of vLLM show
  0.15 to 0.33 GiB more outside of PyTorch (vllm-project/vllm#14452, #15340) and 0.13 to 0.36 GiB of captured graphs
  (generative-computing/mellea#416, gpustack/runner#251). None of it was measured with this model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import Field

from hyocr_core.contract.config import FrozenModel
from hyocr_core.errors import BadInputError
from hyocr_core.models.working_memory import Shapes
from hyocr_core.pages.page_size import PageSize, page_size

VLLM, TRANSFORMERS = "vLLM", "Transformers"
RuntimeName: TypeAlias = Literal["vLLM", "Transformers"]

A4 = 2480, 3508
SMALLEST_SIDE = 64
PROMPT_TOKENS = 128
"""Of the question and the turns around it; the longest official prompt has fewer."""
KV_BLOCK = 16
BATCHED_TOKENS = 2048
PYTORCH_BYTES = 800 * 10**6
VLLM_BYTES = 700 * 10**6

NOT_SHOWN = (
    "estimated, not measured; not shown: eager attention (patches times patches), pages of several sizes in one batch "
    "of Transformers (a mask of tokens times tokens), fragmentation, other programs on the card, llama.cpp"
)


class ServedLoad(FrozenModel):
    """What is asked of a server at once."""

    page: tuple[int, int] | None = Field(
        None, description="width and height of a page in pixels; None: A4 at 300 dpi, or what the context has room for"
    )
    pages_at_once: int = Field(8, ge=1, description="pages that are read together")
    answer_tokens: int = Field(8192, ge=1, description="new tokens that an answer may have")
    max_pixels: int | None = Field(None, ge=1, description="pixels to which larger pages are shrunk")
    fp8_cache: bool = Field(False, description="whether vLLM keeps keys and values in 8 bits")


class RuntimeMemory(FrozenModel):
    """Bytes in one runtime, all for the whole load but `kv_cache_per_page`."""

    name: RuntimeName
    weights: int
    kv_cache: int
    kv_cache_per_page: int
    vision: int = Field(description="activations of the vision tower at its peak")
    decoder: int = Field(description="activations of the decoder at its peak; the tower has finished by then")
    rest: int = Field(description="of the runtime itself")

    @property
    def total(self) -> int:
        """At the peak: the activations of the tower or of the decoder, whichever are more."""
        return self.weights + self.kv_cache + max(self.vision, self.decoder) + self.rest


@dataclass(frozen=True)
class Servable:
    """A checkpoint, as far as memory goes.

    stored: bytes of its tensors without a copied head. unpacked: the same in full precision. int4: with the decoder's
    linears in 4 bits. keeps_packed: whether Transformers computes with what is stored. fp8_cache: whether its config
    asks vLLM for one. runtimes: those that load it.
    """

    shapes: Shapes
    stored: int
    unpacked: int
    int4: int
    keeps_packed: bool
    fp8_cache: bool
    runtimes: tuple[RuntimeName, ...]
    image_processor: Any

    def page(self, load: ServedLoad) -> PageSize:
        """The page that is served; raises BadInputError for one that the processor or the context has no room for."""
        width, height = load.page or A4
        found = page_size(self.image_processor, width, height, load.max_pixels)
        while load.page is None and found.tokens + PROMPT_TOKENS >= self.shapes.context and width > SMALLEST_SIDE:
            width, height = width // 2, height // 2
            found = page_size(self.image_processor, width, height, load.max_pixels)
        if found.tokens + PROMPT_TOKENS >= self.shapes.context:
            raise BadInputError(
                f"a page of {width}x{height} has {found.tokens} image tokens, which with a question of {PROMPT_TOKENS} "
                f"leave no room for an answer in the model's {self.shapes.context}; give a smaller page"
            )
        return found

    def tokens(self, load: ServedLoad) -> int:
        """Of one page: image, question and answer, as far as the model takes them."""
        return min(self.page(load).tokens + PROMPT_TOKENS + load.answer_tokens, self.shapes.context)

    def memory(self, name: RuntimeName, load: ServedLoad) -> RuntimeMemory:
        """What one runtime takes."""
        return ESTIMATES[name](self, load)


def _in_vllm(served: Servable, load: ServedLoad) -> RuntimeMemory:
    shapes = served.shapes
    largest = page_size(served.image_processor, 10_000, 10_000, load.max_pixels)
    blocks = -(-served.tokens(load) // KV_BLOCK)
    per_page = shapes.cache(blocks * KV_BLOCK, 1 if load.fp8_cache or served.fp8_cache else None)
    return RuntimeMemory(
        name="vLLM",
        weights=served.stored,
        kv_cache=load.pages_at_once * per_page,
        kv_cache_per_page=per_page,
        vision=shapes.vision(largest.patches),
        decoder=shapes.decoder(BATCHED_TOKENS, load.pages_at_once),
        rest=PYTORCH_BYTES + VLLM_BYTES,
    )


def _in_transformers(served: Servable, load: ServedLoad) -> RuntimeMemory:
    shapes, page, pages = served.shapes, served.page(load), load.pages_at_once
    per_page = shapes.cache(served.tokens(load))
    return RuntimeMemory(
        name="Transformers",
        weights=served.stored if served.keeps_packed else served.unpacked,
        kv_cache=pages * per_page,
        kv_cache_per_page=per_page,
        vision=shapes.vision(pages * page.patches),
        decoder=shapes.decoder(pages * (page.tokens + PROMPT_TOKENS), pages),
        rest=PYTORCH_BYTES,
    )


ESTIMATES: Mapping[RuntimeName, Callable[[Servable, ServedLoad], RuntimeMemory]] = {
    "vLLM": _in_vllm,
    "Transformers": _in_transformers,
}
