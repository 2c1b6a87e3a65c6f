"""`lora state list`: what a state has, filtered by study, outcome, date, settings and figures. Needs no spec."""

import json
import operator
import re
from dataclasses import dataclass, field
from typing import Any

from lorafile.errors import LoraError
from lorafile.specs.tables.methods import METHODS
from lorafile.state import State
from lorafile.units import did_you_mean

RUNS, ALL = "run", "all"
_CONDITION = re.compile(r"(?P<name>[\w./-]+?)\s*(?P<sign><=|>=|!=|=|<|>)\s*(?P<value>.*)", re.DOTALL)
_SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_SECTIONS = {"adapter": "adapter", "train": "training", "training": "training"}
_ABOUT = ("key", "study", "outcome", "message", "started", "seconds", "device")
_MISSING = object()


@dataclass(frozen=True)
class NodeRow:
    """A run, or any node, as a list shows it.

    :ivar name: a run's, or a node's address; `metrics`: `split.metric` -> value
    """

    key: str
    kind: str
    study: str
    name: str
    outcome: str
    message: str
    started: str
    seconds: float
    device: str
    settings: dict[str, Any]
    figures: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeFilter:
    """Which nodes a list shows.

    :ivar kind: `run`, `all`, or a kind of node; `since`, `until`: as the index has times; `where`: conditions
    """

    study: str = ""
    kind: str = RUNS
    outcome: str = ""
    since: str = ""
    until: str = ""
    where: tuple[str, ...] = ()


def list_nodes(state: State, chosen: NodeFilter) -> list[NodeRow]:
    """Return what a state has, newest last.

    :raises LoraError: for a condition that cannot be read, or that names what nothing here has
    """
    conditions = [_condition(text) for text in chosen.where]
    rows = _runs(state) if chosen.kind == RUNS else _nodes(state, chosen.kind)
    if chosen.study:
        declared = {key for (key,) in state.rows("SELECT key FROM declarations WHERE study = ?", chosen.study)}
        rows = [row for row in rows if row.study == chosen.study or row.key in declared]
    data = dict(state.rows("SELECT key, settings FROM nodes WHERE kind = 'prepare'")) if conditions else {}
    inputs = dict(state.rows("SELECT key, inputs FROM nodes WHERE kind = 'train'")) if conditions else {}
    for name, sign, value in conditions:
        values = [_value(row, name, data, inputs) for row in rows]
        if rows and all(actual is _MISSING for actual in values):
            raise LoraError(_unknown(name, rows))
        rows = [row for row, actual in zip(rows, values, strict=True) if _holds(actual, sign, value)]
    rows = [row for row in rows if not chosen.outcome or row.outcome == chosen.outcome]
    rows = [row for row in rows if chosen.since <= row.started and (not chosen.until or row.started < chosen.until)]
    return sorted(rows, key=lambda row: row.started)


def _runs(state: State) -> list[NodeRow]:
    figures: dict[Any, dict[str, float]] = {}  # by the key of the run's training, or where it had none by its name
    query = "SELECT train, study, run, split, metric, value FROM metrics"
    for train, study, run, split, metric, value in state.rows(query):
        figures.setdefault(train or (study, run), {})[f"{split}.{metric}"] = value
    rows = state.rows(f"SELECT {', '.join(_ABOUT)}, settings, figures, run, method FROM runs")  # noqa: S608
    runs = []
    for *values, name, method in rows:
        about = _about(values) | {"name": name, "kind": "predict" if method == "none" else "train"}
        about["settings"] = {"adapter": {"method": method}} | about["settings"]  # the untuned model has no adapter
        metrics = figures.get(about["key"]) or figures.get((about["study"], name), {})
        runs.append(NodeRow(**about, metrics=metrics))
    return runs


def _nodes(state: State, kind: str) -> list[NodeRow]:
    columns = ", ".join(f"s.{name}" for name in _ABOUT)
    rows = state.rows(
        f"SELECT {columns}, n.settings, s.figures, s.address, s.kind FROM standing s "  # noqa: S608
        "JOIN nodes n ON n.key = s.key WHERE ? IN (s.kind, 'all')",
        kind,
    )
    return [NodeRow(**_about(values), name=address, kind=node_kind) for *values, address, node_kind in rows]


def _about(values: list[Any]) -> dict[str, Any]:
    *columns, settings, figures = values
    about: dict[str, Any] = dict(zip(_ABOUT, columns, strict=True))
    return about | {"settings": json.loads(settings), "figures": json.loads(figures)}


def _condition(text: str) -> tuple[str, str, Any]:
    condition = _CONDITION.fullmatch(text.strip())
    if condition is None:
        raise LoraError(
            f'--where "{text}": write a setting or metric, one of = != < <= > >=, and a value, such as lora.r=16'
        )
    try:
        value: Any = json.loads(condition["value"])
    except (ValueError, RecursionError):
        value = condition["value"].strip()
    if condition["sign"] in _SIGNS and not isinstance(value, (int, float)):
        raise LoraError(
            f'--where "{text}": {condition["sign"]} compares numbers, but {condition["value"]} is not a number.'
        )
    return condition["name"], condition["sign"], value


def _value(row: NodeRow, name: str, data: dict[str, str], inputs: dict[str, str]) -> Any:
    """Return what a row has under a name: a setting as specs call it, a metric, or a figure; _MISSING where nothing."""
    table, _, setting = name.partition(".")
    settings = row.settings
    if name == "method":
        return (settings.get("adapter") or {}).get("method", _MISSING)
    if name in ("seed", "quantization"):
        return settings.get(name, _MISSING)
    if table in ("data", "tokenizer") and row.kind == "train":
        settings = json.loads(data.get(json.loads(inputs.get(row.key, "{}")).get("train", ""), "{}"))
    if table in METHODS or table in ("lora", "full"):  # its table holds the adapter's settings, and how it is trained
        adapter = settings.get("adapter") or {}
        if adapter.get("method") != table:
            return _MISSING
        return adapter.get(setting, (settings.get("training") or {}).get(setting, _MISSING))
    section = settings.get(_SECTIONS.get(table, table))
    if setting and isinstance(section, dict):
        return section.get(setting, _MISSING)
    on_test = row.metrics.get(f"test.{name}", row.metrics.get(f"validation.{name}", _MISSING))
    return row.metrics.get(name, row.figures.get(name, on_test))


def _holds(actual: Any, sign: str, value: Any) -> bool:
    if actual is _MISSING:
        return False
    if sign in _SIGNS:
        return isinstance(actual, (int, float)) and not isinstance(actual, bool) and bool(_SIGNS[sign](actual, value))
    if isinstance(actual, list):
        same = sorted(map(str, actual)) == sorted(map(str, value)) if isinstance(value, list) else value in actual
    else:
        same = actual == value and isinstance(actual, bool) == isinstance(value, bool)
    return same is (sign == "=")


def _unknown(name: str, rows: list[NodeRow]) -> str:
    shown = {"training": "train", "adapter": "lora"}
    names = {"method", "seed"}
    for row in rows:
        names |= {*row.metrics, *row.figures, *(metric.partition(".")[2] for metric in row.metrics)}
        for section, values in row.settings.items():
            names |= {f"{shown.get(section, section)}.{name}" for name in values} if isinstance(values, dict) else set()
    hint = did_you_mean(name, names, f"available: {', '.join(sorted(names))}.")
    return f'--where: nothing here has "{name}"; {hint}'
