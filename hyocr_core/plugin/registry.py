"""Find, import and validate quantization methods: entry points of the group `hyocr.methods`."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from difflib import get_close_matches
from typing import Any

import pluggy
from pydantic import BaseModel

from hyocr_core.contract import hookspecs
from hyocr_core.contract.config import MethodConfig
from hyocr_core.contract.types import API_VERSION, MethodSpec
from hyocr_core.errors import MethodError, one_line
from hyocr_core.plugin import entry_points
from hyocr_core.plugin.entry_points import PluginEntry
from hyocr_core.plugin.method import Method, MethodEntry

__all__ = ["Method", "MethodEntry", "installed_methods", "load_method"]

REQUIRED_HOOKS = ("method_spec", "quantize_layer", "pack", "unpack", "checkpoint_config")

Impls = dict[str, Callable[..., Any]]


def installed_methods() -> list[MethodEntry]:
    """List the methods of all installed distributions, by name; reads metadata only and imports no plugin."""
    return entry_points.installed(MethodEntry)


def load_method(selector: str) -> Method:
    """Import the one plugin that offers `selector` (`gptq` or `hyocr-plugin-gptq:gptq`) and validate it.

    Warns of arguments of hooks that a later API version will not have (`warn_on_impl_args` in the hookspec).
    Raises MethodError: unknown, offered twice, fails to import, other API version, or the contract is not kept.
    """
    entry = entry_points.choose(MethodEntry, selector)
    plugin = _import(entry)
    manager = pluggy.PluginManager("hyocr")
    manager.add_hookspecs(hookspecs)
    try:
        impls = _collect_impls(manager, plugin)
        spec = _checked_spec(entry, impls)
        _check_hooks(impls, spec)
    except MethodError as error:
        raise MethodError(f"{entry}: {error}") from error.__cause__
    # Nothing is left that pluggy would refuse, half register or silently skip, so `check_pending` has no work.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        manager.register(plugin, entry.selector)
    for warning in caught:
        # pluggy names the plugin's file only.
        warnings.warn(f"{entry}: {warning.message}", warning.category, stacklevel=2)
    return Method(spec, entry, manager.hook)


def _import(entry: MethodEntry) -> object:
    plugin = entry_points.load(entry)
    if inspect.isclass(plugin):
        module, _, name = entry.value.partition(":")
        raise MethodError(
            f"{entry}: its entry point names the class {name}; make an instance in {module},"
            f" such as `plugin = {name}()`, and name {module}:plugin"
        )
    return plugin


def _collect_impls(manager: pluggy.PluginManager, plugin: object) -> Impls:
    """Find the plugin's hook functions by hook name, before anything is registered."""
    impls: Impls = {}
    for attribute in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, attribute)
        if not options:
            continue
        hook = options.get("specname") or attribute
        if options["hookwrapper"] or options["wrapper"]:
            raise MethodError(f"hook {hook} is a wrapper; a method has nothing to wrap, write a plain @hookimpl")
        if hook in impls:
            raise MethodError(f"two functions implement the hook {hook}")
        if hook in HOOKS or not options["optionalhook"]:
            impls[hook] = getattr(plugin, attribute)
    return impls


def _checked_spec(entry: MethodEntry, impls: Impls) -> MethodSpec:
    """Call the plugin's method_spec; the API version first, because nothing else can be judged without it."""
    if "method_spec" not in impls:
        raise MethodError(_missing("method_spec", impls))
    _check_signature("method_spec", impls["method_spec"])
    try:
        with redirect_stdout(sys.stderr):
            spec = impls["method_spec"]()
    except (Exception, SystemExit) as error:
        raise MethodError(f"hook method_spec: {one_line(error, named=True)}") from error
    if not isinstance(spec, MethodSpec):
        raise MethodError(f"hook method_spec must return a MethodSpec, not {type(spec).__name__}")
    check_api_version(spec.api_version, entry)
    if spec.inputs not in ("block", "group"):
        raise MethodError(f"its method_spec says inputs={spec.inputs!r}; a method sees a block or a group")
    if spec.rescales_block and spec.inputs == "group":
        raise MethodError('its method_spec says rescales_block and inputs="group"; only a whole block can be rescaled')
    if spec.original_inputs and spec.inputs == "group":
        raise MethodError('its method_spec says original_inputs and inputs="group"; only whole blocks are run once')
    if spec.name != entry.name:
        raise MethodError(f"its method_spec says the name {spec.name!r}, its entry point {entry.name!r}")
    check_config_class(spec.config_class, MethodConfig, entry)
    return spec


def check_api_version(version: object, entry: PluginEntry) -> None:
    """Refuse, by the error of the plugin's kind, one that was written for other contracts; version: one or several."""
    spoken = version if isinstance(version, tuple) else (version,)
    if API_VERSION not in spoken:
        newer = all(isinstance(each, int) and each > API_VERSION for each in spoken)
        version = " and ".join(map(str, spoken))
        upgrade = "hyocr-core" if newer else entry.distribution
        raise entry.error(
            f"it speaks plugin API {version}, this hyocr-core speaks {API_VERSION};"
            f" try: pip install --upgrade {upgrade}"
        )


def check_config_class(config_class: object, base: type[BaseModel], entry: PluginEntry) -> None:
    """Refuse, by the error of the plugin's kind, a class of options that is lax or says too little of them."""
    if not (inspect.isclass(config_class) and issubclass(config_class, base)):
        raise entry.error(f"its config class {config_class!r} does not derive from hyocr_core.{base.__name__}")
    name = config_class.__name__
    if not config_class.model_config.get("frozen") or config_class.model_config.get("extra") != "forbid":
        raise entry.error(f'its config class {name} must keep frozen=True and extra="forbid"')
    try:
        schema = config_class.model_json_schema()
    except Exception as error:
        raise entry.error(f"its config class {name} has no JSON Schema: {one_line(error, named=True)}") from error
    for model in (schema, *schema.get("$defs", {}).values()):
        if "properties" in model and model.get("additionalProperties") is not False:
            raise entry.error(f'the model {model["title"]} in its config class {name} must have extra="forbid"')
        bare = [key for key, field in model.get("properties", {}).items() if not field.get("description")]
        if bare:
            raise entry.error(f"the key {bare[0]} of its config class {model['title']} has no description")


def _check_hooks(impls: Impls, spec: MethodSpec) -> None:
    for hook, function in impls.items():
        if hook not in HOOKS:
            raise MethodError(f"there is no hook {hook}{did_you_mean(hook, list(HOOKS))}")
        _check_signature(hook, function)
    required = (*REQUIRED_HOOKS, "calibrate") if spec.needs_calibration else REQUIRED_HOOKS
    for hook in required:
        if hook not in impls:
            raise MethodError(_missing(hook, impls))


def _missing(hook: str, impls: Impls) -> str:
    strangers = [name for name in impls if name not in HOOKS]
    near = get_close_matches(hook, strangers, n=1)
    return f"it has no hook {hook}" + (f"; {near[0]} is no hook, rename it to {hook}" if near else "")


def did_you_mean(name: str, choices: Sequence[str]) -> str:
    """What a message about an unknown hook adds: the one that is meant, or all there are."""
    near = get_close_matches(name, choices, n=1)
    return f"; did you mean {near[0]}?" if near else f"; the hooks are {', '.join(choices)}"


def _check_signature(hook: str, function: Callable[..., Any]) -> None:
    """Refuse arguments that pluggy would reject, or silently never pass."""
    allowed = HOOKS[hook]
    offer = f"it may take: {', '.join(allowed)}" if allowed else "it takes none"
    for argument in inspect.signature(function).parameters.values():
        if argument.name not in allowed:
            raise MethodError(f"hook {hook} has the unknown argument {argument}; {offer}")
        if argument.kind is not argument.POSITIONAL_OR_KEYWORD:
            raise MethodError(f"hook {hook}: the argument {argument} must be a plain one, or it is never passed")
        if argument.default is not argument.empty:
            raise MethodError(f"hook {hook}: the argument {argument.name} has a default, so it is never passed")


def _hook_arguments() -> dict[str, list[str]]:
    functions = inspect.getmembers(hookspecs, lambda member: hasattr(member, "hyocr_spec"))
    return {name: list(inspect.signature(function).parameters) for name, function in functions}


HOOKS = _hook_arguments()
