"""Which node or run of a study a name stands for; without a study, of every study that a state knows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorafile.errors import LoraError
from lorafile.state import Attempt, State
from lorafile.state.names import (
    MODEL_KINDS,
    PART,
    Named,
    Names,
    configuration_name,
    nodes_called,
    recorded_nodes,
    run_name,
    unknown_name,
)

if TYPE_CHECKING:
    from lorafile.graph.graph import Graph
    from lorafile.plan.plan import Plan
    from lorafile.specs import Configuration, Spec

_MISSING = Attempt("", "", "missing")


@dataclass(frozen=True)
class StudyRun:
    """A run of a study: an adapter or a model that is trained, the same adapter cut to a smaller rank, or no training.

    :ivar key, address: of the node that makes its files; the untuned model has no key
    :ivar attempt: its result; the outcome is `missing` where there is none
    :ivar truncated: the rank that it was cut to, or None
    """

    configuration: "Configuration"
    seed: int | None
    key: str
    address: str
    attempt: Attempt
    truncated: int | None = None


def names_of(state: State, spec: "Spec | None" = None) -> Names:
    """Return the names of a study as its spec declares it now, or of every study that the state knows."""
    return Names(state, recorded_nodes(state)) if spec is None else names_in(declared(spec, state), state)


def declared(spec: "Spec", state: State) -> "Plan":
    """Return the plan of a study as its spec declares it now, without looking at files and without forecasts."""
    from lorafile.lock.lockfile import read_lock, resolve
    from lorafile.plan.planner import plan_work

    lock, _ = resolve(spec, read_lock(spec))
    return plan_work(spec, lock, state)


def names_in(plan: "Plan", state: State) -> Names:
    """Return the names of a plan's study."""
    graph, spec = plan.graph, plan.graph.spec
    nodes = [
        Named(node.key, node.kind, node.address, spec.name, replaces=node.accepted.new if node.accepted else "")
        for node in graph.nodes.values()
    ]
    addresses = {node.address for node in nodes}
    nodes += [node for node in _nodes_of_runs(graph, spec.name) if node.address not in addresses]
    aliases = {alias: c.name for c in spec.configurations for alias in c.aliases}
    return Names(state, nodes, str(spec.file), aliases)


def _nodes_of_runs(graph: "Graph", study: str) -> Iterator[Named]:
    """Yield the nodes of each run under its own name: what two configurations share has the address of the first."""
    for configuration, replicates in graph.replicates.items():
        for replicate in replicates:
            run = configuration if replicate.seed is None else f"{configuration}/seed={replicate.seed}"
            for part, key in replicate.named.items():
                kind = part.partition("/")[0]
                if kind in ("train", "predict", "score"):
                    yield Named(key, kind, f"{run}:{part}", study)
    for configuration, key in graph.profiles.items():
        yield Named(key, "profile", f"{configuration}:profile", study)


def find_run(plan: "Plan", state: State, name: str, seed: int | None = None) -> StudyRun:
    """Return the run of a study that a name means; of a configuration the first that is done, or else its first.

    :raises LoraError: when the study has none of that name, or not under that seed
    """
    from lorafile.plan.tuning import check_chosen

    names = names_in(plan, state)
    full = names.full(name)
    nodes = [node for node in names.nodes if node.kind == "train" and configuration_name(node.address) == full]
    if not nodes:
        check_chosen(plan, full)
        exact = nodes_called(names, name)
        run = run_name(exact[0].address) if exact else full
        untuned = plan.graph.spec.named.get(configuration_name(f"{run}:train"))
        if untuned is not None and untuned.method == "none":
            return StudyRun(untuned, None, "", run, _MISSING)
        nodes = exact[:1] if exact and exact[0].kind in MODEL_KINDS else nodes_called(names, run)[:1]
    if not nodes:
        raise unknown_name(names, name)
    runs = [_study_run(plan, node) for node in nodes]
    if seed is not None:
        seeds = ", ".join(str(run.seed) for run in runs)
        runs = [run for run in runs if run.seed == seed]
        if not runs:
            raise LoraError(f"{name} has no seed {seed}; it has {seeds}.")
    return next((run for run in runs if run.attempt.outcome == "done"), runs[0])


def _study_run(plan: "Plan", node: Named) -> StudyRun:
    made, part = plan.graph.nodes[node.key], PART.fullmatch(node.address)
    configuration = plan.graph.spec.named[part["name"] if part and part["seed"] else made.configuration]
    rank = made.settings["truncation"]["rank"] if node.kind == "truncate" else None
    return StudyRun(configuration, made.seed, node.key, node.address, plan.results.get(node.key, _MISSING), rank)
