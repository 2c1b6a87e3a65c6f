"""What follows where an apply has made a finished node again: what was computed from its old bytes."""

from lorafile.plan.plan import WORK, Plan
from lorafile.plan.planner import make_plan
from lorafile.plan.targeting import matched
from lorafile.state import State


def remade(stages: list[Plan], state: State) -> Plan | None:
    """Return what an apply does next, when nodes that were finished before it now have other bytes; None for nothing.

    Each node is tried once; one that the approved plan has left out stays as it is.
    """
    tried = {change.key for stage in stages for change in stage.work}
    if not any(change.key in stage.results for stage in stages for change in stage.work):
        return None
    plan = make_plan(stages[-1].graph, state, stages[0].warnings, stages[0].selection.followed())
    plan.tuning = stages[-1].tuning
    selection, nodes = stages[0].selection, plan.graph.nodes
    wanted = set(nodes)
    if selection.target:
        wanted = set[str]().union(*(matched(plan.graph, pattern) for pattern in selection.target))
    wanted -= set[str]().union(*(matched(plan.graph, pattern) for pattern in selection.exclude))
    follows = {
        change.key
        for change in plan.work
        if change.key in plan.results
        and change.key in wanted - tried
        and tried.intersection(nodes[change.key].inputs.values())
    }
    plan.changes = [change for change in plan.changes if change.action not in WORK or change.key in follows]
    return plan if follows else None
