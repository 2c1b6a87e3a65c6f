"""`train`, `predict` and `score` nodes of a configuration under one seed."""

from typing import Any

from lorafile.graph.extra_evaluations import add_beside
from lorafile.graph.graph import Graph, Replicate
from lorafile.graph.metrics import built_in_outputs, is_head, outputs, score_section
from lorafile.graph.prepare import add_splits
from lorafile.graph.settings import bare_sections
from lorafile.specs import Configuration
from lorafile.specs.tables.evaluate import decoding

# A split; output -> sections of its prediction; which outputs are scored, with the score's sections.
Asked = tuple[str, dict[str, dict[str, Any]], tuple[tuple[str, ...], dict[str, Any]] | None]


def add_replicate(graph: Graph, configuration: Configuration, seed: int | None) -> Replicate:
    """Add what one replicate trains, predicts and scores; return its keys."""
    base = configuration.name if seed is None else f"{configuration.name}/seed={seed}"
    train = _add_train(graph, configuration, base, seed, 1) if configuration.method != "none" else None
    replicate = add_predictions(graph, configuration, base, seed, train)
    beside = add_beside(graph, configuration, base, train, seed)
    return replicate._replace(beside=beside) if beside else replicate


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
    inputs = {"train": graph.splits[name]["train"]}
    return graph.add("train", f"{base}:train", sections, inputs, name, seed, repeat=repeat)


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
    name, splits = configuration.name, graph.splits[configuration.name]
    if configuration.shots:
        splits = add_splits(graph, configuration, seed)
    reads = {"adapter": adapter} if adapter else {}
    predict: dict[tuple[str, str], str] = {}
    score: dict[str, str] = {}
    own: dict[tuple[str, str], str] = {}
    for split, predicted, scored in _asked(graph, configuration, splits, seed, on):
        found: dict[str, str] = {}
        for output, sections in predicted.items():
            address, inputs = f"{base}:predict/{split}/{output}", {"data": splits[split], **reads}
            key = graph.add("predict", address, sections, inputs, name, seed, split, repeat)
            found[output] = predict[split, output] = key
        if scored is not None:
            outputs_read, sections = scored
            inputs = {output: found[output] for output in outputs_read}
            score[split] = graph.add("score", f"{base}:score/{split}", sections, inputs, name, seed, split, repeat)
        for metric in graph.own.values():
            inputs = {metric.needs: found[metric.needs]}
            address, sections = f"{base}:score/{split}/{metric.label}", {"metric_file": metric.digest}
            own[split, metric.label] = graph.add("score", address, sections, inputs, name, seed, split, repeat)
    return Replicate(seed, adapter, predict, score, own, repeat=repeat)


def _asked(
    graph: Graph, configuration: Configuration, splits: dict[str, str], seed: int | None, on: tuple[str, ...]
) -> list[Asked]:
    """Return what is asked of each split; made once for all that stand on the same base and read the same data."""
    bare, name = bare_sections(graph.sections[configuration.name]), configuration.name
    drawn = seed if graph.spec.tables.evaluate.do_sample else None
    data = (*graph.splits[name].values(), *splits)  # keys of prepared splits, then the names of those that are read
    alike = (*data, on, drawn, is_head(configuration), *map(id, bare.values()))

    def make() -> list[Asked]:
        shipped, found = built_in_outputs(graph, configuration), []
        for split in (split for split in on if split in splits):
            predicted = {}
            for output in outputs(graph, configuration):
                task = _task(graph, output, seed)
                predicted[output] = graph.share(("predict", id(task), *map(id, bare.values())), {**bare, "task": task})
            read = tuple(output for output in predicted if output in shipped)
            found.append((split, predicted, (read, score_section(graph, configuration, split)) if read else None))
        return found

    return graph.once(("asked", *alike), make)


def _task(graph: Graph, output: str, seed: int | None) -> dict[str, Any]:
    """Return what is predicted, and how an answer is drawn."""
    evaluate = graph.spec.tables.evaluate
    drawn = seed if output == "generation" and evaluate.do_sample else None

    def make() -> dict[str, Any]:
        task = {"output": output} | (decoding(evaluate) if output == "generation" else {})
        return task | ({"seed": seed} if output == "generation" and evaluate.do_sample else {})

    return graph.once(("task", output, drawn), make)
