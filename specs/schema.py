"""The language as a JSON schema, from which editors complete."""

from typing import Any

from lorafile.specs.checks import FACTOR_SECTIONS
from lorafile.specs.settings import SpecTables
from lorafile.specs.train_settings import EXECUTION

Schema = dict[str, Any]


def json_schema() -> Schema:
    """Return the JSON schema of a spec (draft 7, which editors know best)."""
    made = SpecTables.model_json_schema(ref_template="#/definitions/{model}")
    definitions: dict[str, Schema] = made.pop("$defs")
    for table in (made, *definitions.values()):
        for setting in table.get("properties", {}).values():
            _tidy(setting)
    sweep = definitions["SweepTable"]
    sweep["properties"] |= _settings(made, definitions, swept=True)
    sweep["additionalProperties"] = False
    point = _settings(made, definitions, swept=False)
    sweep["properties"]["configurations"]["items"] = _object({"name": {"type": "string"}, **point})
    sweep["properties"]["exclude"]["items"] = _object(point)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **made,
        "title": "Lorafile study spec",
        "definitions": definitions,
    }


def _tidy(setting: Schema) -> None:
    """Drop what helps no reader: titles that repeat the name, and whole tables as defaults."""
    setting.pop("title", None)
    if isinstance(setting.get("default"), dict) or setting.get("default", "") is None:
        del setting["default"]


def _settings(made: Schema, definitions: dict[str, Schema], swept: bool) -> dict[str, Schema]:
    """Return what a sweep may name: every setting of the sections that can vary, as a list of candidates or as one."""
    return {name: _varying(made["properties"][name], definitions, swept) for name in FACTOR_SECTIONS}


def _varying(setting: Schema, definitions: dict[str, Schema], swept: bool) -> Schema:
    table = definitions[setting["$ref"].rsplit("/", 1)[-1]] if "$ref" in setting else None
    if table is not None:
        return _object(
            {
                name: _varying(inner, definitions, swept)
                for name, inner in table["properties"].items()
                if name not in EXECUTION
            },
            table,
        )
    single = {key: value for key, value in setting.items() if key not in ("default", "description")}
    told = {"description": setting["description"]} if "description" in setting else {}
    return {"type": "array", "items": single, "minItems": 1, **told} if swept else {**single, **told}


def _object(properties: dict[str, Schema], table: Schema | None = None) -> Schema:
    """Return a table of which nothing is required: the rest stands elsewhere in the spec."""
    told = {"description": table["description"]} if table and "description" in table else {}
    return {"type": "object", "additionalProperties": False, "properties": properties, **told}
