"""The spec reference in docs/, made from the schema: `python -m lorafile.specs.reference docs/spec-reference.md`."""

import json
import re
import sys
from pathlib import Path
from typing import Any

from lorafile.specs.schema import Schema, json_schema
from lorafile.specs.tables.methods import METHODS
from lorafile.specs.values import PATTERNS

INTRODUCTION = """\
# Spec reference

Made from the schema (`lora schema`) by `python -m lorafile.specs.reference docs/spec-reference.md`. A spec is a TOML
file, and needs three lines: a name, a model, and data.

```toml
study.name = "first"
model.path = "builtin:facts-llama"
data.path = "builtin:facts"
```

Settings carry the names of `peft.LoraConfig`, of transformers' `TrainingArguments` and of `BitsAndBytesConfig`. An
unknown name is an error, told with its line, its column and the nearest name that exists.

## Sweeps

A study has the configurations that its `[[sweep]]` blocks name; without one it has a single configuration. In a block,
every setting is a list of candidates, and the lists multiply:

```toml
[[sweep]]
name = "rank"
lora.r = [4, 8, 16]
train.learning_rate = [1e-4, 3e-4]     # six configurations, rank/r=4,learning_rate=0.0001 and so on
```

`zip` lets settings vary together, candidate by candidate:

```toml
[[sweep]]
zip = ["lora.r", "train.learning_rate"]
lora.r = [4, 16, 64]
train.learning_rate = [4e-4, 2e-4, 1e-4]     # three configurations
```

`configurations` lists points by hand, and `exclude` takes points out:

```toml
[[sweep]]
name = "chosen"
configurations = [
  { name = "small", lora.r = 4, lora.target_modules = "attention" },
  { name = "large", lora.r = 64 },
]

[[sweep]]
name = "bases"
method = ["none", "lora", "full"]
quantization = ["none", "nf4"]
exclude = [{ method = "full", quantization = "nf4" }]     # a quantized base cannot be fine-tuned in full
```

The blocks of a study unite: a configuration that two of them name exists once. The first gives its name, the others are
aliases. A setting that is itself a list is written as a list of lists:
`lora.target_modules = [["q_proj", "v_proj"], "attention"]`.

`match = "parameters"` compares placements at one number of trainable parameters instead of one rank. The sweep's first
LoRA configuration keeps its rank; every other one gets the rank whose trainable parameters come nearest to the first
one's. An alpha such as `"2r"` follows the solved rank. The plan shows both:

```toml
[[sweep]]
name = "placement"
match = "parameters"
lora.target_modules = ["all-linear", "attention", "mlp"]
```

## Tuning

A setting of `[train]`, `[full]` or a method's table may have candidates instead of a value. Each configuration is then
compared at its own best one:

```toml
[train]
learning_rate = { tune = [1e-4, 3e-4, 1e-3], extend = true }

[[sweep]]
name = "rank"
lora.r = [4, 16, 64]
```

One value is chosen for each configuration: the one with the best mean of the primary metric on validation, over all
seeds. Every candidate runs under every seed; a candidate that lost a run, because it diverged or did not fit into
memory, loses to any whose runs all finished. Only the chosen one is predicted on test, profiled, inspected and merged.
Several settings that are tuned multiply. A best value at an end of what was tried is not bracketed: the plan names the
next value, by the last ratio at that end, and `extend = true` lets it add that value for all configurations that share
the candidates, until the best lies inside, or at most four values at each end.

Candidates in a sweep, `train.learning_rate = { tune = [...] }` beside its lists or in one of its `configurations`, hold
for its points. A value in a sweep wins over candidates in the study's tables. Candidates in `[train]` do not replace
what `[full]` has of its own, its `learning_rate` above all, just as a number there does not: tune full fine-tuning
under `[full]`. The untuned row has nothing to tune, and a setting that changes nothing for a method is not tuned there.

## Methods

Every method of PEFT that a study may name has a table of its own name, with the settings of PEFT's config class:
`method = "ia3"` reads `[ia3]`. What a method has of `[train]` of its own stands in its table, too: `[full]` replaces
settings of `[train]` where `method = "full"`. A sweep wins over both. The untuned row, `method = "none"`, is not
trained and reads neither.
"""
_ORDER = (
    "study",
    "model",
    "data",
    *METHODS,
    "full",
    "quantization",
    "train",
    "evaluate",
    "profile",
    "inspect",
    "truncate",
    "merge",
    "sweep",
    "analysis",
    "report",
    "tracking",
)
_WORDS = {"boolean": "true or false", "string": "text", "null": "", "object": "table"}


def reference() -> str:
    """Return the spec reference as Markdown."""
    schema = json_schema(tuned=False)
    parts = [INTRODUCTION, _top(schema)]
    for name in _ORDER:
        setting = schema["properties"][name]
        parts += _sections(name, setting, schema["definitions"])
    return "\n".join(parts)


def _top(schema: Schema) -> str:
    single = {name: schema["properties"][name] for name in ("method", "quantization")}
    return "## At the top of the file\n\n" + _rows(single, [])


def _sections(name: str, setting: Schema, definitions: dict[str, Schema]) -> list[str]:
    """Return the sections of a setting's tables, and of those inside them."""
    tables = _tables(setting, definitions)
    many = setting.get("type") == "array"
    found: list[str] = []
    for table in tables:
        title = f"## `[[{name}]]`" if many else f"## `[{name}]`"
        if len(tables) > 1:  # one for each library, which the first setting of a table names
            head = re.split("[:(]", table["description"])[0].strip()
            title += f": {head[0].lower()}{head[1:]}"
        shown = {key: inner for key, inner in table["properties"].items() if not (many and _is_swept(key, name))}
        body = _rows(shown, table.get("required", []))
        found.append(f"{title}\n\n{_first_sentences(table['description'])}\n\n{body}")
        for key, inner in shown.items():
            found += _sections(f"{name}.{key}", inner, definitions)
    return found


def _is_swept(key: str, name: str) -> bool:
    return name == "sweep" and key not in ("name", "match", "zip", "configurations", "exclude")


def _tables(setting: Schema, definitions: dict[str, Schema]) -> list[Schema]:
    """Return the tables that a setting is, holds, or may be."""
    options = (setting, setting.get("items", {}), *setting.get("anyOf", []), *setting.get("oneOf", []))
    return [definitions[str(one["$ref"]).rsplit("/", 1)[-1]] for one in options if "$ref" in one]


def _rows(settings: dict[str, Schema], required: list[str]) -> str:
    lines = ["| setting | value | default | meaning |", "|---|---|---|---|"]
    for name, setting in settings.items():
        default = "required" if name in required else _code(setting["default"]) if "default" in setting else ""
        meaning = _first_sentences(setting.get("description", "As in `[train]`; absent: that."))
        lines.append("| " + " | ".join(_cell(text) for text in (f"`{name}`", _kind(setting), default, meaning)) + " |")
    return "\n".join(lines) + "\n" if settings else "It has no settings.\n"


def _kind(setting: Schema) -> str:
    """Return a type in words."""
    if "$ref" in setting:
        return "table"
    options = setting.get("anyOf") or setting.get("oneOf")
    if options:
        return " or ".join(dict.fromkeys(kind for one in options if (kind := _kind(one))))
    if "enum" in setting or "const" in setting:
        return ", ".join(_code(value) for value in setting.get("enum", [setting.get("const")]))
    if setting.get("type") == "array":
        inner = _kind(setting["items"])
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


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
