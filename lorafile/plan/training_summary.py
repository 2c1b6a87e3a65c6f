"""What would be trained: the rows of each split and what becomes of them, and the steps of each run."""

from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from lorafile.graph.graph import Graph, GraphNode
from lorafile.graph.notices import optimizer_steps, warmup_steps
from lorafile.graph.validation import evaluations
from lorafile.lock.lockfile import identity, shown_name
from lorafile.plan.forecast.lengths import characters_per_token, packed_text, source_of
from lorafile.plan.plan import Plan
from lorafile.specs.tables.train import PACKED_ROW_LENGTH
from lorafile.units import listing, plural

MANY = 0.05  # of a split's rows: so many that are dropped or cut are named
_TEMPLATE = 8  # tokens that a template adds
_WORDS = {"drop": "dropped", "truncate": "cut", "error": "refused: set data.too_long"}


@dataclass(frozen=True)
class SplitRows:
    """One split of one data set, as a tokenizer reads it.

    :ivar too_long: rows of more than `max_length` tokens; None where the lock says nothing of it
    :ivar empty: rows without an answer; None before they are prepared
    :ivar exact: counted by a finished `prepare`, and not estimated from characters
    """

    data: str
    split: str
    rows: int
    max_length: int
    handling: str
    too_long: int | None
    empty: int | None
    exact: bool


@dataclass(frozen=True)
class RunSteps:
    """How long runs train.

    :ivar epochs: passes over the examples; `batch`: examples of an optimizer step
    :ivar tokens: of a run, padding not counted; `exact`: whether its examples are prepared
    :ivar evaluations: on validation while it trains, at most; `evaluated`: the rows that each reads
    :ivar metric: what decides which step is the best; empty without evaluations
    :ivar selects: what follows from it: the best step is kept, training stops early
    :ivar packed_row_length: the most tokens of a row into which a step's examples are packed, where they are
    """

    configurations: tuple[str, ...]
    steps: int
    epochs: float
    batch: int
    warmup: int
    tokens: int
    exact: bool
    evaluations: int = 0
    evaluated: int = 0
    metric: str = ""
    selects: str = ""
    packed_row_length: int | None = None


def split_rows(plan: Plan) -> list[SplitRows]:
    """Return the splits that work of the plan reads, each once."""
    graph, results = plan.graph, plan.results
    read = {key for change in plan.work for key in (change.key, *graph.nodes[change.key].inputs.values())}
    found: dict[SplitRows, None] = {}
    for node in graph.nodes.values():
        if node.kind == "prepare" and node.key in read and "rows" in node.settings["data"] and node.split:
            done = results.get(node.key)
            row = _split(graph, node, done.figures if done is not None else {})
            if row is not None:
                found[row] = None
    return list(found)


def run_steps(plan: Plan) -> list[RunSteps]:
    """Return the runs that would train, those of equal length together."""
    examples: dict[str, _Examples | None] = {}  # of each prepared split: thousands of runs read one
    groups: dict[RunSteps, dict[str, None]] = {}
    for change in plan.work:
        node = plan.graph.nodes[change.key]
        prepare = plan.graph.nodes.get(node.inputs.get("train", "")) if node.kind == "train" else None
        if prepare is not None:
            if prepare.key not in examples:
                examples[prepare.key] = _examples(plan, prepare)
            if (read := examples[prepare.key]) is not None:
                groups.setdefault(_run(node.settings, read), {})[node.configuration] = None
    return [replace(run, configurations=tuple(names)) for run, names in groups.items()]


def as_json(plan: Plan) -> dict[str, Any]:
    """Return both as the JSON of a plan has them."""
    runs = [{**asdict(run), "configurations": list(run.configurations)} for run in run_steps(plan)]
    return {"splits": [asdict(row) for row in split_rows(plan)], "runs": runs}


def dropped_lines(rows: list[SplitRows]) -> list[str]:
    """Say where many rows of a split are dropped, cut or refused, and whether that is counted or estimated."""
    lines = []
    for row in rows:
        if row.too_long and (row.too_long > MANY * row.rows or row.handling == "error"):
            about = "" if row.exact else "about "
            source = "" if row.exact else " (estimated from lengths in characters; prepare counts tokens)"
            verb = "are" if row.exact else "would be"
            share, of_rows = f"{100 * row.too_long / row.rows:.0f} %", plural(row.rows, f"{row.split} row")
            lines.append(
                f"{row.data}: {about}{row.too_long:,} of {of_rows} ({share}) are longer than "
                f"data.max_length = {row.max_length} tokens and {verb} {_WORDS[row.handling]}{source}."
            )
        if row.empty and row.empty > MANY * row.rows:
            lines.append(f"{row.data}: {row.empty:,} of {plural(row.rows, f'{row.split} row')} have an empty answer.")
    return lines


def training_lines(rows: list[SplitRows], runs: list[RunSteps]) -> list[str]:
    """Return the sizes of each data set's splits, and how long each group of runs trains."""
    names, lines = dict.fromkeys(row.data for row in rows), list[str]()
    for name in names:
        sizes = dict.fromkeys(plural(row.rows, f"{row.split} row") for row in rows if row.data == name)
        lines.append(f"Data{f' {name}' if len(names) > 1 else ''}: {listing(list(sizes))}.")
    for run in runs:
        about, steps = "" if run.exact else "about ", plural(run.steps, "step")
        named = f" of {listing(list(run.configurations), 2)}" if len(runs) > 1 else ""
        rising = f", the first {run.warmup} of them a warm-up" if run.warmup else ""
        within = f", in rows of up to {run.packed_row_length:,}" if run.packed_row_length else ""
        epochs = f"{run.epochs:.2g} epoch{'s' if run.epochs != 1 else ''}"
        lines.append(
            f"Training{named}: {about}{steps} of {plural(run.batch, 'example')} ({epochs}){rising}; "
            f"{about}{run.tokens:,} tokens per run{within}."
        )
        if run.evaluations:
            lines.append(_evaluation_line(run, about, named))
    return lines


def _evaluation_line(run: RunSteps, about: str, named: str) -> str:
    """Say what training reads of validation, and what is chosen on it."""
    number = plural(run.evaluations, "evaluation")
    reads = f"{about}{number} on {plural(run.evaluated, 'validation row')} ({run.metric})"
    return f"While training{named}: {reads}{f'; {run.selects}' if run.selects else ''}."


def _split(graph: Graph, node: GraphNode, figures: dict[str, Any]) -> SplitRows | None:
    data = node.settings["data"]
    if "max_length" not in data or "clusters" in data:
        return None
    count = int(data["rows"]["stop"]) - int(data["rows"]["start"])
    exact = "too_long" in figures
    too_long = int(figures["too_long"]) if exact else _estimate(graph, node, count)
    empty = int(figures["empty_answers"]) if "empty_answers" in figures else None
    name = shown_name(identity(graph.spec.data(graph.spec.named[node.configuration], node.split)))
    handling = str(data.get("too_long", "error"))
    return SplitRows(name, node.split, count, int(data["max_length"]), handling, too_long, empty, exact)


def _estimate(graph: Graph, node: GraphNode, count: int) -> int | None:
    """Return about how many rows of a split are too long, from the lengths of the data's rows in characters."""
    data = node.settings["data"]
    lock, source = source_of(graph, node)
    lengths = lock.percentiles.get(source)
    if not lengths or data["format"] == "text":
        return None
    room = int(data["max_length"]) - _TEMPLATE
    if lengths[-1] <= room:  # no token is shorter than a character
        return 0
    limit = room * characters_per_token(graph, node)
    return round(count * sum(length > limit for length in lengths) / len(lengths))


class _Examples(NamedTuple):
    """What a run reads in one pass; `exact`: as prepared."""

    number: int
    tokens: float
    exact: bool


def _examples(plan: Plan, prepare: GraphNode) -> _Examples | None:
    """Return what training reads of a split; None where packing leaves it open."""
    done, data = plan.results.get(prepare.key), prepare.settings["data"]
    if done is not None and done.figures.get("examples"):
        count = int(done.figures.get("blocks") or done.figures["examples"])
        return _Examples(count, float(done.figures["tokens"]), exact=True)
    row = _split(plan.graph, prepare, {})
    if row is not None and data.get("packing"):
        packed = packed_text(plan.graph, prepare)
        return _Examples(packed.blocks, packed.tokens, exact=False) if packed else None
    if row is None:
        return None
    count = max(row.rows - ((row.too_long or 0) if row.handling == "drop" else 0), 1)
    return _Examples(count, count * _tokens(plan.graph, prepare), exact=False)


def _run(settings: dict[str, Any], read: _Examples) -> RunSteps:
    """Return how long a run trains, and how often it is evaluated."""
    training, validation = settings["training"], settings.get("validation", {})
    steps = optimizer_steps(training, read.number)
    batch = int(training["per_device_train_batch_size"]) * int(training["gradient_accumulation_steps"])
    epochs = steps * batch / read.number if training["max_steps"] > 0 else float(training["num_train_epochs"])
    run = RunSteps((), steps, epochs, batch, warmup_steps(training, steps), round(read.tokens * epochs), read.exact)
    run = replace(run, packed_row_length=training.get(PACKED_ROW_LENGTH))
    if not validation:
        return run
    return replace(
        run,
        evaluations=evaluations(validation, steps),
        evaluated=int(validation["max_eval_samples"]),
        metric=", ".join(validation["metrics"]),
        selects=_selects(validation),
    )


def _selects(validation: dict[str, Any]) -> str:
    """Say what is chosen by the evaluations of a run, and by which metric; nothing where they only make a curve."""
    patience = validation.get("early_stopping_patience")
    parts = ["the best step is kept"] if validation.get("load_best_model_at_end") else []
    parts += [f"training stops after {plural(patience, 'evaluation')} without improvement"] if patience else []
    metric = validation["metric_for_best_model"]
    return f"by {metric}, {listing(parts)}" if parts else ""


def _tokens(graph: Graph, prepare: GraphNode) -> float:
    """Return about how many tokens an example has."""
    lock, source = source_of(graph, prepare)
    mean = lock.characters[source][0] / characters_per_token(graph, prepare)
    return min(float(prepare.settings["data"]["max_length"]), mean + _TEMPLATE)
