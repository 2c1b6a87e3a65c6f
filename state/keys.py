"""Keys of nodes: sha256 over canonical JSON (RFC 8785), written fast enough for tens of thousands of nodes."""

from typing import Any

import rfc8785

from lorafile.files.digests import text_digest

_MEMBERS: dict[tuple[str, str], str] = {}  # name and value as text -> that member of an object
_MOST_MEMBERS = 16384


def key_of(kind: str, version: int, sections: str, inputs: dict[str, str]) -> str:
    """Return the key of a node.

    :param version: the protocol version of its kind
    :param sections: name -> digest of each section of its settings, as `canonical_texts` writes them
    :param inputs: role -> key of the node that it reads
    """
    return text_digest(
        f'{{"inputs":{canonical_texts(inputs)},"kind":"{kind}","sections":{sections},"version":{version}}}'
    )


def section_digest(section: Any) -> str:
    """Return the sha256 of a section as canonical JSON."""
    return text_digest(canonical(section))


def canonical(value: Any) -> str:
    """Return a section as canonical JSON; members that many sections have in common are written once."""
    if not isinstance(value, dict) or not all(map(str.isascii, value)):
        return rfc8785.dumps(value).decode()
    # ASCII names have one order, whether compared by code point or, as RFC 8785 has it, by UTF-16 code unit.
    return "{" + ",".join([_member(name, value[name]) for name in sorted(value)]) + "}"


def canonical_texts(texts: dict[str, str]) -> str:
    """Return names and digests, none of which holds anything that JSON would escape, as canonical JSON."""
    if len(texts) == 1:
        ((name, text),) = texts.items()
        return f'{{"{name}":"{text}"}}'
    return "{" + ",".join([f'"{name}":"{text}"' for name, text in sorted(texts.items())]) + "}"


def _member(name: str, value: Any) -> str:
    identity = (name, repr(value))
    member = _MEMBERS.get(identity)
    if member is None:
        if len(_MEMBERS) >= _MOST_MEMBERS:
            _MEMBERS.clear()
        member = f"{rfc8785.dumps(name).decode()}:{rfc8785.dumps(value).decode()}"
        _MEMBERS[identity] = member
    return member
