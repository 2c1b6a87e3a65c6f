"""What each configuration of a plan is, what it needs, and whether that fits: one table."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from lorafile.cli.views.console import MOST
from lorafile.cli.views.table import Column, show_table
from lorafile.graph.parameter_count import trained_adapter, trained_parameters
from lorafile.lock.lockfile import identity
from lorafile.plan.cost import estimate_cost
from lorafile.plan.forecast.forecasts import WALK_GIVEN_UP
from lorafile.plan.plan import Change, Plan
from lorafile.specs import Configuration
from lorafile.specs.optimizers import DEFAULT_OPTIMIZER
from lorafile.specs.target_modules import leaves, shortest_names
from lorafile.units import and_more, duration, listing, memory_size, size

_MOST_NAMES = 9  # of modules, that are shown as PEFT needs them
_COLUMNS = (
    Column("configuration", "name"),
    Column("adapter", "text", omit=4),
    Column("on", "text", omit=2),
    Column("parameters", right=True),
    Column("quantization", omit=1),
    Column("optimizer", omit=3),
    Column("rate", "text", omit=3),
    Column("peak memory"),
    Column("fits"),
    Column("time per seed"),
)
_OPTIMIZER = [column.title for column in _COLUMNS].index("optimizer")


def show_requirements(plan: Plan, out: Console, full: bool) -> None:
    """Show what each configuration with work needs, and what its words were resolved to."""
    owners = plan.graph.spec.owners
    named: dict[str, list[Change]] = {}  # a candidate's work is its configuration's
    for change in in_spec_order(plan, plan.work):
        if change.kind != "prepare":
            named.setdefault(owners.get(change.configuration, change.configuration), []).append(change)
    if not named:
        return
    word_of = module_words(plan)
    most = len(named) if full or len(named) <= MOST + 1 else MOST
    rows = [_need(plan, name, changes, word_of) for name, changes in list(named.items())[:most]]
    if all(row[_OPTIMIZER] in ("", DEFAULT_OPTIMIZER) for row in rows):
        rows = [[*row[:_OPTIMIZER], "", *row[_OPTIMIZER + 1 :]] for row in rows]
    out.print("[bold]Requirements[/]")
    show_table(_COLUMNS, rows, out, complete=most >= len(named))
    if more := and_more(len(named), most, "configurations; --full shows them"):
        out.print(more)
    words = {word for word in word_of.values() if any(word in row[2] for row in rows)}
    for line in dict.fromkeys(_word_lines(plan, words)):
        out.print(f"[dim]{escape(line)}[/]")


def in_spec_order(plan: Plan, changes: Iterable[Change]) -> list[Change]:
    """Return the nodes in the order of the spec's configurations, after the data's; others come last."""
    spec = plan.graph.spec
    order = {configuration.name: number for number, configuration in enumerate(spec.configurations)}
    owners = spec.owners

    def position(change: Change) -> int:
        name = owners.get(change.configuration, change.configuration)
        return -1 if change.kind == "prepare" else order.get(name, len(order))

    return sorted(changes, key=position)


def _need(plan: Plan, name: str, changes: list[Change], word_of: dict[tuple[str, ...], str]) -> list[str]:
    from lorafile.specs.tables.quantizations import quantization_name

    sections = plan.graph.sections[name]
    adapter = sections["adapter"]
    forecast = [(change, change.forecast) for change in changes if change.forecast]
    peaks = [values["reserved_bytes"] for _, values in forecast if "reserved_bytes" in values]
    fits = [values["fits"] for _, values in forecast if "fits" in values]
    once = [pair for pair in forecast if plan.graph.nodes[pair[0].key].repeat == 1] or forecast
    first = [(change, values) for change, values in once if change.seed == once[0][0].seed]
    unknown = any("seconds" not in values for _, values in forecast)
    for_a_seed = sum(values.get("seconds", 0.0) for change, values in first if change.kind != "profile")
    return [
        name,
        _what(adapter, plan.graph.spec.start(plan.graph.spec.named[name])),
        _targets(plan, name, word_of),
        _parameters(plan, name),
        quantization_name(sections["quantization"]),
        sections["training"].get("optim", DEFAULT_OPTIMIZER) if "training" in sections else "",
        _rate(plan, name),
        "unknown" if unknown else memory_size(max(peaks)) if peaks else "",
        "unknown" if unknown else "" if not fits else "yes" if all(fits) else "NO",
        "unknown" if unknown else duration(for_a_seed) if for_a_seed else "",
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
    sections = plan.graph.sections[name]
    count = trained_parameters(sections | {"adapter": trained_adapter(sections)}, lock)
    return f"{count:,}" if count else ""


def _what(adapter: dict[str, Any], source: Configuration | None) -> str:
    """Return `r=16 alpha=32`, with the method's name where it is not LoRA; its rank is the solved one.

    :param source: what it starts from, if that is another configuration's adapter
    """
    from lorafile.specs.tables.methods import METHODS

    method = METHODS.get(adapter["method"])
    starts = [f"from {source.name}"] if source else []
    if method is None:
        return " ".join([str(adapter["method"]), *starts])
    words = [] if adapter["method"] == "lora" else [adapter["method"]]
    words += [f"r={adapter[method.rank]}"] if method.rank else []
    words += [f"alpha={adapter[method.alpha]}"] if method.alpha else []
    words += [f"{adapter['num_virtual_tokens']} virtual tokens"] if "num_virtual_tokens" in adapter else []
    start = adapter.get("init_lora_weights", True)
    start = start["function"] if isinstance(start, dict) else start
    return " ".join([*words, *([start] if isinstance(start, str) else []), *starts])


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


def _word_lines(plan: Plan, words: set[str]) -> Iterator[str]:
    """Say which modules each word stands for, by their shortest names, however a method needs them named."""
    told: set[tuple[str, ...]] = set()
    for configuration in plan.graph.spec.configurations:
        word = (configuration.adapter or {}).get("target_modules")
        names = tuple(plan.graph.sections[configuration.name]["adapter"].get("target_modules") or ())
        where = identity(configuration.model)
        if not isinstance(word, str) or word not in words or (where, *names) in told:
            continue
        told.add((where, *names))
        model = plan.graph.lock.models[where]
        modules = {module for module in model.modules if any(f".{module}".endswith(f".{name}") for name in names)}
        shortest = shortest_names(modules, [*model.modules, *model.reserved]) if modules else names
        yield f"{word} here: {', '.join(shown(shortest))}"


def cost_line(plan: Plan, device: str = "") -> str:
    """Say what it would cost: work in all, on the clock with this machine's workers, disk, energy, money."""
    sums = estimate_cost(plan)
    span = f" ({duration(sums.seconds_low)} to {duration(sums.seconds_high)})"
    with_workers = f", about {duration(sums.clock_seconds)} with {plan.workers} workers" if plan.workers > 1 else ""
    rest = f"; {size(sums.disk_bytes)} in the state" if sums.disk_bytes else ""
    rest += f"; {sums.joules / 3.6e6:.2g} kWh" if sums.joules else ""
    if sums.cost is not None and (price := plan.hourly) is not None:
        rest += f"; {price.money(sums.cost)} for {sums.device_hours:.2g} hours at {price.money(price)} an hour"
    later = "; work that follows the choices is not included" if any(status.later for status in plan.tuning) else ""
    on = device or plan.device
    if sums.unknown:
        runs = f"{sums.unknown} run{'s' if sums.unknown > 1 else ''}"
        later += f"; how long {runs} of trainers will take is unknown until the first one is done"
    line = f"Forecast: {duration(sums.seconds)} of work{span} on {on}{with_workers}{rest} ({sums.source}){later}."
    parts = [f"{name} {duration(seconds)}" for name, seconds in sums.parts.items() if seconds]
    without = " (profile.enabled = false skips it)" if sums.parts["measuring"] else ""
    return f"{line} Of this, {listing(parts)}{without}." if len(parts) > 1 else line


def memory_limit(plan: Plan) -> str:
    """Say what peak memory is compared with; nothing where nothing loads a model."""
    target = plan.target
    if target is None or not any("fits" in (change.forecast or {}) for change in plan.work):
        return ""
    if not target.gpu:
        return f"Peak memory is the memory of one worker; {target.name} has {memory_size(target.memory)}."
    taken = f"driver and CUDA context take {memory_size(target.overhead)}"
    name = target.name[:1].upper() + target.name[1:]
    return f"{name} has {memory_size(target.memory)}; {taken}, which leaves {memory_size(target.usable)}."


def memory_lines(plan: Plan) -> list[str]:
    """Return a line for each configuration that does not fit, with its peak and the cheapest change that helps.

    Before them: for which configurations memory is known worse than it could be.
    """
    owners = plan.graph.spec.owners
    by_name: dict[str, list[dict[str, Any]]] = {}
    for change in plan.work:
        if "fits" in (forecast := change.forecast or {}):
            by_name.setdefault(owners.get(change.configuration, change.configuration), []).append(forecast)
    sources = dict.fromkeys((c.configuration, (c.forecast or {}).get("memory_source")) for c in plan.work)
    given_up = [name for name, source in sources if source == WALK_GIVEN_UP]
    lines = [f"Peak memory of {listing(given_up)} is {WALK_GIVEN_UP}."] if given_up else []
    has = f", and {plan.target.name} has {memory_size(plan.target.usable)} available" if plan.target else ""
    return lines + [
        f"{name} does not fit: it needs {memory_size(max(row['reserved_bytes'] for row in rows))}{has}. {_remedy(rows)}"
        for name, rows in by_name.items()
        if not all(row["fits"] for row in rows)
    ]


def _remedy(forecasts: list[dict[str, Any]]) -> str:
    """Return what to do about a configuration that does not fit."""
    remedies = [row["would_fit"] for row in forecasts if "would_fit" in row]
    if not remedies:
        return "Training fits but prediction does not: it needs a smaller or quantized base."
    if None in remedies:
        return "No change that was tried makes it fit."
    return f"It would fit with {remedies[0]}."
