"""The JSON schema and the reference made from it."""

from pathlib import Path
from typing import Any

import pytest
import tomli

from lorafile.specs.catalogue import preset, preset_names
from lorafile.specs.reference import reference
from lorafile.specs.schema import json_schema

BASE = {"study": {"name": "s"}, "model": {"path": "m"}, "data": {"path": "d"}}


def valid(document: dict[str, Any]) -> bool:
    jsonschema = pytest.importorskip("jsonschema")
    return bool(jsonschema.Draft7Validator(json_schema()).is_valid({**BASE, **document}))


def test_the_schema_is_one() -> None:
    pytest.importorskip("jsonschema").Draft7Validator.check_schema(json_schema())


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid(name: str) -> None:
    assert valid(tomli.loads(preset(name)))


@pytest.mark.parametrize(
    ("document", "good"),
    [
        ({"lora": {"r": 8, "layers_to_transform": "alternate"}}, True),
        ({"lora": {"rr": 8}}, False),
        ({"sweep": [{"lora": {"r": [8, 16]}}]}, True),
        ({"sweep": [{"lora": {"r": 8}}]}, False),
        ({"sweep": [{"learning_rate": [1e-4]}]}, False),
        ({"sweep": [{"data": {"split": {"train": [100, 0.5]}}}]}, True),
        ({"sweep": [{"configurations": [{"name": "a", "lora": {"r": 8}, "model": {"revision": "x"}}]}]}, True),
        ({"sweep": [{"configurations": [{"lora": {"r": "8"}}]}]}, False),
        ({"sweep": [{"exclude": [{"method": "full", "quantization": "nf4"}]}]}, True),
        ({"quantization": {"load_in_4bit": True}}, True),
        ({"train": {"learning_rate": 0}}, False),
        ({"train": {"learning_rate": {"tune": [1e-4, 1e-3], "extend": True}}}, True),
        ({"train": {"learning_rate": {"tune": [1e-4]}}}, False),
        ({"train": {"save_steps": {"tune": [1, 2]}}}, False),
        ({"sweep": [{"lora": {"r": [4]}, "train": {"learning_rate": {"tune": [1e-4, 1e-3]}}}]}, True),
        ({"sweep": [{"configurations": [{"lora": {"r": {"tune": [4, 8]}}}]}]}, True),
        ({"sweep": [{"exclude": [{"lora": {"r": {"tune": [4, 8]}}}]}]}, False),
        ({"data": {"max_length": {"tune": [32, 64]}}}, False),
    ],
)
def test_the_schema_judges_as_the_language_does(document: dict[str, Any], good: bool) -> None:
    assert valid(document) is good


def test_settings_that_can_be_swept_are_offered_with_their_meaning() -> None:
    rate = json_schema()["definitions"]["SweepTable"]["properties"]["train"]["properties"]["learning_rate"]
    assert rate["anyOf"][0]["type"] == "array"
    assert rate["anyOf"][0]["items"] == {"type": "number", "exclusiveMinimum": 0}
    assert rate["description"] == "Peak learning rate."


def test_the_reference_in_docs_is_what_the_schema_says() -> None:
    written = Path(__file__).parents[2] / "docs" / "spec-reference.md"
    assert written.read_text(encoding="utf-8") == reference(), (
        "python -m lorafile.specs.reference docs/spec-reference.md"
    )


def test_every_setting_is_explained() -> None:
    cells = [line.split(" | ") for line in reference().splitlines() if line.startswith("| `")]
    assert [row[0] for row in cells if not row[-1].strip(" |")] == []


def test_the_examples_of_the_reference_are_specs() -> None:
    from lorafile.specs import parse

    first, *sweeps = [block.split("```")[0] for block in reference().split("```toml\n")[1:]]
    assert len(sweeps) == 5
    for sweep in sweeps:
        parse(first + sweep, Path("example.toml"))
