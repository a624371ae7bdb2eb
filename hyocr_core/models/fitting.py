"""Whether a checkpoint fits into some memory under a load, and what to change if it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pydantic import Field

from hyocr_core.contract.config import FrozenModel
from hyocr_core.models.serving_memory import NOT_SHOWN, RuntimeMemory, RuntimeName, Servable, ServedLoad

VLLM_SHARE = 0.92
"""Of a card's memory that vLLM takes unless it is told otherwise (--gpu-memory-utilization)."""
SHORTEST_ANSWER = 1024
SMALLEST_PAGE = 2**19
"""Tokens and pixels below which an answer or a page of text is no longer read whole."""


class Change(FrozenModel):
    """One thing to do, and the memory that is taken then."""

    what: str
    total: int
    fits: bool


class Fit(FrozenModel):
    """Whether a load fits in one runtime. changes: what would help, when it does not."""

    runtime: RuntimeName
    limit: int = Field(description="bytes that the runtime may take of those that there are")
    total: int
    fits: bool
    changes: tuple[Change, ...] = ()


class ServingMemory(FrozenModel):
    """What it takes to serve a checkpoint, by runtime, and whether it fits into what was asked about."""

    load: ServedLoad
    page: tuple[int, int] = Field(description="width and height of the page as the vision tower sees it")
    patches: int
    image_tokens: int
    page_tokens: int = Field(description="of one page with question and answer")
    runtimes: tuple[RuntimeMemory, ...] = Field(description="those that load it")
    fits: tuple[Fit, ...] = ()
    note: str = NOT_SHOWN

    @property
    def refused(self) -> bool:
        """Whether something was asked and no runtime fits."""
        return bool(self.fits) and not any(fit.fits for fit in self.fits)


def serving_memory(served: Servable, load: ServedLoad, limit: int | None = None) -> ServingMemory:
    """Estimate a load, and hold it against a limit in bytes; raises BadInputError for a page there is no room for."""
    page = served.page(load)
    return ServingMemory(
        load=load,
        page=page.pixels,
        patches=page.patches,
        image_tokens=page.tokens,
        page_tokens=served.tokens(load),
        runtimes=tuple(served.memory(name, load) for name in served.runtimes),
        fits=() if limit is None else tuple(_fit(served, load, name, limit) for name in served.runtimes),
    )


def _fit(served: Servable, load: ServedLoad, name: RuntimeName, whole: int) -> Fit:
    limit = int(whole * VLLM_SHARE) if name == "vLLM" else whole
    total = served.memory(name, load).total
    if total <= limit:
        return Fit(runtime=name, limit=limit, total=total, fits=True)
    return Fit(runtime=name, limit=limit, total=total, fits=False, changes=_Advice(served, name, limit).of(load))


class _Advice:
    """What would help a load in one runtime."""

    def __init__(self, served: Servable, name: RuntimeName, limit: int) -> None:
        self.served, self.name, self.limit = served, name, limit

    def of(self, load: ServedLoad) -> tuple[Change, ...]:
        """Each change alone; all of them together, as far as it takes them, where none is enough."""
        alone = tuple(self._alone(load))
        return alone if not alone or any(change.fits for change in alone) else (*alone, self._together(load))

    def _alone(self, load: ServedLoad) -> Iterator[Change]:
        if load.pages_at_once > 1:
            fewer = self._fewest_or_fitting(load, [{"pages_at_once": n} for n in range(load.pages_at_once - 1, 0, -1)])
            yield self._change(self._pages(fewer), self.served, fewer)
        for lower, words in ((_smaller(self.served, load), _pixels), (_shorter(load), _answer)):
            if lower:
                changed = self._fewest_or_fitting(load, lower)
                yield self._change(words(changed), self.served, changed)
        if self._has_cache_to_shrink(load):
            yield self._change("an FP8 KV cache (--kv-cache-dtype fp8)", self.served, _with(load, fp8_cache=True))
        if self.served.stored > self.served.int4:
            yield self._change("weights in 4 bits (--method gptq)", self._int4, load)

    def _together(self, load: ServedLoad) -> Change:
        """4 bits and an FP8 cache, then fewer pages, smaller ones, shorter answers: no more of it than it takes."""
        served = self._int4 if self.served.stored > self.served.int4 else self.served
        words = ["weights in 4 bits"] if served is not self.served else []
        if self._has_cache_to_shrink(load):
            load = _with(load, fp8_cache=True)
            words.append("an FP8 KV cache")
        fewer = [{"pages_at_once": n} for n in range(load.pages_at_once - 1, 0, -1)]
        for lower, say in ((fewer, self._pages), (_smaller(served, load), _pixels), (_shorter(load), _answer)):
            if lower and not self._fits(served, load):
                load = self._fewest_or_fitting(load, lower, served)
                words.append(say(load))
        return self._change(f"together: {', '.join(words)}", served, load)

    @property
    def _int4(self) -> Servable:
        return replace(self.served, stored=self.served.int4, keeps_packed=True)

    def _has_cache_to_shrink(self, load: ServedLoad) -> bool:
        return self.name == "vLLM" and not load.fp8_cache and not self.served.fp8_cache

    def _fewest_or_fitting(
        self, load: ServedLoad, steps: list[dict[str, int]], served: Servable | None = None
    ) -> ServedLoad:
        """The load after the first step with which it fits, or after the last."""
        loads = [_with(load, **step) for step in steps]
        return next((each for each in loads if self._fits(served or self.served, each)), loads[-1])

    def _pages(self, load: ServedLoad) -> str:
        number = load.pages_at_once
        option = f" (--max-num-seqs {number})" if self.name == "vLLM" else ""
        return f"{'one page' if number == 1 else f'{number} pages'} at once{option}"

    def _fits(self, served: Servable, load: ServedLoad) -> bool:
        return served.memory(self.name, load).total <= self.limit

    def _change(self, what: str, served: Servable, load: ServedLoad) -> Change:
        total = served.memory(self.name, load).total
        return Change(what=what, total=total, fits=total <= self.limit)


def _with(load: ServedLoad, **changes: int) -> ServedLoad:
    return load.model_copy(update=changes)


def _smaller(served: Servable, load: ServedLoad) -> list[dict[str, int]]:
    width, height = served.page(load).pixels
    # First as it is: vLLM reserves memory for the largest that is allowed.
    halves = [width * height >> step for step in range(8)]
    return [{"max_pixels": pixels} for pixels in halves if pixels >= SMALLEST_PAGE]


def _shorter(load: ServedLoad) -> list[dict[str, int]]:
    halves = [load.answer_tokens >> step for step in range(1, 8)]
    return [{"answer_tokens": tokens} for tokens in halves if tokens >= SHORTEST_ANSWER]


def _pixels(load: ServedLoad) -> str:
    return f"pages of at most {load.max_pixels:,} pixels (longest_edge of the image processor)"


def _answer(load: ServedLoad) -> str:
    return f"answers of at most {load.answer_tokens:,} tokens"
