"""The language as a JSON schema, from which editors complete."""

from typing import Any

from pydantic import create_model

from lorafile.specs.checks.sweeps import FACTOR_SECTIONS
from lorafile.specs.sweeps.tuning import TUNABLE
from lorafile.specs.tables.methods import METHODS, method_defaults, method_table
from lorafile.specs.tables.settings import SpecTables
from lorafile.specs.tables.train import EXECUTION

Schema = dict[str, Any]


def json_schema(tuned: bool = True) -> Schema:
    """Return the JSON schema of a spec (draft 7, which editors know best).

    :param tuned: whether it says of each setting that can be tuned that it may be `{ tune = [...] }`, too
    """
    methods: dict[str, Any] = {name: (method_table(name), method_defaults(name)) for name in METHODS}
    whole = create_model("SpecTables", __base__=SpecTables, __doc__=SpecTables.__doc__, **methods)
    made = whole.model_json_schema(ref_template="#/definitions/{model}")
    definitions: dict[str, Schema] = made.pop("$defs")
    for table in (made, *definitions.values()):
        for setting in table.get("properties", {}).values():
            _tidy(setting)
    sweep = definitions["SweepTable"]
    sweep["properties"] |= _factors(made, definitions, swept=True)
    sweep["additionalProperties"] = False
    sweep["properties"]["exclude"]["items"] = _object(_factors(made, definitions, swept=False))
    point = {"name": {"type": "string"}, **_factors(made, definitions, swept=False)}
    sweep["properties"]["configurations"]["items"] = _object(point)
    for name in TUNABLE if tuned else ():
        table = definitions[made["properties"][name]["$ref"].rsplit("/", 1)[-1]]
        table["properties"] = {
            key: setting if key in EXECUTION else _or_tuned(setting, _alone(setting))
            for key, setting in table["properties"].items()
        }
        for varying in (sweep["properties"][name], sweep["properties"]["configurations"]["items"]["properties"][name]):
            singles = {key: setting.get("items", setting) for key, setting in varying["properties"].items()}
            varying["properties"] = {
                key: _or_tuned(setting, _alone(singles[key])) for key, setting in varying["properties"].items()
            }
    draft = "http://json-schema.org/draft-07/schema#"
    return {"$schema": draft, **made, "title": "Lorafile study spec", "definitions": definitions}


def _alone(setting: Schema) -> Schema:
    return {key: value for key, value in setting.items() if key not in ("default", "description")}


def _or_tuned(setting: Schema, single: Schema) -> Schema:
    """Return a setting that may have candidates instead of a value, one of which is chosen on validation."""
    if "$ref" in setting or setting.get("type") == "object":
        return setting
    about: Schema = {key: value for key, value in setting.items() if key in ("default", "description")}
    candidates = {"tune": {"type": "array", "items": single, "minItems": 2}, "extend": {"type": "boolean"}}
    tune = {"type": "object", "additionalProperties": False, "properties": candidates, "required": ["tune"]}
    return {"anyOf": [_alone(setting), tune], **about}


def _tidy(setting: Schema) -> None:
    """Drop what helps no reader: titles that repeat the name, and whole tables as defaults."""
    setting.pop("title", None)
    if isinstance(setting.get("default"), dict) or setting.get("default", "") is None:
        del setting["default"]


def _factors(made: Schema, definitions: dict[str, Schema], swept: bool) -> dict[str, Schema]:
    """Return what a sweep may name: every setting of the sections that can vary, as a list of candidates or as one."""
    return {name: _varying(made["properties"][name], definitions, swept) for name in FACTOR_SECTIONS}


def _varying(setting: Schema, definitions: dict[str, Schema], swept: bool) -> Schema:
    table = definitions[setting["$ref"].rsplit("/", 1)[-1]] if "$ref" in setting else None
    if "propertyNames" in setting or "patternProperties" in setting:  # tables of the user's own names: their options
        values: Schema = {"type": "array", "minItems": 1} if swept else {}
        options = {"type": "object", "additionalProperties": values}
        return {"type": "object", "additionalProperties": _object({"options": options})}
    if table is not None:
        settings = {name: inner for name, inner in table["properties"].items() if name not in EXECUTION}
        return _object({name: _varying(inner, definitions, swept) for name, inner in settings.items()}, table)
    single = _alone(setting)
    about = {"description": setting["description"]} if "description" in setting else {}
    return {"type": "array", "items": single, "minItems": 1, **about} if swept else {**single, **about}


def _object(properties: dict[str, Schema], table: Schema | None = None) -> Schema:
    """Return a table of which nothing is required: the rest stands elsewhere in the spec."""
    about = {"description": table["description"]} if table and "description" in table else {}
    return {"type": "object", "additionalProperties": False, "properties": properties, **about}
