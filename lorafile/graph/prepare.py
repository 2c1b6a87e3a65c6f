"""`prepare` nodes: the rows of each split, as the configurations read them."""

import json
import re
from typing import Any

from lorafile.engine.data.columns import check_columns, check_texts, cluster_column
from lorafile.engine.data.labels import HIDDEN, number_of, too_many_labels
from lorafile.errors import ModelError, NodeError
from lorafile.graph.builder import GraphBuilder, Owner
from lorafile.graph.metrics import check_metrics, is_head
from lorafile.graph.settings import data_format, data_section, named_classes
from lorafile.graph.splits import Rows, draw
from lorafile.lock.data import DataLock
from lorafile.lock.lockfile import identity
from lorafile.specs import Configuration
from lorafile.specs.tables.data import DataTable

_NO_LABEL = {HIDDEN, ""}
_UNSURE = {*_NO_LABEL, "-"}  # what SNLI and others have where annotators disagreed


def add_splits(builder: GraphBuilder, configuration: Configuration, seed: int | None = None) -> dict[str, str]:
    """Add the splits of a configuration's data; return split -> key.

    :param seed: draws the examples of a few-shot prompt
    :raises SpecError: when the data do not have what the spec asks of them
    """
    # `none` may need no train split, and says so itself where it needs one.
    task = (configuration.model.task_type, configuration.model.is_regression)
    reading = (configuration.method == "none", *task, _tokenizer(builder, configuration))
    name = ("splits", configuration.data.as_text, configuration.shots, seed, *reading)
    return builder.once(name, lambda: _splits(builder, configuration, seed))


def _splits(builder: GraphBuilder, configuration: Configuration, seed: int | None) -> dict[str, str]:
    table = configuration.data
    lock, model = builder.lock.data[identity(table)], builder.lock.models[identity(configuration.model)]
    try:
        drawn = draw(table.split, table.split_seed, lock.rows, lock.cluster)
    except ValueError as error:
        raise builder.spec.error(("data", "split"), str(error)) from error
    _check(builder, configuration, lock, drawn)
    keys = {}
    for split, rows in drawn.items():
        if split == "train" and configuration.method == "none" and not builder.spec.tables.profile.enabled:
            continue
        data = data_section(configuration, lock, model, rows, split, builder.spec.file.parent)
        if configuration.shots:
            data["shots"] = _shots(configuration, seed, drawn["train"], lock)
        sections = {"data": data, "tokenizer": _tokenizer(builder, configuration)}
        address, owner = _address(builder, configuration, split, seed), Owner(configuration.name, split=split)
        keys[split] = builder.add("prepare", address, sections, {}, owner)
    return keys


def add_clusters(builder: GraphBuilder, configuration: Configuration) -> dict[str, str]:
    """Add what tells which held-out examples belong together; return split -> key, nothing where none do.

    It is a node of its own, so that nothing is prepared or predicted again for it.

    :raises ModelError: when there is no such column
    """
    splits = builder.graph.splits[configuration.name]  # one object for all that read the same, kept by the graph
    name = ("clusters", configuration.data.as_text, id(splits))
    return builder.once(name, lambda: _clusters(builder, configuration))


def _clusters(builder: GraphBuilder, configuration: Configuration) -> dict[str, str]:
    table, lock = configuration.data, builder.lock.data[identity(configuration.data)]
    column = cluster_column(table.cluster, table.format, table.columns, lock.columns)
    keys = {}
    for split, key in builder.graph.splits[configuration.name].items() if column else ():
        if split != "train":
            data = builder.graph.nodes[key].settings["data"]
            reads = {name: data[name] for name in ("digest", "rows", "sample_by", "where") if name in data}
            owner = Owner(configuration.name, split=split)
            sections = {"data": {**reads, "clusters": column}}
            keys[split] = builder.add("prepare", f"data/{split}/clusters:prepare", sections, {}, owner)
    return keys


def _shots(configuration: Configuration, seed: int | None, train: Rows, lock: DataLock) -> dict[str, Any]:
    """Return what decides the solved examples of a prompt: they are train rows, and never held-out ones."""
    # Length is that of the row alone: `max_length` does not count what is shown before it.
    counted = {"max_length": "alone"}
    return {
        "count": configuration.shots,
        "seed": seed,
        "digest": lock.digests[train.source],
        "rows": train.rule,
        **counted,
    }


def _address(builder: GraphBuilder, configuration: Configuration, split: str, seed: int | None) -> str:
    if seed is not None:
        return f"data/{split}/{configuration.name}/seed={seed}:prepare"
    address = f"data/{split}:prepare"
    return f"data/{split}/{configuration.name}:prepare" if address in builder.prepared else address


def _check(builder: GraphBuilder, configuration: Configuration, lock: DataLock, drawn: dict[str, Rows]) -> None:
    """Check that the data have what the spec asks of them."""
    table, error = configuration.data, builder.spec.error
    model = builder.lock.models[identity(configuration.model)]
    if configuration.model.is_regression:
        _check_numbers(builder, lock, drawn)
    else:
        _check_classes(builder, table, lock, drawn)
    for split, rows in drawn.items():
        try:
            section = data_section(configuration, lock, model, rows, split, builder.spec.file.parent)
            check_columns(section, lock.columns, table.path, lock.nested())
            check_texts(section, (lock.kinds or {}).get(rows.source, {}), table.path)
        except ModelError:
            raise  # it says which setting
        except NodeError as wrong:
            raise error(("data", "template" if table.template else "format"), str(wrong)) from wrong
    check_metrics(builder, configuration, data_format(table, lock))
    needs_train = builder.spec.tables.profile.enabled or configuration.method != "none" or configuration.shots
    if "train" not in drawn and needs_train:
        raise error(("data", "split"), "has no train split, which training, profiling or solved examples need")
    if not {"validation", "test"} & drawn.keys():
        raise error(("data", "split"), "has neither a validation nor a test split, so nothing can be compared")
    if configuration.shots and data_format(table, lock) == "text":
        raise error(("none", "shots"), "plain text has no solved examples to show")
    if configuration.shots and is_head(configuration):
        raise error(("none", "shots"), "a classification head reads no prompt, so it cannot be shown solved examples")
    if "train" in drawn and configuration.shots > drawn["train"].count:
        raise error(
            ("none", "shots"),
            f"{configuration.shots} examples are more than the train split has: {drawn['train'].count}",
        )


def _check_classes(builder: GraphBuilder, table: DataTable, lock: DataLock, drawn: dict[str, Rows]) -> None:
    """Check that a classification has classes, and that no split that is used hides them."""
    if data_format(table, lock) != "classification":
        return
    if lock.label and not lock.labels:
        raise builder.spec.error(("data", "columns"), too_many_labels(lock.label))
    for split, rows in drawn.items():
        unsure = sorted({*lock.labels.get(rows.source, [])} & _UNSURE)
        if unsure and not _has_no_labels(lock, rows.source):
            written = f'have the label "{unsure[0]}" in "{lock.label}", which means no label'
            what = written if unsure[0] else f'have no label in "{lock.label}"'
            remedy = f"Exclude such rows: data.where = {_condition(lock.label, unsure[0])}"
            message = f"{split} draws from {rows.source}, where rows {what}. {remedy}"
            raise builder.spec.error(("data", "split"), message)
    _check_labelled(builder, lock, drawn)
    try:
        named_classes(table, lock)
    except NodeError as error:
        raise builder.spec.error(("data", "labels"), str(error)) from error


def _condition(label: str | None, unsure: str) -> str:
    """Return the setting, as TOML has it, that leaves out rows with a label that stands for none."""
    name = str(label)
    plain = re.fullmatch(r"[\w.-]+", name)
    column = name if plain else json.dumps(name, ensure_ascii=False)
    if unsure == HIDDEN:
        return f'"{column} >= 0"' if plain else f"'{column} >= 0'"
    return f"'{column} != \"{unsure}\"'"


def _has_no_labels(lock: DataLock, source: str) -> bool:
    """Return whether a split of the data has no label in any row: its column is missing, empty, or all -1."""
    return source in lock.labels and not {*lock.labels[source]} - _NO_LABEL


def _check_labelled(builder: GraphBuilder, lock: DataLock, drawn: dict[str, Rows]) -> None:
    """Refuse a split that is drawn from rows without labels, and name those that have some."""
    for split, rows in drawn.items():
        if not lock.label or not _has_no_labels(lock, rows.source):
            continue
        labelled = [name for name in lock.rows if lock.rows[name] and not _has_no_labels(lock, name)]
        why = "is all -1" if HIDDEN in lock.labels[rows.source] else "is missing or empty"
        message = f'{split} draws from {rows.source}, which has no labels ("{lock.label}" {why} there)'
        raise builder.spec.error(("data", "split"), message + _in_place(split, drawn, labelled))


def _in_place(split: str, drawn: dict[str, Rows], labelled: list[str]) -> str:
    """Say which split with labels can take the place of one without."""
    if not labelled:
        return ", and no split of these data has labels"
    pool = drawn["train"].source if "train" in drawn else labelled[0]
    held = next((name for name in labelled if name != pool), None)
    if held is None or split == "train":
        return f". Draw it from a split that has labels: {', '.join(labelled)}"
    slices = {"train": f"{pool}[:95%]", "validation": f"{pool}[95%:]", "test": held}
    shown = ", ".join(f'{name} = "{rows}"' for name, rows in slices.items())
    return f". {held} has labels and can be used instead: split = {{ {shown} }}"


def _check_numbers(builder: GraphBuilder, lock: DataLock, drawn: dict[str, Rows]) -> None:
    """Check that the labels of a regression are numbers, and that no split that is used hides them.

    Of a column of very many values the lock has none, and `prepare` checks each row.
    """
    _check_labelled(builder, lock, drawn)
    for rows in drawn.values():
        other = next((value for value in lock.labels.get(rows.source, []) if number_of(value) is None), None)
        if other is not None:
            message = f'1 predicts numbers, but the label column "{lock.label}" contains "{other}"'
            raise builder.spec.error(("model", "num_labels"), message)


def _tokenizer(builder: GraphBuilder, configuration: Configuration) -> str:
    return builder.lock.models[identity(configuration.model)].tokenizer
