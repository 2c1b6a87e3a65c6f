"""The first step of a plan: graph and state compared, node by node, to what is to be done, and why."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from lorafile.engine.request import EVAL_BATCH, EXAMPLES
from lorafile.engine.trainers.environment import PROGRAM
from lorafile.files.run_directory import Unfinished, unfinished
from lorafile.graph.graph import Graph, GraphNode
from lorafile.graph.notices import notices
from lorafile.plan.drift import Nearest, drift, flat
from lorafile.plan.equal_models import equal_model_lines
from lorafile.plan.missing_objects import missing_digests
from lorafile.plan.plan import EVERYTHING, WORK, Action, Change, Plan, PlanOptions
from lorafile.plan.targeting import why_again
from lorafile.state import Attempt, State

_KEPT = (Action.REUSE, Action.DRIFT)
_DONE = (Action.REUSE, "done")  # of nearly all of a large study
_FALLBACK = "auto_find_batch_size"
_MOST_COMPARED = 4_000_000  # new nodes with finished ones, in search of the nearest; beyond it, new is all that is said


def new_plan(graph: Graph, warnings: Iterable[str] = (), options: PlanOptions = EVERYTHING) -> Plan:
    """Return a plan in which nothing is decided yet."""
    lines = tuple(dict.fromkeys([*warnings, *equal_model_lines(graph.lock), *graph.accepted_lines(), *notices(graph)]))
    plan = Plan(graph.spec.name, graph, warnings=lines, options=options)
    return replace(plan, device=plan.machines.device)


def decide(plan: Plan, state: State) -> Plan:
    """Return the plan with an action and its reason for every node: what is to be done of it, compared with state.

    Of the options only what is to be done again is looked at; `restrict_to_targets` leaves out the rest.
    """
    planner = Planner(plan, state)
    for node in plan.graph.nodes.values():
        planner.decide(node)
    planner.fetch_missing_objects()
    changes = [
        Change(node.address, key, node.kind, *planner.decided[key], node.configuration, node.seed)
        for key, node in plan.graph.nodes.items()
    ]
    changes += _undeclared(plan.graph, state)
    return replace(plan, changes=tuple(changes), results=planner.results, unfinished=planner.unfinished)


class Planner:
    """Decides node by node; a node's inputs are decided before it."""

    def __init__(self, plan: Plan, state: State) -> None:
        self.graph, self.state, self.options, self.device = plan.graph, state, plan.options, plan.device
        self.history = state.latest(plan.graph.nodes, forecasts=False)
        self.again = bool(plan.options.replace or plan.options.rerun_drifted)
        self.removed = state.removed()
        self._begun = state.begun()
        self.today = plan.machines.environments
        self.decided: dict[str, tuple[Action, str]] = {}
        self.results: dict[str, Attempt] = {}
        self._usable: set[str] = set()  # done and kept: nothing is blocked by these
        self.unfinished: dict[str, Unfinished] = {}
        self._train = plan.graph.spec.tables.train
        self._drifts: dict[tuple[str, int], str] = {}  # kind, id of an environment -> what differs
        self._nearest: dict[str, Nearest] = {}  # by kind
        self._compared = 0

    def decide(self, node: GraphNode) -> None:
        """Settle what to do with a node."""
        key, attempts = node.key, self.history.get(node.key, ())
        if node.kind == "profile":
            attempts = [attempt for attempt in attempts if attempt.device == self.device]
        last = attempts[-1] if attempts else None
        if last is None or last.finished:
            finished = last
        else:
            finished = next((attempt for attempt in reversed(attempts) if attempt.finished), None)
        if not self._usable.issuperset(node.inputs.values()) and (blocked := self._blocked(node)):
            settled = (Action.BLOCKED, blocked)
        elif finished is not None:
            self.results[key] = finished
            settled = self._finished(node, finished)
            if node.accepted is not None:
                settled = self._accepted(node, *settled)
            if settled[0] in _KEPT and finished.outcome == "done":
                self._usable.add(key)
        elif running := self._running(node):
            settled = running
        elif attempts:
            settled = self._unfinished(node, attempts[-1])
        else:
            settled = self._untried(node)
        if self.again and (again := why_again(self.options, node, settled[0])):
            settled = self._accepted(node, Action.RETRY, again)
        self.decided[key] = settled

    def _blocked(self, node: GraphNode) -> str:
        for key in node.inputs.values():
            if key in self._usable:
                continue
            action, reason = self.decided[key]
            if action is Action.BLOCKED:
                return reason
            if action in WORK:
                continue
            result = self.results.get(key)
            if result is not None and result.outcome == "diverged":
                return f"{self.graph.nodes[key].address} diverged"
            if action is Action.REUSE and result is None:
                return f"{self.graph.nodes[key].address} ran out of memory"
        return ""

    def _finished(self, node: GraphNode, attempt: Attempt) -> tuple[Action, str]:
        reads, results = attempt.reads, self.results
        for role, key in node.inputs.items():
            if role in reads and key in results and reads[role] != results[key].outputs:
                return Action.RETRY, f"{self.graph.nodes[key].address} was recreated with different bytes"
        if differences := self._drift(node.kind, attempt.environment):
            return Action.DRIFT, f"done elsewhere: {differences}"
        if attempt.outcome == "diverged" or attempt.figures.get("imported"):
            return Action.REUSE, attempt.message
        return _DONE

    def _drift(self, kind: str, then: dict[str, Any]) -> str:
        """Return what differs from today; state gives all attempts of one environment the same object."""
        differences = self._drifts.get((kind, id(then)))
        if differences is None:
            now = next((today for today in self.today if today["device"] == then.get("device")), self.today[0])
            differences = self._drifts[kind, id(then)] = drift(kind, then, now)
        return differences

    def _accepted(self, node: GraphNode, action: Action, reason: str) -> tuple[Action, str]:
        """Say where a result is used in the place of another; nothing is ever computed again under an accepted key."""
        acceptance = node.accepted
        if acceptance is None:
            return action, reason
        old, new = acceptance.old[:12], acceptance.new[:12]
        if acceptance.is_equal:
            return action, reason if action in WORK else f"{reason}; {acceptance.reason} as {old}…"
        if action in WORK:
            remedy = f"lora state accept {old} {new} --withdraw"
            return Action.BLOCKED, f"the result accepted for it cannot be used: {reason}; to run it: {remedy}"
        return action, f"{reason}; {old}… accepted in place of {new}…: {acceptance.reason}"

    def _unfinished(self, node: GraphNode, last: Attempt) -> tuple[Action, str]:
        if last.outcome == "out-of-memory":
            had = last.environment.get("device_memory") or 0
            has = [today["device_memory"] or 0 for today in self.today]
            if min(has) > had:
                return Action.RETRY, f"ran out of memory on {last.device}; {self.device} has more memory"
            if node.kind == "train" and self._train.auto_find_batch_size and not last.figures.get(_FALLBACK):
                return (
                    Action.RETRY,
                    f"ran out of memory without train.{_FALLBACK}, which is now on{self._resumes(node)}",
                )
            now = self.graph.spec.tables.evaluate.per_device_eval_batch_size or EXAMPLES
            then = last.figures.get(EVAL_BATCH, EXAMPLES)
            if node.kind in ("predict", "inspect", "merge") and now < then:
                return Action.RETRY, f"ran out of memory at {EVAL_BATCH} = {then}, which is now {now}"
            if max(has) > had:  # a worker takes what comes: it might get the smaller GPU again
                remedy = "to try again, list only the larger ones in CUDA_VISIBLE_DEVICES"
                return (
                    Action.REUSE,
                    f"ran out of memory on {last.device}, and not every GPU here has more memory; {remedy}",
                )
            return (
                Action.REUSE,
                f"ran out of memory on {last.device}, and this device has no more memory, so that is the result",
            )
        rest = self._resumes(node)
        return Action.RETRY, f"{last.outcome}: {last.message.rstrip('.') if rest else last.message}{rest}"

    def _untried(self, node: GraphNode) -> tuple[Action, str]:
        """Settle what to do with a node of which no attempt is recorded: a killed apply may have left a checkpoint."""
        rest = self._resumes(node)
        if rest:
            return Action.RETRY, f"interrupted: the apply was killed{rest}"
        removed = self.removed.get(node.key)
        return (Action.RETRY, removed) if removed else (Action.RUN, self._why_new(node) + self._starts_from(node))

    def _resumes(self, node: GraphNode) -> str:
        """Return from where a run would go on, and remember it; nothing where it would start from the beginning."""
        run = self._run(node)
        if run is None or not run.checkpoint:
            return ""
        self.unfinished[node.key] = run
        return f"; resumes from step {run.checkpoint} of {run.steps}"

    def _running(self, node: GraphNode) -> tuple[Action, str] | None:
        """Return what to say of a run that another apply trains now; None for any other node."""
        run = self._run(node)
        if run is None or not run.live:
            return None
        return Action.RUN, f"another apply is training it, at step {run.step} of {run.steps}"

    def _run(self, node: GraphNode) -> Unfinished | None:
        """Return what is here of a node's run that is not finished."""
        return unfinished(self.state.running(node.key)) if node.key in self._begun else None

    def _why_new(self, node: GraphNode) -> str:
        """Name the nearest finished node of the kind, and the settings that differ."""
        for key in node.inputs.values():
            if self.decided[key][0] is Action.RUN and node.kind not in ("train", "profile"):
                return f"follows {self.graph.nodes[key].address}"
        if "repeat" in node.settings:
            return f"a repeat for the noise floor: study.repeats = {self.graph.spec.tables.study.repeats}"
        nearest = self._nearest.get(node.kind)
        if nearest is None:
            nearest = self._nearest[node.kind] = Nearest.of(self.state, node.kind)
        if node.kind == "profile" and node.key in nearest.keys:
            return f"not measured on {self.device} yet"
        self._compared += len(nearest.rows)
        if self._compared > _MOST_COMPARED:
            return "new"
        wanted = flat(node)
        return nearest.reason(wanted) + self._layout_only(node, nearest, wanted)

    def _starts_from(self, node: GraphNode) -> str:
        """Say whose adapter a run starts from; nothing where its adapter is new."""
        start = node.inputs.get("start")
        return f"; starts from {self.graph.nodes[start].address}" if start else ""

    def _layout_only(self, node: GraphNode, nearest: Nearest, wanted: dict[str, Any]) -> str:
        """Say where only comments and layout of a program's files differ, and how to keep the finished result then."""
        best = nearest.best(wanted) if "trainer" in node.settings else None
        if best is None:
            return ""
        old, before = list(nearest.keys)[best], nearest.flats[best]
        differing = {name for name in {**wanted, **before} if wanted.get(name) != before.get(name)}
        attempt = self.state.latest([old])[old][-1] if differing == {"trainer.files"} else None
        configuration = self.graph.spec.named[node.configuration]
        if attempt is None or configuration.train is None:
            return ""
        program = self.graph.trainers[configuration.train.trainer]
        if not program.differs_in_layout_only(attempt.outputs.get(PROGRAM), self.state.objects):
            return ""
        keep = f"lora state accept {old[:12]} {node.address} --spec {self.graph.spec.file.name}"
        return f"; only comments and layout differ, and its result can be kept with: {keep}"

    def fetch_missing_objects(self) -> None:
        """Make again what a node that is to run reads, where its bytes are gone."""
        waiting = [key for key, (action, _) in self.decided.items() if action in WORK]
        if not waiting:
            return
        while waiting:
            for key in self.graph.nodes[waiting.pop()].inputs.values():
                action, _ = self.decided[key]
                gone = missing_digests(self.results[key], self.state.objects) if key in self.results else []
                if action in (Action.REUSE, Action.DRIFT) and gone:
                    reason = f"its object {gone[0][:12]}… is missing or damaged, and a planned node reads it"
                    self.decided[key] = self._accepted(self.graph.nodes[key], Action.RETRY, reason)
                    self._usable.discard(key)
                    waiting.append(key)
        for node in self.graph.nodes.values():
            if self.decided[node.key][0] in WORK and (blocked := self._blocked(node)):
                self.decided[node.key] = (Action.BLOCKED, blocked)


def _undeclared(graph: Graph, state: State) -> list[Change]:
    reason = "no longer in the spec; result kept"
    gone = state.declared(graph.spec.name, but=graph.nodes)
    if not gone:
        return []
    attempts = state.latest((key for key, _ in gone.values()), forecasts=False)
    kept = {key for key, tries in attempts.items() if any(attempt.finished for attempt in tries)}
    addresses = {node.address for node in graph.nodes.values()}
    # An address that is there still was changed, and is not gone. What follows a choice is declared, whichever
    # candidate it will be of.
    later = tuple(f"{c.name}{mark}" for c in graph.spec.configurations if c.open for mark in ("/seed=", ":"))
    return [
        Change(address, key, kind, Action.UNDECLARED, reason)
        for address, (key, kind) in gone.items()
        if key in kept and address not in addresses and not address.startswith(later)
    ]
