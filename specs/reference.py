"""The spec reference in docs/: reference.md, then a table of settings for each table of the schema.

Write it with `python -m lorafile.specs.reference docs/spec-reference.md docs/coverage.md`; of the second, the methods.
"""

import json
import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from lorafile.specs.checks.sweeps import SWEEP_SETTINGS
from lorafile.specs.schema import Schema, json_schema
from lorafile.specs.snapshot import declared
from lorafile.specs.tables.methods import METHODS, probed, stays_out
from lorafile.specs.values import PATTERNS

_ORDER = (
    *("study", "model", "data", *METHODS, "full", "quantization", "train", "trainer", "evaluate", "profile"),
    *("inspect", "truncate", "merge", "sweep", "analysis", "report", "tracking"),
)
_WORDS = {"boolean": "true or false", "string": "text", "null": "", "object": "table"}


def reference() -> str:
    """Return the spec reference as Markdown."""
    schema = json_schema(tuned=False)
    introduction = (files("lorafile.specs") / "reference.md").read_text(encoding="utf-8")
    at_top = {name: schema["properties"][name] for name in ("method", "quantization")}
    parts = [introduction, "## At the top of the file\n\n" + _rows(at_top, [])]
    for name in _ORDER:
        parts += _sections(name, schema["properties"][name], schema["definitions"])
    return "\n".join(parts)


def _sections(name: str, setting: Schema, definitions: dict[str, Schema]) -> list[str]:
    """Return the sections of a setting's tables, and of those inside them."""
    tables = _tables(setting, definitions)
    sections: list[str] = []
    for table in tables:
        named = f"{name}.NAME" if setting.get("type") == "object" else name
        title = f"## `[[{name}]]`" if setting.get("type") == "array" else f"## `[{named}]`"
        if len(tables) > 1:  # one for each library, which the first setting of a table names
            head = re.split("[:(]", table["description"])[0].strip()
            title += f": {head[0].lower()}{head[1:]}"
        own = SWEEP_SETTINGS if name == "sweep" else table["properties"]  # what a sweep varies has a table of its own
        shown = {key: inner for key, inner in table["properties"].items() if key in own}
        body = _rows(shown, table.get("required", []))
        sections.append(f"{title}\n\n{_first_sentences(table['description'])}\n\n{body}")
        for key, inner in shown.items():
            sections += _sections(f"{name}.{key}", inner, definitions)
    return sections


def _tables(setting: Schema, definitions: dict[str, Schema]) -> list[Schema]:
    """Return the tables that a setting is, holds, or may be."""
    inner = [setting.get("items", {}), *setting.get("patternProperties", {}).values()]
    inner += [each for each in (setting.get("additionalProperties"),) if isinstance(each, dict)]
    options = (setting, *inner, *setting.get("anyOf", []), *setting.get("oneOf", []))
    return [definitions[str(option["$ref"]).rsplit("/", 1)[-1]] for option in options if "$ref" in option]


def _rows(settings: dict[str, Schema], required: list[str]) -> str:
    lines = ["| setting | value | default | meaning |", "|---|---|---|---|"]
    for name, setting in settings.items():
        default = "required" if name in required else _code(setting["default"]) if "default" in setting else ""
        meaning = _first_sentences(setting.get("description", "Like in `[train]`. Unset: the value from there."))
        lines.append("| " + " | ".join(_cell(text) for text in (f"`{name}`", _kind(setting), default, meaning)) + " |")
    return "\n".join(lines) + "\n" if settings else "It has no settings.\n"


def _kind(setting: Schema) -> str:
    if "$ref" in setting:
        return "table"
    options = setting.get("anyOf") or setting.get("oneOf")
    if options:
        return " or ".join(dict.fromkeys(kind for option in options if (kind := _kind(option))))
    if "enum" in setting or "const" in setting:
        return ", ".join(_code(value) for value in setting.get("enum", [setting.get("const")]))
    if setting.get("type") == "array":
        inner = _kind(setting["items"])
        if inner.startswith(("a ", "the ")):
            return f"list, each {inner}"
        return "list of " + re.sub("^(whole number|number|text|table)", r"\1s", inner)
    if setting.get("type") in ("integer", "number"):
        return _number(setting)
    if setting.get("pattern") in PATTERNS:
        return PATTERNS[setting["pattern"]]
    return _WORDS.get(str(setting.get("type")), "")


def _number(setting: Schema) -> str:
    words = "whole number" if setting["type"] == "integer" else "number"
    signs = (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))
    limits = [f"{sign} {setting[key]:g}" for key, sign in signs if key in setting and setting[key] != 2**31]
    return f"{words} {', '.join(limits)}".strip()


def _code(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _first_sentences(text: str) -> str:
    """Return a description without the pages that peft's own go on for."""
    text = " ".join(text.split())
    return text if len(text) <= 240 else text.split(". ")[0].rstrip(".") + "."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", "\\n")


_BEGIN, _END = "<!-- methods: begin -->\n", "<!-- methods: end -->"
_PROBE = "`tests/engine/test_probe_methods.py::test_a_row_is_what_the_probe_finds`"


def methods_table() -> str:
    """Return the methods as Markdown: those that are offered, and PEFT's others with the reasons."""
    lines = ["| method | PEFT | paper | 8 bits | 4 bits | merges | test |", "|---" * 7 + "|"]
    for name, method in METHODS.items():
        able = ("int8" in method.bases, "nf4" in method.bases, method.merges)
        cells = [f"`{name}`", f"`{method.config}`", _paper(name), *("yes" if can else "no" for can in able), _PROBE]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Members of PEFT's `PeftType` that are not offered:",
        "",
        "| method | paper | reason |",
        "|---|---|---|",
    ]
    refused = [name for name in probed() if name not in METHODS]
    lines += [f"| `{name}` | {_paper(name)} | {_cell(stays_out(name))} |" for name in refused]
    return "\n".join([*lines, ""])


def _paper(name: str) -> str:
    """Return a link to a method's paper."""
    title, paper = declared()[name]["title"], declared()[name]["paper"]
    return f"[{title}]({paper if '/' in paper else f'https://arxiv.org/abs/{paper}'})"


def with_methods(page: str) -> str:
    """Return a page with the table of methods between its marks."""
    before, _, rest = page.partition(_BEGIN)
    return before + _BEGIN + methods_table() + _END + rest.partition(_END)[2]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
    for other in map(Path, sys.argv[2:]):
        other.write_text(with_methods(other.read_text(encoding="utf-8")), encoding="utf-8")
