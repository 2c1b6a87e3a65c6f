"""What a change of a spec adds, removes and renames, and what it would cost: two plans, put side by side."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from lorafile.errors import LoraError
from lorafile.lock.lockfile import describe_changes
from lorafile.plan.cost import estimate_cost
from lorafile.plan.document import CostRow, PlanDocument
from lorafile.plan.drift import describe_differences, flat_sections
from lorafile.plan.plan import WORK, Plan
from lorafile.units import Price

_DONE = ("reuse", "drift")


@dataclass(frozen=True)
class Row:
    """One node of a side; `seconds` where it would run and that is known."""

    key: str
    kind: str
    configuration: str
    action: str
    seconds: float | None = None


@dataclass
class Side:
    """One of the two that are compared: a plan, or a plan file.

    :ivar settings: configuration -> its resolved settings, where a spec is at hand; `tables`: the spec's own
    :ivar hourly: what an hour of one device costs; `paid`: of a saved plan, the hours paid for each second of work
    """

    name: str
    study: str
    rows: dict[str, Row] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, Any] = field(default_factory=dict)
    plan: Plan | None = None
    hourly: Price | None = None
    paid: float = 0.0

    @classmethod
    def of_plan(cls, name: str, plan: Plan) -> "Side":
        """Return the side of a plan that was made here."""
        spec, nodes = plan.graph.spec, plan.graph.nodes
        actions = {change.key: change for change in plan.changes}
        rows = {}
        for key, node in nodes.items():
            change = actions.get(key)
            seconds = (change.forecast or {}).get("seconds") if change else None
            owner = spec.owners.get(node.configuration, node.configuration) if node.kind != "prepare" else ""
            rows[key] = Row(key, node.kind, owner, change.action.value if change else "", seconds)
        settings = {
            c.name: flat_sections(plan.graph.sections[c.name]) | _start(plan, c.name) for c in spec.configurations
        }
        return cls(name, plan.study, rows, settings, spec.tables.in_full(), plan, plan.hourly)

    @classmethod
    def of_file(cls, name: str, saved: PlanDocument, hourly: float | None = None) -> "Side":
        """Return the side of a saved plan, at the price that it was made with unless another is given."""
        rows = {
            c.key: Row(
                c.key,
                c.kind,
                c.configuration if c.kind != "prepare" else "",
                c.action,
                c.forecast.seconds if c.forecast else None,
            )
            for c in saved.changes
            if c.action != "undeclared" and c.key
        }
        if not all(c.key for c in saved.changes):
            raise LoraError(
                f"{name} contains only estimates: a model's weights were missing, so its nodes have no keys."
            )
        whole = saved.bill
        paid = whole.device_hours / whole.seconds if whole.seconds else 0.0
        return cls(name, saved.study, rows, hourly=_saved_price(whole) if hourly is None else Price(hourly), paid=paid)

    @cached_property
    def by_name(self) -> dict[str, list[Row]]:
        """Configuration -> its nodes; those of the data under an empty name."""
        return _by_name(self.rows.values())

    @property
    def configurations(self) -> dict[str, frozenset[str]]:
        """Configuration -> the keys that tell whether it is the same: of its training, or of its predictions."""
        keys = {}
        for name, rows in self.by_name.items():
            trained = frozenset(row.key for row in rows if row.kind == "train")
            if name:
                keys[name] = trained or frozenset(row.key for row in rows if row.kind == "predict")
        return keys


@dataclass(frozen=True)
class Item:
    """A configuration, or the same change of several: its nodes by kind, how many would run, and for how long."""

    names: tuple[str, ...]
    kinds: dict[str, int]
    work: int = 0
    seconds: float = 0.0
    finished: int = 0
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diff:
    """What the second side has that the first has not, and the other way round.

    :ivar retrained: configurations of both whose training has other settings now
    :ivar more, fewer: nodes that configurations of both (or the data) gain and lose; `cost`: of all that is new
    :ivar before: what would have run already without the change
    :ivar price: of `cost`, in the currency of `hourly`, the price of an hour of one device
    :ivar moved: models and data that are others; `without_run`: tables of the spec whose change runs nothing
    """

    old: str
    new: str
    added: tuple[Item, ...]
    removed: tuple[Item, ...]
    renamed: tuple[tuple[str, str], ...]
    retrained: tuple[Item, ...]
    more: tuple[Item, ...]
    fewer: tuple[Item, ...]
    cost: Item
    before: Item
    moved: tuple[str, ...] = ()
    without_run: tuple[str, ...] = ()
    price: float | None = None
    hourly: Price | None = None


def _start(plan: Plan, name: str) -> dict[str, Any]:
    """Return the key of the run that a configuration's first one starts from, as settings have it."""
    runs = [replicate.train for replicate in plan.graph.replicates.get(name, []) if replicate.train]
    start = plan.graph.nodes[runs[0]].inputs.get("start") if runs else None
    return {"input.start": start} if start else {}


def diff(old: Side, new: Side) -> Diff:
    """Return what differs between two sides, by the keys of their nodes."""
    before, after = old.configurations, new.configurations
    owners = {key: name for name, keys in before.items() for key in keys}
    fresh = [row for key, row in new.rows.items() if key not in old.rows]
    came, gone = _by_name(fresh), _by_name(row for key, row in old.rows.items() if key not in new.rows)
    came_from = {name: _came_from(keys, owners) for name, keys in after.items() if name not in before}
    renamed = {name: was for name, was in came_from.items() if was and was not in after}
    added = [name for name in after if name not in before and name not in renamed]
    retrained = [name for name in after if name in before and not after[name] & before[name] and _trains(new, name)]
    left, apart, kept = set(renamed.values()), {*added, *retrained}, after.keys() - retrained
    return Diff(
        old=old.name,
        new=new.name,
        added=tuple(_item((name,), came.get(name, [])) for name in added),
        removed=tuple(_item((name,), old.by_name[name]) for name in before if name not in after and name not in left),
        renamed=tuple((was, name) for name, was in renamed.items()),
        retrained=_alike((name, came.get(name, []), _why(old, new, name)) for name in retrained),
        more=_alike((name, came.get(name, []), ()) for name in ["", *after] if name not in apart),
        fewer=_alike(
            (name, gone.get(name, []), ()) for name in ["", *before] if not name or name in kept or name in left
        ),
        cost=_item((), fresh),
        before=_item((), [row for key, row in new.rows.items() if key in old.rows]),
        moved=_moved(old, new),
        without_run=_without_run(old, new),
        price=_price(new, {row.key for row in fresh}),
        hourly=new.hourly,
    )


def _came_from(keys: Iterable[str], owners: dict[str, str]) -> str:
    return next((owners[key] for key in keys if key in owners), "")


def _trains(side: Side, name: str) -> bool:
    return any(row.kind == "train" for row in side.by_name[name])


def _by_name(rows: Iterable[Row]) -> dict[str, list[Row]]:
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.configuration, []).append(row)
    return by_name


def _item(names: tuple[str, ...], rows: list[Row], why: tuple[str, ...] = ()) -> Item:
    work = [row for row in rows if row.action in WORK]
    return Item(
        names,
        dict(Counter(row.kind for row in rows)),
        len(work),
        sum(row.seconds or 0.0 for row in work),
        sum(row.action in _DONE for row in rows),
        why,
    )


def _alike(changed: Iterable[tuple[str, list[Row], tuple[str, ...]]]) -> tuple[Item, ...]:
    """Return one item for all configurations that change in the same way."""
    groups: dict[tuple[Any, ...], list[tuple[str, list[Row]]]] = {}
    for name, rows, why in changed:
        if rows:
            kinds = tuple(sorted(Counter(row.kind for row in rows).items()))
            groups.setdefault((kinds, why, bool(name)), []).append((name, rows))
    return tuple(
        _item(tuple(name for name, _ in members), [row for _, rows in members for row in rows], why)
        for (_, why, _), members in groups.items()
    )


def _why(old: Side, new: Side, name: str) -> tuple[str, ...]:
    """Return which settings of a configuration differ."""
    before, after = old.settings.get(name, {}), new.settings.get(name, {})
    return tuple(describe_differences(before, after)) or ("other training examples",)


def _saved_price(bill: CostRow) -> Price | None:
    currency = bill.currency or ""
    return None if bill.price_per_hour is None else Price(bill.price_per_hour, currency, not currency.isalpha())


def _price(side: Side, keys: set[str]) -> float | None:
    """Return what some nodes of a side would cost; None without a price."""
    if side.hourly is None:
        return None
    if side.plan is None:
        work = sum(row.seconds or 0.0 for key, row in side.rows.items() if key in keys and row.action in WORK)
        return work * side.paid * side.hourly
    changes = tuple(change for change in side.plan.changes if change.key in keys)
    return estimate_cost(replace(side.plan, changes=changes)).cost


def _moved(old: Side, new: Side) -> tuple[str, ...]:
    return tuple(describe_changes(old.plan.graph.lock, new.plan.graph.lock)) if old.plan and new.plan else ()


def _without_run(old: Side, new: Side) -> tuple[str, ...]:
    """Return the tables of the spec that differ, and of which nothing is computed on a device."""
    if not old.tables or not new.tables:
        return ()
    names = ("analysis", "claim", "verdict", "reference", "report")
    changed = [name for name in names if old.tables[name] != new.tables[name]]
    words = [[tables["study"][name] for name in ("name", "question")] for tables in (old.tables, new.tables)]
    return tuple(["study"] * (words[0] != words[1]) + changed)
