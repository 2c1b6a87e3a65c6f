"""What each configuration of a plan is, what it needs, and whether that fits: one table."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lorafile.cli.views.console import MOST
from lorafile.graph.parameter_count import trained_parameters
from lorafile.lock.lockfile import identity
from lorafile.plan.cost import estimate_cost
from lorafile.plan.plan import Change, Plan
from lorafile.specs.target_modules import leaves
from lorafile.units import duration, memory_size, size

_MOST_NAMES = 9  # of modules, that are shown as PEFT needs them
_NAME, _OTHERS = 12, 70  # characters for a name, at least; those in which everything else is still readable


def requirements(plan: Plan, full: bool) -> Table:
    """Return a table of what each configuration with work needs, and what its words were resolved to."""
    styles: dict[str, Any] = {"header_style": "bold", "title_style": "bold", "title_justify": "left"}
    table = Table(box=None, pad_edge=False, title="What they need", **styles)
    titles = ("configuration", "adapter", "on", "parameters", "quantization", "rate", "peak memory", "fits")
    for title in (*titles, "time for a seed"):
        table.add_column(title, overflow="fold")
    owners = plan.graph.spec.owners
    named: dict[str, list[Change]] = {}  # a candidate's work is its configuration's
    for change in plan.work:
        if change.kind != "prepare":
            named.setdefault(owners.get(change.configuration, change.configuration), []).append(change)
    word_of = module_words(plan)
    for number, (name, changes) in enumerate(named.items()):
        if number == MOST and len(named) > MOST + 1 and not full:
            table.add_row("…")
            break
        table.add_row(*map(escape, _need(plan, name, changes, word_of)))
    return table


def fitted(table: Table, out: Console) -> Table:
    """Return the table as a terminal has room for it: where that is scarce, names get what others do not need."""
    if out.measure(table, options=out.options.update(width=1000)).maximum > out.width:
        longest = max(len(str(cell)) for cell in table.columns[0].cells)
        table.columns[0].width = min(longest, max(_NAME, out.width - _OTHERS))
    return table


def _need(plan: Plan, name: str, changes: list[Change], word_of: dict[tuple[str, ...], str]) -> list[str]:
    from lorafile.specs.tables.quantizations import quantization_name

    sections = plan.graph.sections[name]
    adapter = sections["adapter"]
    forecast = [(change, change.forecast) for change in changes if change.forecast]
    peaks = [values["reserved_bytes"] for _, values in forecast if "reserved_bytes" in values]
    fits = [values["fits"] for _, values in forecast if "fits" in values]
    once = [pair for pair in forecast if plan.graph.nodes[pair[0].key].repeat == 1] or forecast
    first = [(change, values) for change, values in once if change.seed == once[0][0].seed]
    for_a_seed = sum(values.get("seconds", 0.0) for change, values in first if change.kind != "profile")
    return [
        name,
        _what(adapter),
        _targets(plan, name, word_of),
        _parameters(plan, name),
        quantization_name(sections["quantization"]),
        _rate(plan, name),
        memory_size(max(peaks)) if peaks else "",
        "" if not fits else "yes" if all(fits) else "NO",
        duration(for_a_seed) if for_a_seed else "",
    ]


def _rate(plan: Plan, name: str) -> str:
    """Return a configuration's learning rate; where it is not chosen yet, the lowest and highest that are tried."""
    configuration, sections = plan.graph.spec.named[name], plan.graph.sections[name]
    tried = configuration.tuned.tried("train.learning_rate") if configuration.tuned and configuration.open else ()
    if tried:
        return f"{min(tried):g} to {max(tried):g}"
    return f"{sections['training']['learning_rate']:g}" if "training" in sections else ""


def _parameters(plan: Plan, name: str) -> str:
    """Return how many parameters a configuration trains."""
    configuration = plan.graph.spec.named[name]
    lock = plan.graph.lock.models[identity(configuration.model)]
    count = trained_parameters(plan.graph.sections[name], lock)
    return f"{count:,}" if count else ""


def _what(adapter: dict[str, Any]) -> str:
    """Return `r=16 alpha=32`, with the method's name where it is not LoRA; its rank is the solved one."""
    from lorafile.specs.tables.methods import METHODS

    method = METHODS.get(adapter["method"])
    if method is None:
        return str(adapter["method"])
    words = [] if adapter["method"] == "lora" else [adapter["method"]]
    words += [f"r={adapter[method.rank]}"] if method.rank else []
    words += [f"alpha={adapter[method.alpha]}"] if method.alpha else []
    words += [f"{adapter['num_virtual_tokens']} virtual tokens"] if "num_virtual_tokens" in adapter else []
    start = adapter.get("init_lora_weights", True)
    return " ".join([*words, start] if isinstance(start, str) else words)


def _targets(plan: Plan, name: str, word_of: dict[tuple[str, ...], str]) -> str:
    """Return what an adapter is put on: the spec's own word where it used one; its names stand below the table."""
    adapter = plan.graph.sections[name]["adapter"]
    names = adapter.get("target_modules", [])
    parts = [word_of.get(tuple(names), ""), *adapter.get("target_parameters", [])]
    parts[0] = parts[0] or ", ".join(shown(names))
    word = ", ".join(filter(None, parts))
    layers = adapter.get("layers_to_transform")
    return f"{word} in layers {', '.join(map(str, layers))}" if layers else word


def shown(names: Sequence[str]) -> list[str]:
    """Return names of modules as a person tells them apart: of many, whole paths among them, their last parts."""
    return list(names) if len(names) <= _MOST_NAMES else leaves(names)


def module_words(plan: Plan) -> dict[tuple[str, ...], str]:
    """Return module names -> the word of the spec that stands for them."""
    word_of = {}
    for configuration in plan.graph.spec.configurations:
        word = (configuration.adapter or {}).get("target_modules")
        if isinstance(word, str):
            word_of[tuple(plan.graph.sections[configuration.name]["adapter"]["target_modules"])] = word
    return word_of


def cost_line(plan: Plan, device: str = "") -> str:
    """Say what it would cost: work in all, on the clock with this machine's workers, disk, energy, money."""
    sums = estimate_cost(plan)
    span = f" ({duration(sums.seconds_low)} to {duration(sums.seconds_high)})"
    with_workers = f", about {duration(sums.clock_seconds)} with {plan.workers} workers" if plan.workers > 1 else ""
    rest = f"; {size(sums.disk_bytes)} in the state" if sums.disk_bytes else ""
    rest += f"; {sums.joules / 3.6e6:.2g} kWh" if sums.joules else ""
    if sums.cost is not None:
        rest += f"; {sums.cost:.2f} for {sums.device_hours:.2g} hours at {plan.hourly:g}"
    later = "; what follows the choices comes on top" if any(status.later for status in plan.tuning) else ""
    on = device or plan.device
    return f"Forecast: {duration(sums.seconds)} of work{span} on {on}{with_workers}{rest} ({sums.source}){later}."


def memory_limit(plan: Plan) -> str:
    """Say what peak memory is compared with; nothing where nothing loads a model."""
    target = plan.target
    if target is None or not any("fits" in (change.forecast or {}) for change in plan.work):
        return ""
    if not target.gpu:
        return f"Peak memory is what a worker holds; {target.name} has {memory_size(target.memory)}."
    taken = f"driver and CUDA context take {memory_size(target.overhead)}"
    return f"{target.name} has {memory_size(target.memory)}; {taken}, so that {memory_size(target.usable)} are left."


def memory_lines(plan: Plan) -> list[str]:
    """Return a line for each configuration that does not fit, with its peak and the cheapest change that helps."""
    owners = plan.graph.spec.owners
    by_name: dict[str, list[dict[str, Any]]] = {}
    for change in plan.work:
        if "fits" in (forecast := change.forecast or {}):
            by_name.setdefault(owners.get(change.configuration, change.configuration), []).append(forecast)
    has = f", and {plan.target.name} has {memory_size(plan.target.usable)} for it" if plan.target else ""
    return [
        f"{name} does not fit: it needs {memory_size(max(row['reserved_bytes'] for row in rows))}{has}. {_remedy(rows)}"
        for name, rows in by_name.items()
        if not all(row["fits"] for row in rows)
    ]


def _remedy(forecasts: list[dict[str, Any]]) -> str:
    """Return what to do about a configuration that does not fit."""
    remedies = [row["would_fit"] for row in forecasts if "would_fit" in row]
    if not remedies:
        return "Its training fits; its predictions do not: they need a smaller or a quantized base."
    if None in remedies:
        return "Nothing that was tried would make it fit."
    return f"It would fit with {remedies[0]}."
