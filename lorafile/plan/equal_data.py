"""What a plan reuses if its data are prepared to the bytes of a finished `prepare` node: known once they are."""

import json
from collections.abc import Iterator
from dataclasses import replace

from lorafile.graph.build import build
from lorafile.graph.graph import GraphNode
from lorafile.plan.decide import decide, new_plan
from lorafile.plan.drift import flat
from lorafile.plan.plan import WORK, Action, Plan
from lorafile.state import EQUAL_DATA, Acceptance, Node, State

IF_EQUAL = "reused if prepared equal, known after prepare"
# Settings that often leave the bytes of a split as they are; nodes that differ in others are expected to differ.
_OFTEN_IDLE = (
    *("digest", "max_length", "too_long", "where", "columns", "sample_by", "reading"),
    *("jinja", "jinja_name", "date", "end_token"),
)


def expect_equal_data(plan: Plan, state: State) -> Plan:
    """Return the plan with what is reused if its data are prepared equal: that is what its reason says.

    To know what that is, the plan is made once more as it would be then.
    """
    assumed = {
        new: Acceptance(old, new, "prepare", EQUAL_DATA, "") for new, old in _expected(plan, state) if new != old
    }
    if not assumed:
        return plan
    graph = build(plan.graph.spec, plan.graph.lock, {**plan.graph.accepted, **assumed})
    then = decide(new_plan(graph, options=plan.options), state)
    stays = {change.address for change in then.changes if change.action not in (Action.REUSE, Action.DRIFT)}
    saved = {
        change.key
        for change in plan.changes
        if change.action is Action.RUN and change.kind != "prepare" and change.address not in stays
    }
    changes = (change._replace(reason=IF_EQUAL) if change.key in saved else change for change in plan.changes)
    return replace(plan, changes=tuple(changes), if_equal=frozenset(saved))


def prepare_first(plan: Plan) -> Plan | None:
    """Return the plan of what has to be prepared before it is known what is reused; None where that is known."""
    if plan.if_equal.isdisjoint(change.key for change in plan.work):
        return None
    return plan.with_work({change.key for change in plan.work if change.kind == "prepare"})


def _expected(plan: Plan, state: State) -> Iterator[tuple[str, str]]:
    """Yield the key of each `prepare` node to run, and that of the node whose bytes it may get, if there is any.

    That is the finished one that differs in the fewest settings; or else one that is to run before it.
    """
    to_run = [c.key for c in plan.changes if c.kind == "prepare" and c.action in WORK]
    nodes = [plan.graph.nodes[key] for key in to_run]
    if not nodes:
        return
    finished: dict[str, list[Node]] = {}
    for other, address in state.finished("prepare"):
        finished.setdefault(_shape(other, address), []).append(other)
    first: dict[str, str] = {}
    for node in nodes:
        shape = _shape(node, node.address)
        like = [other for other in finished.get(shape, []) if other.key != node.key]
        nearest = min(like, key=lambda other: _differing(node, other), default=None)
        planned = first.setdefault(shape, node.key)
        yield node.key, nearest.key if nearest else planned


def _differing(node: GraphNode, other: Node) -> int:
    """Return how many settings of two nodes differ."""
    before, after = flat(other), flat(node)
    return sum(before.get(name) != after.get(name) for name in before.keys() | after.keys())


def _shape(node: GraphNode | Node, address: str) -> str:
    """Return equal text for `prepare` nodes of one split that may leave equal bytes.

    :param address: `data/train:prepare`, or with a configuration's name after the split
    """
    data = {name: value for name, value in node.settings["data"].items() if name not in _OFTEN_IDLE}
    if "shots" in data:
        data["shots"] = {name: value for name, value in data["shots"].items() if name not in _OFTEN_IDLE}
    split = address.removeprefix("data/").partition(":")[0].partition("/")[0]
    return json.dumps([split, data], sort_keys=True)
