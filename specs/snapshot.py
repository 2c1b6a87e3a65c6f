"""The shipped snapshot of what peft and bitsandbytes accept, and the settings tables made from it."""

import json
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

# What this tool changes of peft's own defaults, and why: every default has to be worth defending.
LORA_DEFAULTS: dict[str, Any] = {
    "r": 16,  # peft's 8 is below what most published comparisons settle on
    "lora_alpha": "2r",  # scaling stays 2 when the rank is swept
    "target_modules": "all-linear",  # all layers beat attention alone at matched parameters (LoRA Without Regret)
}
_LORA_TYPES = {
    "r": "Annotated[int, Field(ge=1)]",
    "lora_alpha": "Annotated[float, Field(gt=0)] | Annotated[str, Field(pattern=r'^\\d*\\.?\\d*r$')]",
    "lora_dropout": "Annotated[float, Field(ge=0, lt=1)]",
    "target_modules": "str | list[str]",
    "init_lora_weights": "bool | Literal['gaussian']",
    "layers_to_transform": "list[int] | int | None",
}
# Settings of peft.LoraConfig that need more than the spec and the base to start from, or that rewrite the base.
NOT_YET: frozenset[str] = frozenset(
    {
        "alora_invocation_tokens",
        "arrow_config",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "kasa_config",
        "layer_replication",
        "loftq_config",
        "lora_ga_config",
        "monteclora_config",
        "qalora_group_size",
        "target_parameters",
        "trainable_token_indices",
        "use_bdlora",
        "use_qalora",
        "velora_config",
    }
)


class Settings(BaseModel):
    """A closed table of settings: an unknown name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@cache
def snapshot() -> dict[str, Any]:
    """Return the snapshot: the versions it was made from, and name -> {type, default, help} for each class."""
    data: dict[str, Any] = json.loads((files("lorafile.specs") / "snapshot.json").read_text(encoding="utf-8"))
    return data


def _table(name: str, doc: str, source: str, defaults: dict[str, Any], types: dict[str, str]) -> type[Settings]:
    fields: dict[str, Any] = {}
    for setting, row in snapshot()[source].items():
        if source == "LoraConfig" and setting in NOT_YET:
            continue
        default = defaults.get(setting, row["default"])
        fields[setting] = (types.get(setting, row["type"]), Field(default, description=row.get("help", "")))
    made: type[Settings] = create_model(name, __base__=Settings, __module__=__name__, __doc__=doc, **fields)
    return made


def _annotations() -> dict[str, Any]:
    from typing import Annotated

    return {"Any": Any, "Literal": Literal, "Annotated": Annotated, "Field": Field}


globals().update(_annotations())  # the snapshot spells its types as text

LoraSettings = _table(
    "LoraSettings",
    "The adapter: the settings of `peft.LoraConfig`, by their own names.",
    "LoraConfig",
    LORA_DEFAULTS,
    _LORA_TYPES,
)
BnbSettings = _table(
    "BnbSettings",
    "A bitsandbytes base: the settings of transformers' `BitsAndBytesConfig`, by their own names.",
    "BitsAndBytesConfig",
    {},
    {"bnb_4bit_quant_type": "Literal['fp4', 'nf4']"},
)
