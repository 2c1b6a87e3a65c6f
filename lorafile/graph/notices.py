"""What a study asks for that its author may not have meant: named in its plan and report, and done all the same."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from lorafile.engine.data.example import placeholders
from lorafile.engine.data.sources import canonical
from lorafile.engine.data.templates import CONVERSABLE, SHOTS_APART
from lorafile.graph.graph import Graph
from lorafile.graph.parameter_count import adapter_parameters
from lorafile.graph.splits import draw
from lorafile.lock.data import DataLock
from lorafile.lock.lockfile import identity, shown_name
from lorafile.specs import Configuration
from lorafile.specs.tables.methods import METHODS
from lorafile.units import listing, plural

REFERENCES = "evaluate.max_new_tokens:"  # how a sentence on long references begins
_CHARACTERS = 6  # of a token: GPT-2's, Llama's and Qwen's have three to five in English
_ANSWERS = {  # the column with the answer of each format that has it as a text of its own
    "alpaca": ("output",),
    "builtin:facts": ("answer",),
    "completion": ("completion",),
    "question": ("answer",),
}
_CHOICES = ("choices", "options", "endings")  # columns of options
_BUDGET = 0.05  # of the parameters: how far from the same number counts as the same


def notices(graph: Graph) -> list[str]:
    """Return a sentence for each thing, naming the configurations."""
    ours = [*unused_tables(graph), *_unfinished_schedules(graph), *_unused_templates(graph)]
    return [*ours, *_blank_lines(graph), *_unmatched(graph), *data_notices(graph)]


def unused_tables(graph: Graph) -> Iterator[str]:
    """Name tables of methods and programs that the spec writes and no configuration uses."""
    tables, configurations = graph.spec.tables, graph.spec.named.values()
    methods = {c.method for c in configurations}
    programs = {c.train.trainer for c in configurations if c.train is not None}
    unused = [f"[{name}]" for name in (*METHODS, "full") if name in tables.model_fields_set - methods]
    unused += [f"[trainer.{name}]" for name in tables.trainer if name not in programs]
    if unused:
        yield f"{listing(unused)}: no configuration uses {'it' if len(unused) == 1 else 'them'}, so nothing changes."


def long_references(graph: Graph, prepared: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each limit of answers that does not hold the references of what is predicted.

    :param prepared: key of a finished `prepare` node -> its figures; of others the longest text of the column that
        holds the answers tells, where the lock has it: a token is rarely more than six characters
    """
    longer: dict[int, dict[str, list[str]]] = {}
    seen: set[tuple[int, str]] = set()
    for node in graph.nodes.values():
        limit = node.settings["task"].get("max_new_tokens") if node.kind == "predict" else None
        data = graph.nodes.get(node.inputs.get("data", ""))
        if limit is None or data is None or (limit, data.key) in seen or "rows" not in data.settings["data"]:
            continue
        seen.add((limit, data.key))
        figures = prepared.get(data.key, {})
        if "longest_answer" in figures:
            longest = figures["longest_answer"]
            text = f"up to {longest} tokens, half of them more than {figures['median_answer']:g}"
        else:
            characters = _longest_answer(graph, node.configuration, data.settings["data"])
            longest, text = characters // _CHARACTERS, f"drawn from answers of up to {characters} characters"
        if longest > limit:
            longer.setdefault(limit, {}).setdefault(text, []).append(node.split)
    return [f"{REFERENCES} {limit} {_too_short(lengths)}" for limit, lengths in longer.items()]


def _too_short(lengths: dict[str, list[str]]) -> str:
    """Say which splits have longer references; `lengths` is their length -> the splits."""
    which = "; ".join(f"{listing(dict.fromkeys(splits))}: {length}" for length, splits in lengths.items())
    return (
        f"tokens are too few for every reference ({which}); longer answers are cut off and scored as they are. Raise "
        "it, or omit the metrics that score answers."
    )


def _longest_answer(graph: Graph, name: str, data: dict[str, Any]) -> int:
    """Return the characters of the longest text in the columns that hold a split's answers; 0 where that is open."""
    lock = graph.lock.data[identity(graph.spec.named[name].data)]
    split = next(split for split, digest in lock.digests.items() if digest == data["digest"])
    written, form = data["template"], data["format"]
    fields = placeholders(written["completion"]) if written else _ANSWERS.get(form, ())
    lengths = lock.lengths.get(split, {})
    return sum(lengths.get(data["columns"].get(field, field), [0, 0])[1] for field in fields)


def _unmatched(graph: Graph) -> Iterator[str]:
    """Name what a sweep with match = "parameters" could not give the same number of parameters, and why."""
    spec = graph.spec
    first = {c.sweep: c.matched for c in spec.configurations if c.matched}
    far, without = [], []
    for c in spec.configurations:
        wanted = first.get(c.sweep)
        if wanted is None or c is wanted or c.method not in METHODS:
            continue
        counts = [_parameters(graph, c), _parameters(graph, wanted)]
        if c.matched is None:
            without.append(c.name)
        elif abs(counts[0] - counts[1]) > _BUDGET * counts[1]:
            far.append(f"{c.name} has {counts[0]:,} of {counts[1]:,}")
    if far:
        names = listing(far, len(far))
        yield f'match = "parameters": no rank of these comes within {_BUDGET:.0%} of the first LoRA: {names}.'
    if without:
        names = listing(without, len(without))
        yield f'match = "parameters": these have no rank to match, and keep their parameters: {names}.'


def _parameters(graph: Graph, c: Configuration) -> int:
    return adapter_parameters(graph.sections[c.name]["adapter"], graph.lock.models[identity(c.model)])


def _blank_lines(graph: Graph) -> Iterator[str]:
    """Name few-shot prompts whose answers end at a blank line, because nothing else begins every example."""
    if "stop_strings" in graph.spec.tables.evaluate.model_fields_set:
        return
    found = {
        node.configuration: None
        for node in graph.nodes.values()
        if node.kind == "predict" and node.settings["task"].get("stop_strings") == [SHOTS_APART]
    }
    if found:
        yield (
            "evaluate.stop_strings: prompts with solved examples start with a column, so an answer ends at its first "
            f"blank line. Set another stop string if answers have several paragraphs ({listing([*found])})."
        )


def data_notices(graph: Graph) -> list[str]:
    """Return a sentence for whatever of the data is not read."""
    of_columns = [*_unread_choices(graph), *_second_answers(graph)]
    return [*_unread_files(graph), *of_columns, *_unused_splits(graph), *_shared_clusters(graph)]


def _named_data(graph: Graph) -> Iterator[tuple[str, DataLock]]:
    return ((shown_name(name), lock) for name, lock in graph.lock.data.items())


def _unread_files(graph: Graph) -> Iterator[str]:
    """Name files and configurations next to the data that are not read, and count rows that `data.where` leaves out."""
    for name, lock in _named_data(graph):
        if lock.ignored:
            verbs = ("holds", "is") if len(lock.ignored) == 1 else ("hold", "are")
            yield f"{name}: {listing(lock.ignored)} next to the data {verbs[0]} no rows, and {verbs[1]} ignored."
        if lock.configurations:
            others = listing(lock.configurations)
            yield f"{name}: using the default configuration of its README.md; set data.name for another: {others}."
        if lock.left_out:
            counts = ", ".join(f"{count:,} of {split}" for split, count in lock.left_out.items())
            yield f"{name}: data.where excludes rows: {counts}."


def _unread_choices(graph: Graph) -> Iterator[str]:
    """Name columns with the options of multiple-choice questions, which are lists, and which no format reads."""
    for name, lock in _named_data(graph):
        unread = [column for column in lock.columns if column.lower() in _CHOICES and column not in lock.counted]
        if lock.counted and (unread := [column for column in unread if column in lock.nested()]):
            verb = "has" if len(unread) == 1 else "have"
            yield (
                f"{name}: {listing(unread)} {verb} lists, which no format reads, so each question is asked without its "
                "choices. Write them into the text of the question, or take no notice if they are there."
            )


def _second_answers(graph: Graph) -> Iterator[str]:
    """Name answers that are not read, and that the answers that are read mostly contain, but not always."""
    for name, lock in _named_data(graph):
        disagree, compared = (sum(counts[at] for counts in lock.disagreeing.values()) for at in (0, 1))
        if 0 < disagree <= compared / 2:  # else it is something else: the number of a choice, for example
            read, second = lock.second_answer
            yield (
                f'{name}: the column "{second}" is not read, and in {disagree:,} of {compared:,} rows its answer is '
                f'not in "{read}", which is trained on and compared with. If "{second}" is right, those rows are '
                f'wrong; data.columns can have "{second}" read in its place.'
            )


def _shared_clusters(graph: Graph) -> Iterator[str]:
    """Name what belongs together and is in two splits that the data declare: it stays as it is declared."""
    for name, lock in _named_data(graph):
        pairs = sorted(lock.shared_clusters.items())
        shared = [f"{count:,} in {' and '.join(pair.split(', '))}" for pair, count in pairs]
        if shared:
            yield (
                f'{name}: the data\'s own splits share values of "{lock.cluster}" ({"; ".join(shared)}), so training '
                "on one split helps with the other."
            )


def _unused_splits(graph: Graph) -> Iterator[str]:
    """Name splits of the data that nothing reads, where held-out rows are drawn from the train split instead."""
    tables = {id(c.data): c.data for c in graph.spec.configurations}.values()  # nearly all share one
    apart = {(identity(table), repr(table.split), table.split_seed): table for table in tables}
    told: set[str] = set()
    for (name, *_), table in apart.items():
        lock = graph.lock.data[name]
        drawn = draw(table.split, table.split_seed, lock.rows)
        sources = {rows.source for rows in drawn.values()}
        unused = [split for split in lock.rows if split not in sources and canonical(split) is None]
        if name not in told and unused and len(sources) < len(drawn):
            told.add(name)
            yield (
                f"{shown_name(name)}: the data also have {listing(unused)}, which is not used; held-out rows are "
                f"drawn from {listing(sorted(sources))}. To use it, set data.split."
            )


def _unfinished_schedules(graph: Graph) -> Iterator[str]:
    """Name runs that end before their warm-up, or the decay of `warmup_stable_decay`, does."""
    warmups: dict[tuple[int, int], dict[str, None]] = {}
    decays: dict[tuple[int, int, int], dict[str, None]] = {}
    for node in graph.nodes.values():
        if node.kind != "train" or node.settings["training"]["lr_scheduler_type"] == "constant":
            continue
        training = node.settings["training"]
        steps = _steps(graph, node.inputs["train"], training)
        if not steps:
            continue
        rising, own = warmup_steps(training, steps), training.get("lr_scheduler_kwargs") or {}
        begins, decay = rising + (own.get("num_stable_steps") or 0), own.get("num_decay_steps", 0)
        if rising >= steps:
            warmups.setdefault((rising, steps), {})[node.configuration] = None
        elif decay and begins + decay > steps:
            decays.setdefault((decay, begins, steps), {})[node.configuration] = None
    for (rising, steps), names in warmups.items():
        if steps == 1:
            what = "a run of a single warm-up step has a learning rate of zero and learns nothing"
        else:
            what = f"a warm-up of {rising} steps in a run of {steps} never reaches the learning rate"
        yield f"train.warmup_steps: {what} ({listing(names)})."
    for (decay, begins, steps), names in decays.items():
        what = f"a decay of {decay} steps that begins after step {begins} does not end in a run of {steps}"
        yield f"train.lr_scheduler_kwargs: {what} ({listing(names)})."


def _steps(graph: Graph, prepare: str, settings: dict[str, Any]) -> int | None:
    """Return the optimizer steps of a run; None where packing, or rows that are dropped, leave it open."""
    if settings["max_steps"] > 0:
        return int(settings["max_steps"])
    data: dict[str, Any] = graph.nodes[prepare].settings["data"] if prepare in graph.nodes else {"format": "text"}
    if data["format"] == "text":
        return None
    return optimizer_steps(settings, int(data["rows"]["stop"]) - int(data["rows"]["start"]))


def optimizer_steps(training: dict[str, Any], examples: int) -> int:
    """Return the optimizer steps of a run over so many examples."""
    if training["max_steps"] > 0:
        return int(training["max_steps"])
    batch = int(training["per_device_train_batch_size"]) * int(training["gradient_accumulation_steps"])
    return math.ceil(float(training["num_train_epochs"]) * math.ceil(examples / batch))


def warmup_steps(training: dict[str, Any], steps: int) -> int:
    """Return the steps in which the learning rate rises."""
    warmup = training["warmup_steps"] if training["lr_scheduler_type"] != "constant" else 0
    return math.ceil(warmup * steps) if warmup < 1 else int(warmup)


def _unused_templates(graph: Graph) -> Iterator[str]:
    """Name checkpoints that were made for conversations and are prompted with plain text."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for configuration in graph.spec.configurations:
        model, table = graph.lock.models[identity(configuration.model)], configuration.data
        keys = graph.splits.get(configuration.name, {}).values()
        data: dict[str, Any] = next((graph.nodes[key].settings["data"] for key in keys if key in graph.nodes), {})
        plain = table.template or data.get("format") in (*CONVERSABLE, "classification", "guanaco")
        if (
            model.chat_template
            and configuration.model.task_type == "CAUSAL_LM"
            and plain
            and not data.get("chat_template")
        ):
            what = "data.template" if table.template else f'data.format = "{data["format"]}"'
            found.setdefault((configuration.model.path, what), {})[configuration.name] = None
    for (path, what), names in found.items():
        remedy = 'data.format = "auto" applies it' if "format" in what else "omit it to use the model's own"
        yield (
            f"{path} has a chat template, but {what} writes prompts without it, unlike those the model was tuned on; "
            f"{remedy} ({plural(len(names), 'configuration')})."
        )
