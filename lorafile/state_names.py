"""What a user may call a node of a state: an address, a run, a configuration, a pattern, the beginning of a key."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from lorafile.errors import LoraError
from lorafile.state import State

_SHORTEST_KEY = 6
_MOST = 8
_LIKELY = 2000  # names that a misspelt one is compared with: more would take seconds


@dataclass(frozen=True)
class Named:
    """A node by its name."""

    key: str
    kind: str
    address: str
    study: str


def named_nodes(state: State) -> list[Named]:
    """Return every node that has a name: what studies declare now, then what was tried, newest first."""
    declared = state.rows("SELECT key, kind, address, study FROM declarations")
    # An attempt that was removed still has a name: what was forgotten can be looked at.
    tried = state.rows(
        "SELECT key, kind, address, study FROM attempts GROUP BY key HAVING id = max(id) ORDER BY id DESC"
    )
    return [Named(*row) for row in (*declared, *tried)]


def find_nodes(state: State, names: list[str] | tuple[str, ...]) -> list[Named]:
    """Return the nodes that some names mean, each once.

    :param names: an address (`rank/r=16/seed=42:train`), all of a run or configuration (`rank/r=16`), a pattern
        (`rank/*:train`), or at least six letters of a key
    :raises LoraError: when a name means nothing, or the beginning of a key means several
    """
    known = named_nodes(state)
    found: dict[str, Named] = {}
    for name in names:
        found |= {node.key: node for node in reversed(_matching(known, name))}
    return list(found.values())


def find_node(state: State, name: str) -> Named:
    """Return the one node that a name means; a run stands for its training.

    :raises LoraError: when it means none, or several
    """
    known = named_nodes(state)
    training = [node for node in known if node.address == f"{name}:train"]
    found = list({node.key: node for node in reversed(training[:1] or _matching(known, name))}.values())
    if len(found) > 1:
        raise LoraError(f'"{name}" names several nodes; name one of them: {_listed(found)}')
    return found[0]


def _matching(known: list[Named], name: str) -> list[Named]:
    exact = [node for node in known if node.address == name]
    if exact:
        return exact[:1]  # something else may have stood under that address before
    if len(name) >= _SHORTEST_KEY and re.fullmatch(r"[0-9a-f]+", name):
        by_key = {node.key: node for node in reversed(known) if node.key.startswith(name)}
        if len(by_key) > 1:
            raise LoraError(f'Several keys begin with "{name}"; give more letters: {", ".join(sorted(by_key))}')
        if by_key:
            return list(by_key.values())
    first: dict[str, Named] = {}
    for node in known:
        inside = node.address.startswith((f"{name}/", f"{name}:")) or fnmatchcase(node.address, name)
        if inside:
            first.setdefault(node.address, node)
    if first:
        return list(first.values())
    raise LoraError(_nothing(known, name))


def _nothing(known: list[Named], name: str) -> str:
    if not known:
        return "This state knows no node yet. The first `lora apply` makes it; --state names another."
    names = {node.address for node in known} | {re.sub(r"(/seed=\d+)?:.*", "", node.address) for node in known}
    likely = sorted(names, key=lambda one: (one[:4] != name[:4], abs(len(one) - len(name))))[:_LIKELY]
    close = get_close_matches(name, likely, n=1, cutoff=0.5)
    hint = f'did you mean "{close[0]}"?' if close else "`lora state list --kind all` shows every address."
    return f'No node of this state is called "{name}", and no key begins so; {hint}'


def _listed(found: list[Named]) -> str:
    names = sorted(node.address for node in found)
    return ", ".join(names[:_MOST]) + (f" and {len(names) - _MOST} more" if len(names) > _MOST else "")
