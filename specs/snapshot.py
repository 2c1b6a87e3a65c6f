"""The shipped snapshot of what peft and bitsandbytes accept, and how a settings table is made from it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

import tomli
from pydantic import Field, create_model

from lorafile.specs.values import Number, Settings

_BNB_TYPES: dict[str, Any] = {
    "llm_int8_threshold": Number,
    "bnb_4bit_quant_type": Literal["fp4", "nf4"],
    "bnb_4bit_compute_dtype": Literal["float32", "bfloat16", "float16"] | None,
}
_BNB_HELP = {
    "load_in_8bit": "8 bits per weight.",
    "load_in_4bit": "4 bits per weight.",
    "llm_int8_threshold": "Columns with larger activations stay in 16 bits; at 0, no result depends on its batch.",
    "llm_int8_skip_modules": "Modules that are not quantized.",
    "llm_int8_enable_fp32_cpu_offload": "Modules on the CPU stay in 32 bits.",
    "llm_int8_has_fp16_weight": "Keep 16-bit weights next to the 8-bit ones.",
    "bnb_4bit_compute_dtype": "Data type for computation. Unset: the base's own.",
    "bnb_4bit_quant_type": "The 4-bit type.",
    "bnb_4bit_use_double_quant": "Also quantize the quantization constants: saves about 0.4 bits per weight.",
    "bnb_4bit_quant_storage": "Data type of the tensor that holds the packed 4-bit weights.",
}


@cache
def snapshot() -> dict[str, Any]:
    """Return the snapshot: the versions it was made from, and name -> {type, default, help} for each class."""
    data: dict[str, Any] = json.loads((files("lorafile.specs") / "snapshot.json").read_text(encoding="utf-8"))
    return data


@cache
def declared() -> dict[str, dict[str, Any]]:
    """Return method -> its lines in methods.toml."""
    return tomli.loads((files("lorafile.specs") / "methods.toml").read_text(encoding="utf-8"))


@cache
def model_types() -> dict[str, frozenset[str]]:
    """Return `known`, `causal`, `masked` and `classification` -> the model types that transformers has a class for."""
    text = (files("lorafile.specs") / "model_types.json").read_text(encoding="utf-8")
    return {name: frozenset(types) for name, types in json.loads(text).items()}


def is_encoder(config: Mapping[str, Any]) -> bool:
    """Return whether each token of a model sees those that follow, as its config.json tells."""
    return config.get("model_type") in model_types()["masked"] and not config.get("is_decoder")


@dataclass(frozen=True)
class Overrides:
    """Our own types, defaults and descriptions of a library's settings, and the settings that a spec cannot name.

    :ivar types: narrower types than the library's own
    :ivar defaults: defaults that are not the library's; each has to be worth defending
    :ivar help: what a setting means, in one sentence
    :ivar refused: why a spec cannot name a setting that the library has
    """

    types: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    help: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


def settings_table(name: str, doc: str, source: str, own: Overrides) -> type[Settings]:
    """Make a table of a snapshot's class."""
    fields: dict[str, Any] = {}
    for setting, row in snapshot()[source].items():
        if setting not in own.refused:
            default = own.defaults.get(setting, row["default"])
            described = own.help.get(setting, row.get("help", ""))
            fields[setting] = (own.types.get(setting, row["type"]), _field(default, described or None))
    return create_model(name, __base__=Settings, __module__=__name__, __doc__=doc, **fields)


def _field(default: Any, described: str | None) -> Any:
    if default == {}:  # pydantic would copy it, deeply, for each of ten thousand configurations
        return Field(default_factory=dict, json_schema_extra={"default": {}}, description=described)
    return Field(default, description=described)


if TYPE_CHECKING:
    BnbSettings = Settings
else:
    BnbSettings = settings_table(
        "BnbSettings",
        "A bitsandbytes base: settings of transformers' `BitsAndBytesConfig`, by their own names.",
        "BitsAndBytesConfig",
        Overrides(types=_BNB_TYPES, help=_BNB_HELP),
    )
