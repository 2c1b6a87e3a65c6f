"""The shipped snapshot of what peft and bitsandbytes accept, and the settings tables made from it."""

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model

from lorafile.specs.values import (
    Alpha,
    LayerWord,
    Natural,
    Number,
    Pattern,
    Positive,
    PositiveNumber,
    Settings,
    Share,
    Text,
)

# What this tool changes of peft's own defaults, and why: every default has to be worth defending.
LORA_DEFAULTS: dict[str, Any] = {
    "r": 16,  # peft's 8 is below what most published comparisons settle on
    "lora_alpha": "2r",  # scaling stays 2 when the rank is swept
    "target_modules": "all-linear",  # all layers beat attention alone at matched parameters (LoRA Without Regret)
}
_LORA_TYPES: dict[str, Any] = {
    "r": Positive,
    "lora_alpha": Alpha,
    "lora_dropout": Share,
    "target_modules": Text | Annotated[list[Text], Field(min_length=1)],
    "init_lora_weights": bool | Literal["gaussian"],
    "bias": Literal["none"],  # the others train the base's own biases, in place
    # Empty would be every layer to PEFT; the words are ours, because a preset cannot know the number of layers.
    "layers_to_transform": LayerWord | Natural | Annotated[list[Natural], Field(min_length=1)] | None,
    "rank_pattern": dict[Pattern, Positive],
    "alpha_pattern": dict[Pattern, PositiveNumber],
}
_BNB_TYPES: dict[str, Any] = {
    "llm_int8_threshold": Number,
    "bnb_4bit_quant_type": Literal["fp4", "nf4"],
    "bnb_4bit_compute_dtype": Literal["float32", "bfloat16", "float16"] | None,
}
_LORA_HELP = {
    "r": "Rank of the update.",
    "lora_alpha": 'The update is scaled by alpha / r; a multiple of the rank such as "2r" follows it.',
    "lora_dropout": "Dropout on what the adapter reads.",
    "target_modules": "Where adapters sit: `attention`, `mlp`, `all-linear`; a list of these and of module names; or a "
    "regular expression for whole module paths.",
    "exclude_modules": "Module names, or a regular expression for whole paths, that get no adapter all the same.",
    "layers_to_transform": "Layers that get an adapter, from 0; or `first-third`, `middle-third`, `last-third`, "
    "`alternate` (every second). Absent: all.",
    "layers_pattern": "What the model calls its list of layers, where PEFT does not know it.",
    "init_lora_weights": "True: PEFT's default, an update of zero; `gaussian`: the other matrix drawn as in diffusers.",
    "use_rslora": "Scale by alpha / √r instead of alpha / r (rank-stabilized LoRA, arXiv 2312.03732).",
    "use_dora": "Learn magnitude and direction apart (DoRA, arXiv 2402.09353): better at low ranks, slower.",
    "lora_bias": "A bias term in the adapter's second matrix.",
    "bias": "Which biases of the base are trained as well: none, in this version.",
    "fan_in_fan_out": "The layer stores its weight as (in, out), as GPT-2 does; PEFT sees that by itself.",
    "rank_pattern": 'Ranks of single modules: `{ "q_proj" = 4 }`; names or regular expressions for the end of a path.',
    "alpha_pattern": "As `rank_pattern`, for alpha.",
}
_BNB_HELP = {
    "load_in_8bit": "8 bits for each weight.",
    "load_in_4bit": "4 bits for each weight.",
    "llm_int8_threshold": "Columns of larger activations stay in 16 bits; at 0 no result depends on its batch.",
    "llm_int8_skip_modules": "Modules that are not quantized.",
    "llm_int8_enable_fp32_cpu_offload": "Modules on the CPU stay in 32 bits.",
    "llm_int8_has_fp16_weight": "Keep 16-bit weights beside the 8-bit ones.",
    "bnb_4bit_compute_dtype": "Type of the arithmetic; absent: the base's own.",
    "bnb_4bit_quant_type": "The 4-bit type.",
    "bnb_4bit_use_double_quant": "Quantize the quantization constants, too: about 0.4 bits less for each weight.",
    "bnb_4bit_quant_storage": "Type of the tensor that the 4-bit weights are packed in.",
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
        "modules_to_save",
        "monteclora_config",
        "qalora_group_size",
        "target_parameters",
        "trainable_token_indices",
        "use_bdlora",
        "use_qalora",
        "velora_config",
    }
)


@cache
def snapshot() -> dict[str, Any]:
    """Return the snapshot: the versions it was made from, and name -> {type, default, help} for each class."""
    data: dict[str, Any] = json.loads((files("lorafile.specs") / "snapshot.json").read_text(encoding="utf-8"))
    return data


def _table(name: str, doc: str, source: str, own: dict[str, dict[str, Any]]) -> type[Settings]:
    """Make a table of a snapshot's class; `own` overrides its types, defaults and help."""
    fields: dict[str, Any] = {}
    for setting, row in snapshot()[source].items():
        if source != "LoraConfig" or setting not in NOT_YET:
            default = own["defaults"].get(setting, row["default"])
            described = own["help"].get(setting, row.get("help", ""))
            fields[setting] = (own["types"].get(setting, row["type"]), Field(default, description=described or None))
    return create_model(name, __base__=Settings, __module__=__name__, __doc__=doc, **fields)


if TYPE_CHECKING:

    class LoraSettings(Settings):
        """Made below."""

    class BnbSettings(Settings):
        """Made below."""

else:
    LoraSettings = _table(
        "LoraSettings",
        "The adapter: settings of `peft.LoraConfig`, by their own names.",
        "LoraConfig",
        {"types": _LORA_TYPES, "defaults": LORA_DEFAULTS, "help": _LORA_HELP},
    )
    BnbSettings = _table(
        "BnbSettings",
        "A bitsandbytes base: settings of transformers' `BitsAndBytesConfig`, by their own names.",
        "BitsAndBytesConfig",
        {"types": _BNB_TYPES, "defaults": {}, "help": _BNB_HELP},
    )
