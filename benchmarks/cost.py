"""What a job on the 1B shape costs by arithmetic: seconds of one core and bytes, by number and size of pages.

Operations are counted from the shapes, divided by the rates that one core of our machine reaches, and the parts that do
not depend on pages are added as measured. benchmarks/README.md holds the result against runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import click

VISION_LAYERS, VISION_WIDTH, VISION_MLP, PATCH = 27, 1152, 4304, 16
BLOCKS, QUERY_WIDTH = 24, 2048
LINEARS = ((1024, 4096), (2048, 1024), (1024, 7168), (3584, 1024))
"""Inputs and outputs of the four groups of a block: q/k/v, o, gate/up, down."""

PROMPT_AND_ANSWER = 198
"""Tokens of a page beside those of its image, in these benchmarks."""

LINEAR_RATE, ATTENTION_RATE, FLOAT_RATE = 180e9, 70e9, 90e9
"""Operations in a second of a core (AVX-512 with bf16, no AMX): bf16 products, attention, fp32 products."""

HALF = 0.56
"""Of a symmetric sum, that stripes of 256 rows compute."""

SOLVE = {"fp8": 2.0, "gptq": 3.4, "awq": 3.3}
"""Core seconds per block to search, solve, check and pack; measured."""

FIXED = 13.0
"""Core seconds to import, open, check, hash and publish 2.2 GB; measured."""


@dataclass(frozen=True)
class Page:
    width: int
    height: int

    @property
    def patches(self) -> int:
        """Whole squares of two by two patches."""
        side = 2 * PATCH
        return 4 * -(-self.width // side) * -(-self.height // side)

    @property
    def tokens(self) -> int:
        """One for every four patches, one for every row of those, and the text."""
        return self.patches // 4 + -(-self.height // (2 * PATCH)) + PROMPT_AND_ANSWER

    @property
    def vision(self) -> float:
        """Core seconds."""
        linears = 2 * self.patches * (4 * VISION_WIDTH**2 + 2 * VISION_WIDTH * VISION_MLP)
        attention = 4 * self.patches**2 * VISION_WIDTH
        return VISION_LAYERS * (linears / LINEAR_RATE + attention / ATTENTION_RATE)

    @property
    def decoder(self) -> float:
        """Core seconds of one pass."""
        linears = 2 * self.tokens * sum(inputs * outputs for inputs, outputs in LINEARS)
        attention = 2 * self.tokens**2 * QUERY_WIDTH
        return BLOCKS * (linears / LINEAR_RATE + attention / ATTENTION_RATE)

    def sums(self, method: str) -> float:
        """Core seconds for the statistics of all blocks."""
        moments = 2 * HALF * self.tokens * sum(inputs**2 for inputs, _ in LINEARS)
        drift = 2 * self.tokens * sum(inputs * min(inputs, outputs) for inputs, outputs in LINEARS)
        return BLOCKS * (moments + (drift if method == "gptq" else 0)) / FLOAT_RATE

    @property
    def waiting(self) -> float:
        """Bytes at a block: bf16 hidden states on both paths of `gptq`, of others before and after the block."""
        return 2 * 1024 * self.tokens * 2


def floor(page: Page, count: int) -> float:
    """Core seconds of the calibration forward alone."""
    return count * (page.vision + page.decoder)


def job(page: Page, count: int, method: str) -> float:
    """Core seconds: each page once through the tower and on each path through the decoder, its sums, and the rest."""
    passes = 2 if method == "gptq" else 1
    return FIXED + BLOCKS * SOLVE[method] + count * (page.vision + passes * page.decoder + page.sums(method))


@click.command(help=__doc__)
def main() -> None:
    click.echo("| pages | size | tokens | floor | " + " | ".join(f"`{method}`" for method in SOLVE) + " | waiting |")
    click.echo("|---|---|---|---|" + "---|" * (len(SOLVE) + 1))
    for page in (Page(1024, 768), Page(2480, 3508), Page(4096, 4096)):
        for count in (8, 128, 512):
            forward = floor(page, count)
            jobs = " | ".join(f"{job(page, count, method) / forward:.2f}" for method in SOLVE)
            waiting = f"{count * page.waiting / 1e9:.2f} GB"
            size = f"{page.width}x{page.height}"
            click.echo(f"| {count} | {size} | {count * page.tokens} | {forward / 3600:.2f} h | {jobs} | {waiting} |")


if __name__ == "__main__":
    main()
