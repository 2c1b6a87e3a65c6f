"""Runs that start from another configuration's adapter (`train.from`): whether they can, and what of it they take."""

from collections.abc import Iterable, Iterator
from typing import Any

from lorafile.errors import ModelError
from lorafile.specs import Configuration, Spec
from lorafile.specs.tables.lora import FIXED_B, REWRITING
from lorafile.specs.tables.quantizations import quantization_name

_INIT = "init_lora_weights"
# Settings of an adapter that matter before the first step alone, or only while it trains.
_BEGINNING = (
    *(_INIT, "init_weights", "init_ia3_weights", "eva_config", "corda_config", "lora_ga_config"),
    *("prompt_tuning_init", "prompt_tuning_init_text"),
)
_MOST_SHOWN = 8  # names of a list in a message
Sections = dict[str, Any]


def sources(spec: Spec, configurations: Iterable[Configuration]) -> dict[str, Configuration]:
    """Return name -> every configuration that some of them start from, directly or not."""
    found: dict[str, Configuration] = {}
    for configuration in configurations:
        source = spec.start(configuration)
        while source is not None and source.name not in found:
            found[source.name] = source
            source = spec.start(source)
    return found


def started_sections(
    configuration: Configuration, sections: Sections, source: Configuration, before: Sections
) -> Sections:
    """Return the sections of a configuration that starts from another one's adapter: without a beginning of its own.

    A new head for other classes is noted: it is drawn from the run's seed, as it would be without a start.

    :param before: the sections of what it starts from
    :raises ModelError: when PEFT could not load that adapter as this one's
    """
    if problem := _refusal(configuration, sections, source, before):
        raise ModelError(f'train.from: "{configuration.name}" cannot start from "{source.name}": {problem}.')
    started = {**sections, "adapter": _without_beginning(sections["adapter"])}
    return started if _head(sections) == _head(before) else {**started, "start": {"head": "new"}}


def _refusal(configuration: Configuration, here: Sections, source: Configuration, there: Sections) -> str:
    """Return why an adapter cannot be gone on from, or nothing."""
    method = there["adapter"]["method"]
    if method == "adalora":
        return "a trained AdaLoRA has given up ranks, and could not give up more of them"
    if there["adapter"].get("eva_config", {}).get("rho", 1) > 1:
        return f'the ranks of "{source.name}" follow from its data; set lora.eva_config.rho = 1 for it'
    for name, one, other in _differences(configuration, here, source, there):
        return f"{name} is {_shown(one)} here and {_shown(other)} there"
    if _head(here) != _head(there) and method in ("head", "full"):
        one, other = (_shown(_head(sections)) for sections in (here, there))
        return f'with method = "{method}" the head is kept, and its classes are {one} here and {other} there'
    return ""


def _differences(
    configuration: Configuration, here: Sections, source: Configuration, there: Sections
) -> Iterator[tuple[str, Any, Any]]:
    """Yield (setting, its value here, its value there) for all in which base or adapter are not the same."""
    if here["model"]["weights"] != there["model"]["weights"]:
        yield "model.path", configuration.model.path, source.model.path
    for name, default in (("dtype", None), ("task_type", "CAUSAL_LM")):
        yield from _differing(f"model.{name}", *(sections["model"].get(name, default) for sections in (here, there)))
    yield from _differing("quantization", *(quantization_name(sections["quantization"]) for sections in (here, there)))
    yield from _differing("method", *(sections["adapter"]["method"] for sections in (here, there)))
    one, other = _shape(here["adapter"]), _stored_shape(there["adapter"])
    for name in dict.fromkeys([*one, *other]):
        yield from _differing(f"{one['method']}.{name}", one.get(name), other.get(name))


def _differing(name: str, here: Any, there: Any) -> Iterator[tuple[str, Any, Any]]:
    if here != there:
        yield name, here, there


def _shape(adapter: Sections) -> Sections:
    """Return the settings by which an adapter is loaded and computed with; a B that stays as it is is one of them."""
    fixed = {_INIT: FIXED_B} if adapter.get(_INIT) == FIXED_B else {}
    return {name: adapter[name] for name in adapter if name not in _BEGINNING and not name.endswith("dropout")} | fixed


def _stored_shape(adapter: Sections) -> Sections:
    """Return the same of an adapter as it is stored: of twice the rank where its beginning rewrote the base."""
    shape = _shape(adapter)
    if not str(adapter.get(_INIT)).startswith(REWRITING):
        return shape
    growth = 2**0.5 if adapter.get("use_rslora") else 2
    for name, factor in (("r", 2), ("rank_pattern", 2), ("lora_alpha", growth), ("alpha_pattern", growth)):
        if isinstance(shape.get(name), dict):
            shape[name] = {pattern: factor * value for pattern, value in shape[name].items()}
        elif name in shape:
            shape[name] = factor * shape[name]
    return shape


def _without_beginning(adapter: Sections) -> Sections:
    return {name: value for name, value in adapter.items() if name not in _BEGINNING or value == FIXED_B}


def _head(sections: Sections) -> Any:
    """Return the classes of a head in the order of its scores, or how many numbers it predicts; None without one."""
    return sections["model"].get("labels") or sections["model"].get("num_labels")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value[:_MOST_SHOWN])) + (", …" if len(value) > _MOST_SHOWN else "")
    if isinstance(value, float):
        return f"{value:g}"
    return "unset" if value is None else f'"{value}"' if isinstance(value, str) else str(value)
