"""A choice as a recipe."""

from __future__ import annotations

from collections.abc import Iterator

from hyocr_core.search.candidates import Group
from hyocr_core.search.knapsack import Chosen
from hyocr_core.search.search_plan import SearchPlan
from hyocr_core.settings.recipe import NONE, RecipeRule


def rules_of(plan: SearchPlan, chosen: Chosen) -> tuple[RecipeRule, ...]:
    """One rule for each candidate that something gets, in the order of the candidates; all else stays as it is."""
    rules = []
    for candidate in plan.candidates:
        names = list(_names(plan, {group for group, name in chosen.items() if name == candidate.name}))
        if names:
            rules.append(candidate.rule.model_copy(update={"match": tuple(names)}))
    return (*rules, RecipeRule(match=("*",), method=NONE))


def _names(plan: SearchPlan, groups: set[Group]) -> Iterator[str]:
    """The linears of these groups; a block all of whose linears are among them by its own name."""
    model = plan.job.model
    for place in (*model.vision_blocks, *model.decoder_blocks):
        own = model.groups(place)
        if len(own) > 1 and groups.issuperset(own):
            yield model.block_name(place)
        else:
            yield from (name for group in own if group in groups for name in group)
