"""`train`, `predict` and `score` nodes of a configuration under one seed."""

from typing import Any

from lorafile.engine.data.templates import next_shot
from lorafile.graph.builder import GraphBuilder, Owner
from lorafile.graph.extra_evaluations import add_extra_evaluations
from lorafile.graph.graph import Replicate
from lorafile.graph.metrics import built_in_outputs, is_head, outputs, reasoning_section, score_section
from lorafile.graph.prepare import add_splits
from lorafile.graph.settings import answering_sections, bare_sections
from lorafile.graph.validation import validation_section
from lorafile.lock.lockfile import identity
from lorafile.specs import Configuration
from lorafile.specs.tables.evaluate import decoding

# A split; output -> sections of its prediction; which outputs are scored, with the score's sections.
Asked = tuple[str, dict[str, dict[str, Any]], tuple[tuple[str, ...], dict[str, Any]] | None]


def add_replicate(builder: GraphBuilder, configuration: Configuration, seed: int | None) -> Replicate:
    """Add what one replicate trains, predicts and scores; return its keys."""
    base = configuration.name if seed is None else f"{configuration.name}/seed={seed}"
    train = _add_train(builder, configuration, base, seed, 1) if configuration.method != "none" else None
    replicate = add_predictions(builder, configuration, base, seed, train)
    extra = add_extra_evaluations(builder, configuration, base, train, seed)
    return replicate._replace(extra=extra) if extra else replicate


def add_repeat(builder: GraphBuilder, configuration: Configuration, seed: int, repeat: int) -> Replicate:
    """Add the same replicate again, from 2 on: trained, predicted and scored, and nothing else."""
    base = f"{configuration.name}/seed={seed}/repeat={repeat}"
    train = _add_train(builder, configuration, base, seed, repeat)
    return add_predictions(builder, configuration, base, seed, train, repeat)


def add_candidate(builder: GraphBuilder, configuration: Configuration, seed: int) -> Replicate:
    """Add what decides whether a candidate is chosen: it is trained, and judged on validation alone."""
    base = f"{configuration.name}/seed={seed}"
    train = _add_train(builder, configuration, base, seed, 1)
    return add_predictions(builder, configuration, base, seed, train, on=("validation",))


def _add_train(builder: GraphBuilder, configuration: Configuration, base: str, seed: int | None, repeat: int) -> str:
    """Add a run, after the one of the same seed that it starts from; return its key."""
    name = configuration.name
    sections = {**builder.graph.sections[name], "seed": seed}
    if repeat > 1:  # the first has the key that it would have alone
        sections["repeat"] = repeat
    inputs = {"train": builder.graph.splits[name]["train"]}
    validation = validation_section(builder, configuration, lambda output: _task(builder, configuration, output, seed))
    if validation:  # such a run reads what it is evaluated on
        sections["validation"] = validation
        inputs["validation"] = builder.graph.splits[name]["validation"]
    source = builder.spec.start(configuration)
    if source is not None:
        inputs["start"] = _add_train(builder, source, f"{source.name}/seed={seed}", seed, 1)
    return builder.add("train", f"{base}:train", sections, inputs, Owner(name, seed, repeat=repeat))


def add_predictions(
    builder: GraphBuilder,
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
    name, splits = configuration.name, builder.graph.splits[configuration.name]
    if configuration.shots:
        splits = add_splits(builder, configuration, seed)
    reads = {"adapter": adapter} if adapter else {}
    predict: dict[tuple[str, str], str] = {}
    score: dict[str, str] = {}
    own: dict[tuple[str, str], str] = {}
    for split, predicted, scored in _asked(builder, configuration, splits, seed, on):
        owner = Owner(name, seed, split, repeat)
        predictions: dict[str, str] = {}
        for output, sections in predicted.items():
            address, inputs = f"{base}:predict/{split}/{output}", {"data": splits[split], **reads}
            key = builder.add("predict", address, sections, inputs, owner)
            predictions[output] = predict[split, output] = key
        if scored is not None:
            outputs_read, sections = scored
            inputs = {output: predictions[output] for output in outputs_read}
            score[split] = builder.add("score", f"{base}:score/{split}", sections, inputs, owner)
        for metric in builder.graph.own.values():
            inputs = {metric.needs: predictions[metric.needs]}
            address = f"{base}:score/{split}/{metric.label}"
            sections = {"metric_file": metric.digest, **reasoning_section(builder, configuration, split)}
            own[split, metric.label] = builder.add("score", address, sections, inputs, owner)
    return Replicate(seed, adapter, predict, score, own, repeat=repeat)


def _asked(
    builder: GraphBuilder, configuration: Configuration, splits: dict[str, str], seed: int | None, on: tuple[str, ...]
) -> list[Asked]:
    """Return what is asked of each split; made once for all that stand on the same base and read the same data."""
    bare, name = bare_sections(builder.graph.sections[configuration.name]), configuration.name
    drawn = seed if builder.spec.tables.evaluate.do_sample else None
    data = (*builder.graph.splits[name].values(), *splits)  # keys of prepared splits, and which of them are read
    alike = (*data, on, drawn, is_head(configuration), *map(id, bare.values()))

    def make() -> list[Asked]:
        model = builder.lock.models[identity(configuration.model)]
        shipped, asked = built_in_outputs(builder, configuration), []
        for split in (split for split in on if split in splits):
            predicted = {}
            for output in outputs(builder, configuration):
                task = _task(builder, configuration, output, seed)
                answers = output == "generation"
                base = answering_sections(bare, model, "stop_at_turn" in task) if answers else bare
                predicted[output] = builder.share(
                    ("predict", id(task), *map(id, base.values())), {**base, "task": task}
                )
            read = tuple(output for output in predicted if output in shipped)
            asked.append((split, predicted, (read, score_section(builder, configuration, split)) if read else None))
        return asked

    return builder.once(("asked", *alike), make)


def _task(builder: GraphBuilder, configuration: Configuration, output: str, seed: int | None) -> dict[str, Any]:
    """Return what is predicted, and how an answer is drawn."""
    evaluate = builder.spec.tables.evaluate
    drawn = seed if output == "generation" and evaluate.do_sample else None
    ends = end_of_shot(builder, configuration) if output == "generation" else {}

    def make() -> dict[str, Any]:
        task = {"output": output} | (decoding(evaluate) | ends if output == "generation" else {})
        return task | ({"seed": seed} if output == "generation" and evaluate.do_sample else {})

    return builder.once(("task", output, drawn, repr(ends)), make)


def end_of_shot(builder: GraphBuilder, configuration: Configuration) -> dict[str, Any]:
    """Return what ends an answer after solved examples: the beginning of another one, which is not wanted.

    A spec that names `evaluate.stop_strings` says so itself; earlier turns of a conversation end as its template does.
    """
    if not configuration.shots or "stop_strings" in builder.spec.tables.evaluate.model_fields_set:
        return {}
    key = next(iter(builder.graph.splits[configuration.name].values()))
    data = builder.graph.nodes[key].settings["data"]
    if data["format"] == "chat" or data.get("chat_template"):
        return {"stop_at_turn": True}
    return {"stop_strings": next_shot(data)}
