"""Values, names and bytes that programs stumble over, and ways of putting them into what was good."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

# Names that are more than names: paths, devices, options, and what a terminal, a template or a shell obeys.
NAMES = [
    *("", " ", ".", "..", "../evil", "../../evil", "/evil", "~", "~root/evil", "a/../../evil", "..\\evil", "C:\\evil"),
    *(
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/environ",
        "file:///evil",
        "CON",
        "nul",
        "-rf",
        "--force",
        "@evil",
        "$HOME",
    ),
    *(
        "x" * 300,
        "é" * 200,
        "a" * 5000,
        "na\u200bme",
        "e\u0301",
        "\u00e9",
        "\u212b",
        "\u202egnp.exe",
        "\u2066x",
        "\ufeffx",
    ),
    *("\x1b[2J\x1b]0;title\x07", "\x00", "a\nb", "a\r\nb", "\x7f\x9b31m", "\U000e0041", "\ud83d\ude00", "İ", "ß", "ﬁ"),
    *(
        "{{7*7}}",
        "{0.__class__}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "%s%n",
        "'; DROP TABLE nodes; --",
        "<script>",
    ),
    *(
        "[bold]x[/bold]",
        "[/nope]",
        "`id`",
        "$(id)",
        "|x|",
        "# x",
        "nan",
        "null",
        "true",
        "__class__",
        "__proto__",
        "*",
        "?[",
    ),
    *("(a+)+$", "(x+x+)+y", "(?P<n>a)(?P<n>b)", "(" * 500, "a{1,99999}{1,99999}", "\\", "[", "(?<=a+)b", "\\Z\\A^$"),
]
NUMBERS: list[Any] = [
    *(0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**64, 10**30, 10**400, 1e308, 5e-324, -0.0, 0.1),
    *(float("nan"), float("inf"), float("-inf"), True, False),
]
VALUES: list[Any] = [
    *NUMBERS,
    *NAMES,
    *(
        [],
        {},
        [[]],
        [{}],
        {"": {}},
        [None] * 0,
        [1, "a", [2.0]],
        ["x"] * 300,
        list(range(5000)),
        {"a": {"a": {"a": 1}}},
    ),
]


def toml(value: Any) -> str:
    """Return a value as inline TOML, whatever it is."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{text(str(key))} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return text(value) if isinstance(value, str) else json.dumps(value, default=str)


def text(value: str) -> str:
    """Return a basic string of TOML; what it cannot hold is escaped, and a lone surrogate becomes a question mark."""
    value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def document(tables: dict[str, Any]) -> str:
    """Return a TOML document, one line for each setting at its top."""
    return "".join(f"{text(str(key))} = {toml(value)}\n" for key, value in tables.items())


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a tree."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def mutate(tree: Any, choose: Callable[[list[Any]], Any], values: list[Any] = VALUES) -> Any:
    """Return a tree with one thing changed: a value, a name, a place, or how often something is there."""
    copy = json.loads(json.dumps(tree))
    path = choose(list(places(copy)))
    way = choose(["value", "value", "value", "name", "drop", "wrap", "twice", "swap", "add"])
    *above, last = path
    parent = copy
    for key in above:
        parent = parent[key]
    if way == "value":
        parent[last] = choose(values)
    elif way == "drop":
        del parent[last]
    elif way == "wrap":
        parent[last] = choose([[parent[last]], {choose(NAMES): parent[last]}, [[parent[last]] * 3]])
    elif way == "swap":
        other = choose(list(places(copy)))
        source = copy
        for key in other:
            source = source[key]
        parent[last] = json.loads(json.dumps(source))
    elif isinstance(parent, list):
        parent.insert(last, choose(values) if way == "add" else parent[last])
    elif way == "add":
        parent[choose(NAMES)] = choose(values)
    else:
        name = choose(NAMES)
        parent[name] = parent[last] if way == "twice" else parent.pop(last)
    return copy


_TOKENS = [
    *(b"\xff", b"\xfe\xff", b"\x00", b"\xef\xbb\xbf", b"\r\n", b"\r", b"\xed\xa0\x80", b"\xc0\xaf", b"\xe2\x80\xae"),
    *(
        b"[" * 2000,
        b"{" * 2000,
        b'"""',
        b"'''",
        b"'",
        b'"',
        b"\\",
        b"=",
        b"[[",
        b"]]",
        b"{}",
        b",",
        b"#",
        b".",
        b"\x1b[2J",
    ),
    *(b"nan", b"inf", b"-1", b"1e999", b"9" * 400, b"9" * 5000, b"null", b"NaN", b"Infinity", b"../" * 20, b"../evil"),
]


def spoil(content: bytes, draw: random.Random) -> bytes:
    """Return bytes with a few of them flipped, cut, doubled, moved or put in."""
    spoiled = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 5])):
        at, length = draw.randrange(len(spoiled) + 1), draw.choice([1, 1, 4, 40])
        way = draw.choice(["flip", "cut", "double", "token", "token", "end", "line"])
        if way == "flip" and at < len(spoiled):
            spoiled[at] ^= 1 << draw.randrange(8)
        elif way == "cut":
            del spoiled[at : at + length]
        elif way == "double":
            spoiled[at:at] = spoiled[at : at + length]
        elif way == "token":
            spoiled[at:at] = draw.choice(_TOKENS)
        elif way == "end":
            del spoiled[at:]
        else:
            lines = bytes(spoiled).split(b"\n")
            lines.insert(draw.randrange(len(lines)), draw.choice(lines))
            spoiled = bytearray(b"\n".join(lines))
    return bytes(spoiled)
