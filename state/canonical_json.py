"""Canonical JSON (RFC 8785) of what is hashed: the same text as the rfc8785 library gives, for thousands of nodes."""

from typing import Any

import rfc8785

_MEMBERS: dict[tuple[str, str], str] = {}  # name and value as text -> that member of an object
_KEPT = 16384


def canonical(value: Any) -> str:
    """Return a section as canonical JSON; members that many sections have in common are written once."""
    if not isinstance(value, dict) or not all(map(str.isascii, value)):
        return rfc8785.dumps(value).decode()
    # ASCII names have one order, whether compared by code point or, as RFC 8785 has it, by UTF-16 code unit.
    return "{" + ",".join([_member(name, value[name]) for name in sorted(value)]) + "}"


def of_texts(texts: dict[str, str]) -> str:
    """Return names and digests, none of which holds anything that JSON would escape, as canonical JSON."""
    if len(texts) == 1:
        ((name, text),) = texts.items()
        return f'{{"{name}":"{text}"}}'
    return "{" + ",".join([f'"{name}":"{text}"' for name, text in sorted(texts.items())]) + "}"


def _member(name: str, value: Any) -> str:
    known = (name, repr(value))
    found = _MEMBERS.get(known)
    if found is None:
        if len(_MEMBERS) >= _KEPT:
            _MEMBERS.clear()
        found = f"{rfc8785.dumps(name).decode()}:{rfc8785.dumps(value).decode()}"
        _MEMBERS[known] = found
    return found
