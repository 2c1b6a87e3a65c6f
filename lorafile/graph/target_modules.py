"""Where a configuration's adapter sits in its model: the words and names of a spec as the names that PEFT takes."""

import json
import re
from collections.abc import Iterable
from math import gcd
from typing import Any

from lorafile.errors import ModelError
from lorafile.lock.lockfile import ModelLock
from lorafile.specs.bounded_regex import matches
from lorafile.specs.snapshot import snapshot
from lorafile.specs.tables.methods import METHODS
from lorafile.specs.target_modules import Inventory, layer_indexes, leaves, shortest_names, target_modules, target_names
from lorafile.units import did_you_mean, listing

# Settings that leave targets out, each with what means nothing without it.
_NARROWING = (("layers_to_transform", "layers_pattern"), ("exclude_modules",))
_PATTERNS = (("rank_pattern", "r", "init_r"), ("alpha_pattern", "lora_alpha", "alpha"))  # with what it falls back to
NARROWING_OR_PATTERN = tuple(names[0] for names in (*_NARROWING, *_PATTERNS))


def placed(method: str, settings: dict[str, Any], model: ModelLock) -> dict[str, Any]:
    """Return a method's settings with every name of a module resolved and checked against the model.

    :raises ModelError: when something that is named is nowhere in the model
    """
    resolved = dict(settings)
    if method == "ln_tuning":
        resolved["target_modules"] = _norms(settings["target_modules"], model)
    elif "target_modules" in settings:
        resolved["target_modules"] = _targets(f"{method}.target_modules", settings["target_modules"], model)
    if "feedforward_modules" in settings:
        resolved |= _feed_forward(settings, model)
    if isinstance(settings.get("layers_to_transform"), str):
        resolved["layers_to_transform"] = _layers(method, settings["layers_to_transform"], model)
    own = METHODS.get(method)
    if own is not None and own.divides:
        resolved[own.divides] = _divisor(method, own.divides, resolved, model)
    if own is not None and own.model_types and model.settings.get("model_type") not in own.model_types:
        raise ModelError(f"method: PEFT knows {own.title} for {listing(own.model_types)} models only.")
    if "adapter_layers" in settings:
        resolved["adapter_layers"] = _adapted_layers(method, settings["adapter_layers"], model)
    _check_experts(settings, model)
    _check_patterns(method, resolved, model)
    _check_saved(method, resolved, model)
    _check_tokens(method, resolved, model)
    return resolved


def _divisor(method: str, setting: str, settings: dict[str, Any], model: ModelLock) -> int:
    """Return the block size of a method, which divides every dimension of its modules; unset, the largest up to PEFT's.

    :raises ModelError: when the one that a spec sets does not
    """
    adapted = adapted_modules(settings, model.modules)
    common = gcd(*(size for module in adapted for size in model.modules[module]))
    most = settings[setting] or snapshot()[METHODS[method].config][setting]["default"]
    fits = max(size for size in range(1, max(most, 1) + 1) if common % size == 0)
    if settings[setting] not in (None, fits):
        raise ModelError(
            f"{method}.{setting}: {settings[setting]} does not divide every dimension of the adapted modules; the "
            f"largest size below it that does is {fits}."
        )
    return fits


def _adapted_layers(method: str, wanted: int | None, model: ModelLock) -> int:
    layers = layer_count(model.modules)
    if wanted is not None and wanted > layers:
        raise ModelError(f"{method}.adapter_layers: the model has only {layers} layers.")
    return wanted or layers


def adapted_modules(adapter: dict[str, Any], modules: Inventory) -> list[str]:
    """Return the modules that an adapter is put on, as PEFT chooses them."""
    names, layers, excluded = (adapter.get(n) for n in ("target_modules", "layers_to_transform", "exclude_modules"))
    without = _named(excluded or [], modules)
    targets = [module for module in _named(names or [], modules) if module not in without]
    if layers is None:
        return targets
    return [module for module in targets if next(int(part) for part in module.split(".") if part.isdigit()) in layers]


def without_idle(adapter: dict[str, Any], model: ModelLock) -> dict[str, Any]:
    """Return an adapter's settings without what changes nothing on this model, so that it changes no key.

    That is a choice of layers that leaves every target in, an exclusion that takes none out, and ranks and alphas of
    single modules that are those of all. With parameters of experts, or ranks that EVA divides, all stays as it is.
    """
    narrowing = [names for names in _NARROWING if adapter.get(names[0])]
    patterns = [names for names in _PATTERNS if adapter.get(names[0])]
    named = not adapter.get("target_parameters") and adapter.get("init_lora_weights") != "eva"
    if not (narrowing or patterns) or not named:
        return adapter
    settings, modules = dict(adapter), adapted_modules(adapter, model.modules)
    for names in narrowing if modules else ():
        without = {name: value for name, value in settings.items() if name not in names}
        settings = without if adapted_modules(without, model.modules) == modules else settings
    for pattern, *defaults in patterns if modules else ():
        default = next(settings[name] for name in defaults if name in settings)
        if all(of_pattern(settings[pattern], module, default) == default for module in modules):
            del settings[pattern]
    return settings


def layer_count(modules: Inventory) -> int:
    """Return the number of numbered blocks of a model."""
    return 1 + max((next(int(part) for part in name.split(".") if part.isdigit()) for name in modules), default=-1)


def of_pattern(patterns: dict[str, Any], module: str, default: Any) -> Any:
    """Return what PEFT takes for a module from a `rank_pattern` or `alpha_pattern`, which `placed` has seen."""
    return next((value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", module)), default)


def _named(names: list[str] | str, modules: Inventory) -> dict[str, None]:
    """Return the modules that PEFT finds by a list of names, or by a regular expression for their whole paths.

    :raises ModelError: when it is no regular expression, or one that never ends
    """
    if isinstance(names, str):
        return dict.fromkeys(module for module, match in _matched(names, names, modules) if match)
    return dict.fromkeys(
        module for module in modules if any(module == name or module.endswith(f".{name}") for name in names)
    )


def _matched(named: str, pattern: str, modules: Iterable[str]) -> Iterable[tuple[str, str | None]]:
    modules = tuple(modules)
    try:
        return zip(modules, matches(pattern, modules), strict=True)
    except ValueError as error:
        raise ModelError(f'"{named}" {error}.') from error


def _targets(setting: str, targets: str | list[str], model: ModelLock) -> list[str]:
    asked = (setting, repr(targets))
    if asked not in model.resolved:
        try:
            model.resolved[asked] = target_names(targets, model.modules, setting, reserved=model.reserved)
        except ModelError as error:
            raise ModelError(f"{error}{_about_experts(setting, model)}") from error
    return model.resolved[asked]


def _about_experts(setting: str, model: ModelLock) -> str:
    """Return what adapts a model's experts, which are no layers."""
    if not model.experts or not setting.startswith("lora."):
        return ""
    return f" To adapt its experts, set lora.target_parameters = {json.dumps(_expert_names(model))}."


def _expert_names(model: ModelLock) -> list[str]:
    """Return the shortest names of a model's experts."""
    return sorted({".".join(name.split(".")[-2:]) for name in model.experts})


def _feed_forward(settings: dict[str, Any], model: ModelLock) -> dict[str, Any]:
    """Return IA³'s two lists of names; PEFT wants each feed-forward name among the target names."""
    wanted = target_modules(settings["target_modules"], model.modules, "ia3.target_modules")
    inputs = wanted & target_modules(settings["feedforward_modules"], model.modules, "ia3.feedforward_modules")
    everything = [*model.modules, *model.reserved]
    inner, outer = shortest_names(inputs, everything), shortest_names(wanted - inputs, everything)
    return {"target_modules": sorted({*inner, *outer}), "feedforward_modules": inner}


def _layers(method: str, word: str, model: ModelLock) -> list[int]:
    """Return the layers of a word; an empty list would mean every layer to PEFT."""
    layers = layer_indexes(word, layer_count(model.modules))
    if not layers:
        raise ModelError(
            f'{method}.layers_to_transform: "{word}" selects no layer of a model with {layer_count(model.modules)}.'
        )
    return layers


def _norms(targets: str | list[str], model: ModelLock) -> list[str]:
    if not model.norms:
        raise ModelError("ln_tuning: the lock lists no norms for this model; recreate it with: lora lock SPEC")
    if targets == "all-norms":
        return leaves(model.norms)
    return target_names(targets, {name: [] for name in model.norms}, "ln_tuning.target_modules", "norm")


def _check_experts(settings: dict[str, Any], model: ModelLock) -> None:
    """Refuse parameters that the model does not have, and what PEFT cannot do with those of experts."""
    wanted = settings.get("target_parameters") or []
    if not wanted and settings.get("target_modules") == []:
        raise ModelError("lora.target_modules: is empty, so nothing would be adapted.")
    endings = _expert_names(model)
    for name in wanted:
        if not any(f".{parameter}".endswith(f".{name}") for parameter in model.experts):
            there = f"it has {', '.join(endings)}" if endings else "this model has none"
            raise ModelError(f'lora.target_parameters: no expert parameter is named "{name}"; {there}.')
    plain = settings.get("init_lora_weights") in (True, False, "gaussian")
    for setting, wrong, remedy in (
        ("lora_dropout", settings.get("lora_dropout"), "0.0"),
        ("use_dora", settings.get("use_dora"), "false"),
        ("lora_bias", settings.get("lora_bias"), "false"),
        ("init_lora_weights", not plain, "true"),
        ("rank_pattern", settings.get("rank_pattern"), "{}"),
    ):
        if wanted and wrong:
            raise ModelError(f"lora.{setting}: PEFT does not support this with target_parameters; set it to {remedy}.")


def _check_patterns(method: str, settings: dict[str, Any], model: ModelLock) -> None:
    """Refuse a pattern that matches nothing: PEFT would read past it."""
    if not settings.get("rank_pattern") and not settings.get("alpha_pattern"):
        return
    adapted = adapted_modules(settings, model.modules)
    for setting in ("rank_pattern", "alpha_pattern"):
        for pattern in settings.get(setting) or {}:
            if not any(match for _, match in _matched(pattern, rf"(.*\.)?({pattern})", adapted)):
                names = leaves(adapted)
                hint = did_you_mean(pattern, names, f"there are {', '.join(names)}.")
                raise ModelError(f'{method}.{setting}: "{pattern}" matches none of the adapted modules; {hint}')


def _check_saved(method: str, settings: dict[str, Any], model: ModelLock) -> None:
    """Refuse a module to save that the model does not have: PEFT would read past it."""
    if not settings.get("modules_to_save"):
        return
    names = {".".join(name.split(".")[:-1]) for name in model.tensors} | set(model.modules) | {"lm_head"}
    parents = {".".join(name.split(".")[:end]) for name in names for end in range(1, name.count(".") + 2)}
    leaf_names = sorted({leaf for name in parents if not (leaf := name.rsplit(".", 1)[-1]).isdigit()})
    for name in settings["modules_to_save"]:
        if not any(parent == name or parent.endswith(f".{name}") for parent in parents):
            hint = did_you_mean(name, leaf_names, f"it has {', '.join(leaf_names)}.")
            raise ModelError(f'{method}.modules_to_save: the model has no module named "{name}"; {hint}')


def _check_tokens(method: str, settings: dict[str, Any], model: ModelLock) -> None:
    setting = "token_indices" if "token_indices" in settings else "trainable_token_indices"
    given = settings.get(setting) or []
    numbers = [number for row in given.values() for number in row] if isinstance(given, dict) else given
    rows = (model.settings.get("text_config") or model.settings).get("vocab_size")
    if rows and numbers and max(numbers) >= rows:
        raise ModelError(f"{method}.{setting}: {max(numbers)} is not a token of a model with {rows}, from 0.")
