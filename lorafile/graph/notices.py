"""What a study asks for that somebody may not have meant: said in its plan and its report, and done all the same."""

import math
from collections.abc import Iterator
from typing import Any

from lorafile.engine.data.sources import canonical
from lorafile.engine.data.templates import CONVERSABLE
from lorafile.graph.graph import Graph
from lorafile.graph.splits import draw
from lorafile.lock.lockfile import identity
from lorafile.units import listing, plural

_RISING = ("linear", "cosine", "constant_with_warmup")  # schedules that have a warm-up


def notices(graph: Graph) -> list[str]:
    """Return a sentence for each thing, naming the configurations."""
    return [*_long_warmups(graph), *_unused_templates(graph), *data_notices(graph)]


def data_notices(graph: Graph) -> list[str]:
    """Return a sentence for whatever of the data is not read."""
    return [*_unread_files(graph), *_unused_splits(graph)]


def _unread_files(graph: Graph) -> Iterator[str]:
    """Name files and configurations next to the data that are not read, and count rows that `data.where` leaves out."""
    for name, lock in graph.lock.data.items():
        if lock.ignored:
            verbs = ("holds", "is") if len(lock.ignored) == 1 else ("hold", "are")
            yield f"{name}: {listing(lock.ignored)} next to the data {verbs[0]} no rows, and {verbs[1]} left out."
        if lock.configurations:
            others = listing(lock.configurations)
            yield f"{name}: the default configuration of its README.md is read; data.name chooses another: {others}."
        if lock.left_out:
            counts = ", ".join(f"{count:,} of {split}" for split, count in lock.left_out.items())
            yield f"{name}: data.where leaves out rows: {counts}."


def _unused_splits(graph: Graph) -> Iterator[str]:
    """Name splits of the data that nothing reads, where held-out rows are drawn from the train split instead."""
    told: set[str] = set()
    for configuration in graph.spec.configurations:
        table = configuration.data
        name, lock = identity(table), graph.lock.data[identity(table)]
        drawn = draw(table.split, table.split_seed, lock.rows)
        sources = {rows.source for rows in drawn.values()}
        unused = [split for split in lock.rows if split not in sources and canonical(split) is None]
        if name not in told and unused and len(sources) < len(drawn):
            told.add(name)
            yield (
                f"{name}: the data have {listing(unused)}, too, which nothing reads; held-out rows are drawn from "
                f"{listing(sorted(sources))}. If one of them is meant to be, say so: data.split."
            )


def _long_warmups(graph: Graph) -> Iterator[str]:
    """Name runs that end before their warm-up does."""
    found: dict[tuple[int, int], dict[str, None]] = {}
    for node in graph.nodes.values():
        if node.kind == "train" and node.settings["training"]["lr_scheduler_type"] in _RISING:
            settings, steps = node.settings["training"], _steps(graph, node.inputs["train"], node.settings["training"])
            warmup = settings["warmup_steps"]
            rising = math.ceil(warmup * (steps or 0)) if warmup < 1 else int(warmup)
            if steps and rising >= steps:
                found.setdefault((rising, steps), {})[node.configuration] = None
    for (rising, steps), names in found.items():
        if steps == 1:
            what = "a run of one step that begins with a warm-up has a learning rate of zero, and learns nothing"
        else:
            what = f"a warm-up of {rising} steps is as long as the run, of {steps}: the learning rate is never reached"
        yield f"train.warmup_steps: {what} ({listing(names)})."


def _steps(graph: Graph, prepare: str, settings: dict[str, Any]) -> int | None:
    """Return the optimizer steps of a run; None where packing, or rows that are dropped, leave it open."""
    if settings["max_steps"] > 0:
        return int(settings["max_steps"])
    data: dict[str, Any] = graph.nodes[prepare].settings["data"] if prepare in graph.nodes else {"format": "text"}
    if data["format"] == "text":
        return None
    rows = int(data["rows"]["stop"]) - int(data["rows"]["start"])
    batches = math.ceil(rows / int(settings["per_device_train_batch_size"]))
    return math.ceil(
        float(settings["num_train_epochs"]) * math.ceil(batches / int(settings["gradient_accumulation_steps"]))
    )


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
        remedy = (
            'data.format = "auto" puts rows through it' if "format" in what else "leave it out to use the model's own"
        )
        yield (
            f"{path} has a chat template, and {what} writes prompts without it, which is not how the model was tuned "
            f"to be asked; {remedy} ({plural(len(names), 'configuration')})."
        )
