"""Which recorded node a name stands for: an address, a run, a configuration, a pattern, or the beginning of a key.

Names of one study's plan are made in lorafile/plan/names.py and looked up here, too.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from lorafile.errors import LoraError
from lorafile.state import State
from lorafile.units import did_you_mean, listing

SHORTEST_KEY = 6
PART = re.compile(r"(?P<name>.+?)(?:/seed=(?P<seed>\d+))?:(?P<node>(?:train|predict|score|profile)(?:/.*)?)")
MODEL_KINDS = ("train", "truncate")  # they leave a model, and a run is called after them
_MOST_LISTED = 8
_MOST_COMPARED = 2000  # names that a misspelt one is compared with: more would take seconds


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
    """The names that a command can look up.

    :ivar nodes: what studies declare now, then what was tried, newest first
    :ivar spec: the file of the one study that is meant; empty for every study of the state
    :ivar aliases: other names of that study's configurations
    :ivar takes_spec: whether the command has an option --spec, which would make a name clear
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


class UnknownName(LoraError):
    """Nothing has that name."""


def recorded_nodes(state: State) -> list[Named]:
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
    matches = nodes_called(names, name) or _inside(names, name)
    if not matches:
        raise unknown_name(names, name)
    if len({node.key for node in matches}) > 1:
        addresses = sorted({node.address for node in matches})
        more = f" and {len(addresses) - _MOST_LISTED} more" if len(addresses) > _MOST_LISTED else ""
        raise LoraError(
            f'"{name}" matches several nodes; pass one of them: {", ".join(addresses[:_MOST_LISTED])}{more}'
        )
    return matches[0]


def find_nodes(names: Names, wanted: Iterable[str]) -> list[Named]:
    """Return the nodes that some names mean, each once.

    :param wanted: an address (`rank/r=16/seed=42:train`), all of a run or configuration (`rank/r=16`), at least six
        letters of a key, or a pattern (`rank/*:train`), which takes what fits in every study
    :raises LoraError: when a name means nothing, or different things in several studies
    """
    chosen: dict[str, Named] = {}
    for name in wanted:
        for node in _matches(names, name):
            chosen.setdefault(node.key, node)
    return list(chosen.values())


def _matches(names: Names, name: str) -> list[Named]:
    full = names.full(name)
    matches = _in_one_study(names, name, lambda node: node.address == full)
    matches = matches or _inside(names, name) or _by_key(names, name)
    matches = matches or _current([node for node in names.nodes if fnmatchcase(node.address, full)])
    if not matches:
        raise unknown_name(names, name)
    return matches


def find_configuration(names: Names, name: str) -> list[Named]:
    """Return the nodes of a configuration that is declared; none where the name is not that of one.

    :raises LoraError: where several studies have different configurations of that name
    """
    full = names.full(name)
    if not name or any(node.address in _model_addresses(full) for node in names.nodes):
        return []  # a repeat, or an adapter that was cut: a run without a seed of its own in its name
    return _in_one_study(names, name, lambda node: node.declared and configuration_name(node.address) == full)


def nodes_called(names: Names, name: str) -> list[Named]:
    """Return the node that has an address or a key, or that a run is called after; several where studies share it.

    :raises LoraError: where the name means different nodes in several studies
    """
    addresses = _model_addresses(names.full(name))
    return _in_one_study(names, name, lambda node: node.address in addresses) or _by_key(names, name)


def run_name(address: str) -> str:
    """Return the name of the run that an address belongs to, `rank/r=16/seed=42`."""
    part = PART.fullmatch(address)
    return address.removesuffix(f":{part['node']}") if part else address.rpartition(":")[0]


def configuration_name(address: str) -> str:
    """Return the name of the configuration that an address belongs to, `rank/r=16`; empty where it has none."""
    part = PART.fullmatch(address)
    return part["name"] if part else ""


def unknown_name(names: Names, name: str) -> UnknownName:
    """Return the error that nothing has a name, with what comes near."""
    if not names.nodes:
        return UnknownName("This state has no nodes yet. Run `lora apply`, or pass another state with --state.")
    if not names.spec:
        hint = _close_to(names, name, "`lora state list --kind all` shows every address.")
        return UnknownName(f'No node in this state is named "{name}", and no key starts with it; {hint}')
    declared = [node for node in recorded_nodes(names.state) if node.declared] if name else []
    others = sorted({node.study for node in declared if _is_called(node, name)})
    hint = f"it belongs to {', '.join(others)}." if others else ""
    hint = hint or _close_to(names, name, "`lora plan --full` shows every address.")
    return UnknownName(f'{names.spec} declares nothing named "{name}", and none of its keys starts with it; {hint}')


def _close_to(names: Names, name: str, otherwise: str) -> str:
    addresses = {node.address for node in names.nodes}
    addresses |= {re.sub(r"(/seed=\d+)?:.*", "", address) for address in addresses} | set(names.aliases)
    likely = sorted(addresses, key=lambda address: (address[:4] != name[:4], abs(len(address) - len(name))))
    return did_you_mean(name, likely[:_MOST_COMPARED], otherwise, cutoff=0.5)


def _is_called(node: Named, name: str) -> bool:
    is_run = node.address in _model_addresses(name) or configuration_name(node.address) == name
    return is_run or (len(name) >= SHORTEST_KEY and node.key.startswith(name))


def _model_addresses(name: str) -> tuple[str, ...]:
    """Return the addresses that the name of a node or of a run may stand for."""
    return (name, *(f"{name}:{kind}" for kind in MODEL_KINDS))


def _by_key(names: Names, name: str) -> list[Named]:
    if len(name) < SHORTEST_KEY or not re.fullmatch(r"[0-9a-f]+", name):
        return []
    by_key: dict[str, Named] = {}
    for node in names.nodes:
        if node.key.startswith(name) or node.replaces.startswith(name):
            by_key.setdefault(node.key, node)
    if len(by_key) > 1:
        raise LoraError(f'Several keys start with "{name}"; pass more characters: {", ".join(sorted(by_key))}')
    return list(by_key.values())


def _inside(names: Names, name: str) -> list[Named]:
    """Return all of a run, of a configuration, or of a sweep."""
    full = names.full(name)
    return _in_one_study(names, name, lambda node: node.address.startswith((f"{full}/", f"{full}:")))


def _in_one_study(names: Names, name: str, fits: Callable[[Named], bool]) -> list[Named]:
    """Return the nodes that fit, those that are declared now before those that stood under an address earlier.

    :raises LoraError: where they are others in another study
    """
    fitting = [node for node in names.nodes if fits(node)]
    keys: dict[str, dict[str, str]] = {}
    for node in [node for node in fitting if node.declared] or fitting:
        keys.setdefault(node.study, {}).setdefault(node.address, node.key)
    if len({frozenset(addresses.values()) for addresses in keys.values()}) > 1:
        raise LoraError(_ambiguity(names, name, keys))
    return _current([node for node in fitting if node.study in keys])


def _current(nodes: list[Named]) -> list[Named]:
    """Return what each study has under each address: what is declared there, or else what was tried last."""
    declared = {node.address for node in nodes if node.declared}
    current: dict[tuple[str, str], Named] = {}
    for node in nodes:
        if node.declared or node.address not in declared:
            current.setdefault((node.study, node.address), node)
    return list(current.values())


def _ambiguity(names: Names, name: str, keys: dict[str, dict[str, str]]) -> str:
    """Ask which study is meant.

    :param keys: study -> address -> key of what has the name there
    """
    models = _model_addresses(name)
    runs = {study: [rows[address] for address in models if address in rows] for study, rows in keys.items()}
    by_key = all(runs.values()) and len({run[0] for run in runs.values()}) > 1
    studies = [f"{study} (key {runs[study][0][:12]}…)" if by_key else study for study in sorted(keys)]
    whole = any(configuration_name(address) == name for rows in keys.values() for address in rows)
    what = "a node" if ":" in name else "a run" if any(runs.values()) else "a configuration" if whole else "part"
    number = "two" if len(studies) == 2 else str(len(studies))
    remedy = "Pass the spec with --spec" + (", or pass the key" if by_key else "")
    remedy = remedy if names.takes_spec else "Pass the key"
    return f'"{name}" is {what} of {number} studies: {listing(studies, len(studies))}. {remedy}.'
