"""`train`, `predict` and `score` nodes of a configuration under one seed."""

from dataclasses import replace
from typing import Any

from lorafile.graph import Graph, Replicate
from lorafile.nodes.beside import add_beside
from lorafile.nodes.data import add_splits
from lorafile.nodes.metrics import built_in_outputs, outputs, score_section
from lorafile.sections import bare_sections
from lorafile.specs import Configuration
from lorafile.specs.evaluate_settings import decoding


def add_replicate(graph: Graph, configuration: Configuration, seed: int | None) -> Replicate:
    """Add what one replicate trains, predicts and scores; return its keys."""
    base = configuration.name if seed is None else f"{configuration.name}/seed={seed}"
    train = _add_train(graph, configuration, base, seed, 1) if configuration.method != "none" else None
    replicate = add_predictions(graph, configuration, base, seed, train)
    beside = add_beside(graph, configuration, base, train, seed)
    return replace(replicate, beside=beside) if beside else replicate


def add_repeat(graph: Graph, configuration: Configuration, seed: int, repeat: int) -> Replicate:
    """Add the same replicate again, from 2 on: trained, predicted and scored, and nothing else."""
    base = f"{configuration.name}/seed={seed}/repeat={repeat}"
    train = _add_train(graph, configuration, base, seed, repeat)
    return add_predictions(graph, configuration, base, seed, train, repeat)


def add_candidate(graph: Graph, configuration: Configuration, seed: int) -> Replicate:
    """Add what decides whether a candidate is chosen: it is trained, and judged on validation alone."""
    base = f"{configuration.name}/seed={seed}"
    train = _add_train(graph, configuration, base, seed, 1)
    return add_predictions(graph, configuration, base, seed, train, on=("validation",))


def _add_train(graph: Graph, configuration: Configuration, base: str, seed: int | None, repeat: int) -> str:
    name = configuration.name
    sections = {**graph.sections[name], "seed": seed}
    if repeat > 1:  # the first has the key that it would have alone
        sections["repeat"] = repeat
    about: dict[str, Any] = {"configuration": name, "seed": seed, "repeat": repeat}
    return graph.add("train", f"{base}:train", sections, {"train": graph.splits[name]["train"]}, **about)


def add_predictions(
    graph: Graph,
    configuration: Configuration,
    base: str,
    seed: int | None,
    adapter: str | None,
    repeat: int = 1,
    on: tuple[str, ...] = ("validation", "test"),
) -> Replicate:
    """Add the predictions and scores of held-out splits; return their keys.

    :param base: what the addresses begin with
    :param adapter: key of the node whose adapter predicts; None: the bare model
    :param on: the splits, as far as the study has them
    """
    bare, splits = bare_sections(graph.sections[configuration.name]), graph.splits[configuration.name]
    if configuration.shots:
        splits = add_splits(graph, configuration, seed)
    about: dict[str, Any] = {"configuration": configuration.name, "seed": seed, "repeat": repeat}
    reads = {"adapter": adapter} if adapter else {}
    predict: dict[tuple[str, str], str] = {}
    score: dict[str, str] = {}
    own: dict[tuple[str, str], str] = {}
    shipped = built_in_outputs(graph, configuration)
    for split in (split for split in on if split in splits):
        for output in outputs(graph, configuration):
            task = _task(graph, output, seed)
            shared = graph.share(("predict", id(task), *map(id, bare.values())), {**bare, "task": task})
            address = f"{base}:predict/{split}/{output}"
            inputs = {"data": splits[split], **reads}
            predict[split, output] = graph.add("predict", address, shared, inputs, split=split, **about)
        found = {output: key for (of_split, output), key in predict.items() if of_split == split}
        if shipped:
            inputs = {output: key for output, key in found.items() if output in shipped}
            section = score_section(graph, configuration, split)
            score[split] = graph.add("score", f"{base}:score/{split}", section, inputs, split=split, **about)
        for metric in graph.own.values():
            inputs = {metric.needs: found[metric.needs]}
            address, section = f"{base}:score/{split}/{metric.label}", {"metric_file": metric.digest}
            own[split, metric.label] = graph.add("score", address, section, inputs, split=split, **about)
    return Replicate(seed, adapter, predict, score, own, repeat=repeat)


def _task(graph: Graph, output: str, seed: int | None) -> dict[str, Any]:
    """Return what is predicted, and how an answer is drawn."""
    evaluate = graph.spec.tables.evaluate
    drawn = seed if output == "generation" and evaluate.do_sample else None

    def make() -> dict[str, Any]:
        task = {"output": output} | (decoding(evaluate) if output == "generation" else {})
        return task | ({"seed": seed} if output == "generation" and evaluate.do_sample else {})

    return graph.once(("task", output, drawn), make)
