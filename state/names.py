"""Which node or run a name stands for: in one study, or in every study of a state. No name is looked up elsewhere."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from lorafile.errors import LoraError
from lorafile.state import Attempt, State

if TYPE_CHECKING:
    from lorafile.graph.graph import Graph
    from lorafile.plan.plan import Plan
    from lorafile.specs import Configuration
    from lorafile.study.study import Study

SHORTEST_KEY = 6
PART = re.compile(r"(?P<name>.+?)(?:/seed=(?P<seed>\d+))?:(?P<node>(?:train|predict|score|profile)(?:/.*)?)")
MODEL_KINDS = ("train", "truncate")  # they leave a model, and a run is called after them
_MOST_LISTED = 8
_MOST_COMPARED = 2000  # names that a misspelt one is compared with: more would take seconds
_MISSING = Attempt("", "", "missing")


@dataclass(frozen=True)
class Named:
    """A node under one of its names.

    :ivar declared: whether the study declares it now; otherwise it was tried under this address once
    :ivar replaces: the key in whose place its result is accepted
    """

    key: str
    kind: str
    address: str
    study: str
    declared: bool = True
    replaces: str = ""


@dataclass(frozen=True)
class Names:
    """What a name is looked up in.

    :ivar nodes: what studies declare now, then what was tried, newest first
    :ivar spec: the file of the one study that is meant; empty for every study of the state
    :ivar aliases: other names of that study's configurations
    :ivar takes_spec: whether the name can be made clear with --spec
    """

    state: State
    nodes: list[Named]
    spec: str = ""
    aliases: dict[str, str] = field(default_factory=dict)
    takes_spec: bool = True

    def full(self, name: str) -> str:
        """Return a name with the configuration's own name in place of an alias."""
        for alias, configuration in self.aliases.items():
            if name == alias or name.startswith((f"{alias}/", f"{alias}:")):
                return configuration + name.removeprefix(alias)
        return name


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


class UnknownName(LoraError):
    """Nothing has that name."""


def names_of(state: State, study: "Study | None" = None, takes_spec: bool = True) -> Names:
    """Return the names of a study as its spec declares it now, or of every study that the state knows."""
    if study is None:
        return Names(state, recorded(state), takes_spec=takes_spec)
    from lorafile.lock.lockfile import read_lock, resolve
    from lorafile.plan.planner import plan_work

    lock, _ = resolve(study.spec, read_lock(study.spec))
    return names_in(plan_work(study.spec, lock, state), state)


def names_in(plan: "Plan", state: State) -> Names:
    """Return the names of a plan's study."""
    graph, spec = plan.graph, plan.graph.spec
    nodes = [
        Named(node.key, node.kind, node.address, spec.name, replaces=node.accepted.new if node.accepted else "")
        for node in graph.nodes.values()
    ]
    addresses = {node.address for node in nodes}
    nodes += [node for node in _shared(graph, spec.name) if node.address not in addresses]
    aliases = {alias: c.name for c in spec.configurations for alias in c.aliases}
    return Names(state, nodes, str(spec.file), aliases)


def _shared(graph: "Graph", study: str) -> Iterator[Named]:
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


def recorded(state: State) -> list[Named]:
    """Return every node that a state knows: what studies declare now, then what was tried, newest first."""
    declared = state.rows("SELECT key, kind, address, study, TRUE FROM declarations")
    # An attempt that was removed still has a name: what was forgotten can be looked at.
    tried = state.rows(
        "SELECT key, kind, address, study, FALSE FROM attempts GROUP BY key HAVING id = max(id) ORDER BY id DESC"
    )
    return [Named(*row) for row in (*declared, *tried)]


def find_node(names: Names, name: str) -> Named:
    """Return the one node that an address, a run or the beginning of a key means; a run stands for its training.

    :raises LoraError: when nothing has that name, or several nodes have it
    """
    matches = _exact(names, name) or _inside(names, name)
    if not matches:
        raise UnknownName(_unknown(names, name))
    if len({node.key for node in matches}) > 1:
        addresses = sorted({node.address for node in matches})
        more = f" and {len(addresses) - _MOST_LISTED} more" if len(addresses) > _MOST_LISTED else ""
        listed = ", ".join(addresses[:_MOST_LISTED])
        raise LoraError(f'"{name}" names several nodes; name one of them: {listed}{more}')
    return matches[0]


def find_nodes(names: Names, wanted: Iterable[str]) -> list[Named]:
    """Return the nodes that some names mean, each once.

    :param wanted: an address (`rank/r=16/seed=42:train`), all of a run or configuration (`rank/r=16`), at least six
        letters of a key, or a pattern (`rank/*:train`), which takes what fits in every study
    :raises LoraError: when a name means nothing, or different things in several studies
    """
    chosen: dict[str, Named] = {}
    for name in wanted:
        matches = _everything(names, name) or _by_key(names, name) or _fitting(names, name)
        if not matches:
            raise UnknownName(_unknown(names, name))
        for node in matches:
            chosen.setdefault(node.key, node)
    return list(chosen.values())


def find_configuration(names: Names, name: str) -> list[Named]:
    """Return the nodes of a configuration that is declared; none where the name is not that of one.

    :raises LoraError: where several studies have different configurations of that name
    """
    full = names.full(name)
    if not name or any(node.address in _models(full) for node in names.nodes):
        return []  # a repeat, or an adapter that was cut: a run without a seed of its own in its name
    return _in_one_study(names, name, lambda node: node.declared and _configuration(node.address) == full)


def find_run(plan: "Plan", state: State, name: str, seed: int | None = None) -> StudyRun:
    """Return the run of a study that a name means; of a configuration the first that is done, or else its first.

    :raises LoraError: when the study has none of that name, or not under that seed
    """
    from lorafile.plan.tuning import check_chosen

    names = names_in(plan, state)
    full = names.full(name)
    rows = [node for node in names.nodes if node.kind == "train" and _configuration(node.address) == full]
    if not rows:
        check_chosen(plan, full)
        exact = _exact(names, name)
        run = run_name(exact[0].address) if exact else full
        untuned = plan.graph.spec.named.get(_configuration(f"{run}:train"))
        if untuned is not None and untuned.method == "none":
            return StudyRun(untuned, None, "", run, _MISSING)
        rows = exact[:1] if exact and exact[0].kind in MODEL_KINDS else _exact(names, run)[:1]
    if not rows:
        raise UnknownName(_unknown(names, name))
    runs = [_study_run(plan, node) for node in rows]
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


def _models(name: str) -> tuple[str, ...]:
    """Return the addresses that the name of a node or of a run may stand for."""
    return (name, *(f"{name}:{kind}" for kind in MODEL_KINDS))


def run_name(address: str) -> str:
    """Return the name of the run that an address belongs to, `rank/r=16/seed=42`."""
    part = PART.fullmatch(address)
    return address.removesuffix(f":{part['node']}") if part else address.rpartition(":")[0]


def _configuration(address: str) -> str:
    part = PART.fullmatch(address)
    return part["name"] if part else ""


def _exact(names: Names, name: str) -> list[Named]:
    """Return the node that has an address or a key, or that a run is called after."""
    addresses = _models(names.full(name))
    return _in_one_study(names, name, lambda node: node.address in addresses) or _by_key(names, name)


def _by_key(names: Names, name: str) -> list[Named]:
    if len(name) < SHORTEST_KEY or not re.fullmatch(r"[0-9a-f]+", name):
        return []
    by_key: dict[str, Named] = {}
    for node in names.nodes:
        if node.key.startswith(name) or node.replaces.startswith(name):
            by_key.setdefault(node.key, node)
    if len(by_key) > 1:
        raise LoraError(f'Several keys begin with "{name}"; give more letters: {", ".join(sorted(by_key))}')
    return list(by_key.values())


def _inside(names: Names, name: str) -> list[Named]:
    """Return all of a run, of a configuration, or of a sweep."""
    full = names.full(name)
    return _in_one_study(names, name, lambda node: node.address.startswith((f"{full}/", f"{full}:")))


def _everything(names: Names, name: str) -> list[Named]:
    """Return the node that has an address, or else all of a run, of a configuration, or of a sweep."""
    full = names.full(name)
    return _in_one_study(names, name, lambda node: node.address == full) or _inside(names, name)


def _fitting(names: Names, pattern: str) -> list[Named]:
    """Return what fits a pattern, in every study."""
    full = names.full(pattern)
    return _current([node for node in names.nodes if fnmatchcase(node.address, full)])


def _in_one_study(names: Names, name: str, fits: Callable[[Named], bool]) -> list[Named]:
    """Return the nodes that fit, those that are declared now before those that stood under an address earlier.

    :raises LoraError: where they are others in another study
    """
    fitting = [node for node in names.nodes if fits(node)]
    keys: dict[str, dict[str, str]] = {}
    for node in [node for node in fitting if node.declared] or fitting:
        keys.setdefault(node.study, {}).setdefault(node.address, node.key)
    if len({frozenset(addresses.values()) for addresses in keys.values()}) > 1:
        raise LoraError(_question(names, name, keys))
    return _current([node for node in fitting if node.study in keys])


def _current(nodes: list[Named]) -> list[Named]:
    """Return what each study has under each address: what is declared there, or else what was tried last."""
    declared = {node.address for node in nodes if node.declared}
    current: dict[tuple[str, str], Named] = {}
    for node in nodes:
        if node.declared or node.address not in declared:
            current.setdefault((node.study, node.address), node)
    return list(current.values())


def _question(names: Names, name: str, keys: dict[str, dict[str, str]]) -> str:
    """Ask which study is meant.

    :param keys: study -> address -> key of what has the name there
    """
    runs = {study: [rows[address] for address in _models(name) if address in rows] for study, rows in keys.items()}
    by_key = all(runs.values()) and len({run[0] for run in runs.values()}) > 1
    studies = [f"{study} (key {runs[study][0][:12]}…)" if by_key else study for study in sorted(keys)]
    whole = any(_configuration(address) == name for rows in keys.values() for address in rows)
    what = "a node" if ":" in name else "a run" if any(runs.values()) else "a configuration" if whole else "part"
    number = "two" if len(studies) == 2 else str(len(studies))
    remedy = "Name the spec with --spec" + (", or give the key" if by_key else "")
    remedy = remedy if names.takes_spec else "Give the key"
    return f'"{name}" is {what} of {number} studies: {", ".join(studies[:-1])} and {studies[-1]}. {remedy}.'


def _unknown(names: Names, name: str) -> str:
    """Say that nothing has a name, and what comes near."""
    if not names.nodes:
        return "This state knows no node yet. The first `lora apply` makes it; --state names another."
    addresses = {node.address for node in names.nodes}
    addresses |= {re.sub(r"(/seed=\d+)?:.*", "", address) for address in addresses} | set(names.aliases)
    likely = sorted(addresses, key=lambda address: (address[:4] != name[:4], abs(len(address) - len(name))))
    close = get_close_matches(name, likely[:_MOST_COMPARED], n=1, cutoff=0.5)
    near = f'did you mean "{close[0]}"?' if close else ""
    if not names.spec:
        hint = near or "`lora state list --kind all` shows every address."
        return f'No node of this state is called "{name}", and no key begins so; {hint}'
    known = [node for node in recorded(names.state) if node.declared] if name else []
    others = sorted({node.study for node in known if _is_called(node, name)})
    hint = f"it belongs to {', '.join(others)}." if others else near or "`lora plan --full` shows every address."
    return f'{names.spec} declares nothing called "{name}", and no key of it begins so; {hint}'


def _is_called(node: Named, name: str) -> bool:
    run = node.address in _models(name) or _configuration(node.address) == name
    return run or (len(name) >= SHORTEST_KEY and node.key.startswith(name))
