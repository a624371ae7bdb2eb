"""Which linears the methods of a run quantize, and how: decided from rules, names and shapes, before any weight."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hyocr_core.contract.config import Fallback, MethodConfig
from hyocr_core.errors import ConfigError
from hyocr_core.formats.compressed import METHOD
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.parts import HEAD
from hyocr_core.models.spelling import EMBEDDING, VISION
from hyocr_core.plugin.method import Method
from hyocr_core.plugin.registry import load_method
from hyocr_core.run.overrides import layer_options
from hyocr_core.run.plan import Plan, ignored_by, make_plan, plan_of
from hyocr_core.run.shares import Share
from hyocr_core.settings.angelslim import VISION as IN_VISION
from hyocr_core.settings.recipe import RecipeRule, matches, matching
from hyocr_core.settings.run_config import RunConfig

SHARED = METHOD
"""The format in which methods share a checkpoint; what a rule that names none gets, if its method has it."""

TIED = "neither vLLM nor Transformers reads embedding and head quantized, which are one tensor"
"""Tried with vLLM 0.32 and Transformers 5.23: tying the head, both ask the embedding for its plain weight."""

WHOLE = ("prepare", "export")
"""Hooks that are about the whole checkpoint."""


@dataclass(frozen=True)
class LoadedRule:
    """A rule of a run, its method found and its options checked. where: how an error calls it; method: None keeps."""

    rule: RecipeRule
    where: str
    method: Method | None
    options: Mapping[str, Any]
    config: MethodConfig | None

    def holds_for(self, *names: str) -> bool:
        return self.rule.holds_for(*names)


class Chosen(NamedTuple):
    """The methods of a run. alone: the one that `--method` names, with its options. rules: of a recipe, or of
    `--vision`."""

    alone: tuple[Method, MethodConfig] | None
    options: Mapping[str, Any]
    rules: tuple[LoadedRule, ...]


@dataclass
class Assignment:
    """What becomes of every linear. shares: first that of the main method. fallbacks: see Job. left: on-disk name of a
    linear that stays as it is because of a rule -> why."""

    shares: tuple[Share, ...]
    plan: Plan
    fallbacks: dict[str, Fallback] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def choose_methods(run: RunConfig) -> Chosen:
    """Load every method that a run names and check its options; raises MethodError or ConfigError."""
    if run.recipe is not None:
        return Chosen(None, {}, _load_rules(run.recipe))
    method = load_method(run.method or "")
    if run.vision is None:
        return Chosen((method, method.config(run.options)), run.options, ())
    rule = RecipeRule.model_validate({"match": VISION, "method": IN_VISION.get(run.vision, run.vision)})
    options = sharing(method, run.options, "options")
    config = method.config(options)
    if config.quant_vit:
        raise ConfigError(f"options.quant_vit contradicts vision: {run.vision}, which has the vision tower")
    loaded = _load(rule, "vision", shared=True)
    _check_sharing([method, *([loaded.method] if loaded.method else [])])
    return Chosen((method, config), options, (loaded,))


def assign(chosen: Chosen, run: RunConfig, model: HunYuanVL) -> Assignment:
    """Decide what becomes of every linear. Raises ConfigError naming the rule: it matches nothing, splits layers that
    runtimes fuse or between which scales move, or its method refuses a layer."""
    if chosen.alone is None:
        return _by_rules(chosen.rules, model)
    method, config = chosen.alone
    plan = make_plan(
        model, config.ignore, keep_ends=config.keep_ends, quant_vit=config.quant_vit, misread=config.misread
    )
    found = _Taken(model)
    found.take(method, config, chosen.options, plan, run.overrides)
    for rule in chosen.rules:
        ignored = {name for name, memory in model.memory_names.items() if ignored_by(config.ignore, name, memory)}
        found.take_rule(rule, [name for name in _linears(model, vision=True) if name not in ignored])
    return found.assignment()


class _Taken:
    """The linears that methods have taken so far."""

    def __init__(self, model: HunYuanVL) -> None:
        self._model = model
        self._methods: dict[Method, tuple[MethodConfig, Mapping[str, Any]]] = {}
        self._options: dict[str, tuple[Method, MethodConfig]] = {}
        self.fallbacks: dict[str, Fallback] = {}
        self.left: dict[str, str] = {}

    def take(
        self,
        method: Method,
        config: MethodConfig,
        options: Mapping[str, Any],
        plan: Plan,
        overrides: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Give a method the linears of a plan, but for those that it leaves."""
        configs, fallbacks = layer_options(method, options, overrides, self._model, plan)
        self._methods.setdefault(method, (config, options))
        self.fallbacks |= fallbacks
        for name, own in configs.items():
            fallback = fallbacks.get(name)
            if fallback is None or fallback.options is not None:
                self._options[name] = method, own

    def take_rule(self, rule: LoadedRule, names: Sequence[str]) -> None:
        """Give a rule's method these linears, or leave them as they are."""
        if rule.method is None or rule.config is None:
            self.left |= dict.fromkeys(names, f"kept by {rule.where}")
            return
        memory = self._model.memory_names
        misread = [name for name in names if memory[name] in rule.config.misread]
        self.left |= dict.fromkeys(misread, f"runtimes misread it in format {rule.config.format}")
        rest = [name for name in names if name not in misread]
        if rest:
            self.take(rule.method, rule.config, rule.options, plan_of(self._model, rest), {})

    def assignment(self) -> Assignment:
        names = [name for vision in (True, False) for name in _linears(self._model, vision=vision)]
        taken = [name for name in names if name in self._options]
        plan = plan_of(self._model, taken)
        shares = [
            Share(method, *base, {name: own for name in taken for by, own in [self._options[name]] if by == method})
            for method, base in self._methods.items()
        ]
        return Assignment(tuple(share for share in shares if share.options), plan, self.fallbacks, self.left)


def _by_rules(rules: Sequence[LoadedRule], model: HunYuanVL) -> Assignment:
    owners: dict[str, LoadedRule] = {}
    found = _Taken(model)
    _check_patterns(rules, model)
    for name in (name for vision in (True, False) for name in _linears(model, vision=vision)):
        rule = matching(rules, name, model.memory_names[name])
        if rule is None:
            found.left[name] = "no rule matches it"
        else:
            owners[name] = rule
    _check_groups(owners, model)
    # The last first: it is mostly the one for the rest, and its method the main one.
    for rule in reversed(rules):
        names = [name for name, owner in owners.items() if owner is rule]
        if not names and rule.method is not None:
            raise ConfigError(f"{rule.where}: the rules before it take all that {_shown(rule)} matches; move it up")
        found.take_rule(rule, names)
    assignment = found.assignment()
    _check_smoothing(assignment.shares, owners, model)
    return assignment


def _load_rules(rules: Sequence[RecipeRule]) -> tuple[LoadedRule, ...]:
    """Load methods and check options; rules that differ share a checkpoint, and so a format that has room for that."""
    kinds: list[tuple[str, Any]] = []
    for rule in rules:
        if rule.quantizes and (rule.method, rule.options) not in kinds:
            kinds.append((rule.method, rule.options))
    loaded = tuple(_load(rule, f"recipe: rule {n}", shared=len(kinds) > 1) for n, rule in enumerate(rules, 1))
    if len(kinds) > 1:
        _check_sharing([rule.method for rule in loaded if rule.method is not None])
    return loaded


def _load(rule: RecipeRule, where: str, *, shared: bool) -> LoadedRule:
    if not rule.quantizes:
        return LoadedRule(rule, where, None, {}, None)
    method = load_method(rule.method)
    options = sharing(method, rule.options, f"{where}: options") if shared else rule.options
    return LoadedRule(rule, where, method, options, method.config(options, f"{where}: options"))


def sharing(method: Method, options: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The options with the format that has room for others, where none is named and the method has that one."""
    wanted = {"format": SHARED, **options}
    try:
        method.config(wanted, where)
    except ConfigError:
        return options
    return wanted


def _check_sharing(methods: Iterable[Method]) -> None:
    for method in methods:
        for hook in WHOLE:
            if method.implements(hook):
                raise ConfigError(
                    f"{method.entry}: its {hook} is about the whole checkpoint, so it can share none; use it without a "
                    "recipe, as --method, with --override for single layers"
                )


def _check_patterns(rules: Iterable[LoadedRule], model: HunYuanVL) -> None:
    memory = model.memory_names
    linears = {name for vision in (True, False) for name in _linears(model, vision=vision)}
    for rule in rules:
        for pattern in rule.rule.match:
            found = [name for name, other in memory.items() if matches(pattern, name) or matches(pattern, other)]
            if rule.method is None and found:
                continue
            if not linears.intersection(found):
                ends = HEAD, EMBEDDING, model.disk_module(EMBEDDING)
                reason = TIED if any(matches(pattern, end) for end in ends) else f"names look like {next(iter(memory))}"
                raise ConfigError(f"{rule.where}: {pattern!r} matches no linear of a block; {reason}")


def _check_groups(owners: Mapping[str, LoadedRule], model: HunYuanVL) -> None:
    """Layers that share an input are fused by runtimes, and quantized together."""
    for place in (*model.vision_blocks, *model.decoder_blocks):
        for group in model.groups(place):
            first, *others = group
            for name in others:
                one, other = owners.get(first), owners.get(name)
                if _kind(one) != _kind(other):
                    raise ConfigError(
                        f"{_named(other or one)} splits {first} and {name}, which share an input and are stored "
                        f"together: {_fate(one)}, {_fate(other)}; match both by one rule"
                    )


def _check_smoothing(shares: Sequence[Share], owners: Mapping[str, LoadedRule], model: HunYuanVL) -> None:
    """A method that moves scales into the layer before must have that layer too, unless it stays as it is."""
    by = {name: share for share in shares for name in share.options}
    for place in (*model.vision_blocks, *model.decoder_blocks):
        for source, targets in model.smoothed_linears(place):
            share, other = by.get(targets[0]), by.get(source)
            if share is not None and share.method.spec.rescales_block and other is not None and other is not share:
                raise ConfigError(
                    f"{owners[targets[0]].where}: {share.name} moves scales from {targets[0]} into {source}, which "
                    f"{owners[source].where} gives to {other.name}; give both to one method"
                )


def _linears(model: HunYuanVL, *, vision: bool) -> Iterator[str]:
    """On-disk names of a tower's linears, in the order in which they are quantized."""
    for place in model.vision_blocks if vision else model.decoder_blocks:
        for group in model.groups(place):
            yield from group


def _kind(rule: LoadedRule | None) -> tuple[Method, MethodConfig] | None:
    return None if rule is None or rule.method is None or rule.config is None else (rule.method, rule.config)


def _fate(rule: LoadedRule | None) -> str:
    return "one by no rule" if rule is None else f"one by {rule.where}"


def _named(rule: LoadedRule | None) -> str:
    return "recipe" if rule is None else rule.where


def _shown(rule: LoadedRule) -> str:
    return " and ".join(repr(pattern) for pattern in rule.rule.match)
