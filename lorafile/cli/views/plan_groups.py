"""A plan of many configurations, told by sweep, action and reason instead of one by one."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from lorafile.cli.views.plan_scope import counted
from lorafile.plan.plan import Action, Change, Plan

_NUMBER = re.compile(r"\d+(\.\d+)?")


def work_lines(plan: Plan, by_name: dict[str, list[Change]]) -> Iterator[tuple[Action, str, str]]:
    """Yield (action, what, reason) of the configurations with work, those of one sweep and one reason together.

    :param by_name: configuration, or the address of prepared data -> its work
    """
    groups: dict[tuple[str, Action, str], list[tuple[str, Change, list[Change]]]] = {}
    for name, changes in by_name.items():
        lead = next((change for change in changes if change.kind == "train"), changes[0])
        group = (_sweep(plan, lead), lead.action, _kind_of(lead))
        groups.setdefault(group, []).append((name, lead, changes))
    for (sweep, action, _), members in groups.items():
        work = counted(Counter(change.kind for *_, changes in members for change in changes))
        name, lead, _ = members[0]
        what = name if len(members) == 1 else f"{sweep}: {len(members):,} {_noun(lead)}"
        yield action, f"{what}  ({work})", _reason([lead for _, lead, _ in members], name)


def node_lines(plan: Plan, changes: Iterable[Change]) -> Iterator[tuple[Action, str, str]]:
    """Yield (action, what, reason) of single nodes, those of one sweep and one reason together."""
    groups: dict[tuple[str, Action, str], list[Change]] = {}
    for change in changes:
        groups.setdefault((_sweep(plan, change), change.action, _kind_of(change)), []).append(change)
    for (sweep, action, _), members in groups.items():
        work = counted(Counter(change.kind for change in members))
        what = members[0].address if len(members) == 1 else f"{sweep}: {len(members):,} nodes  ({work})"
        yield action, what, f"{action.value}: {_reason(members, members[0].address)}"


def _reason(members: list[Change], first: str) -> str:
    same = all(change.reason == members[0].reason for change in members)
    return members[0].reason if same else f"such as {first}: {members[0].reason}"


def _noun(lead: Change) -> str:
    return "prepared splits" if lead.kind == "prepare" else "configurations"


def _sweep(plan: Plan, change: Change) -> str:
    """Return the sweep that a node belongs to; of one that is no longer declared the first part of its address."""
    configuration = plan.graph.spec.named.get(change.configuration)
    return change.address.split("/")[0] if configuration is None or change.kind == "prepare" else configuration.sweep


def _kind_of(change: Change) -> str:
    """Return what the reasons of alike changes have in common: neither names nor numbers."""
    reason = change.reason
    if reason.startswith(("new", "follows ")):
        return "new"
    if change.action is Action.BLOCKED:
        return next((why for why in ("diverged", "ran out of memory") if reason.endswith(why)), reason)
    return _NUMBER.sub("…", reason)
