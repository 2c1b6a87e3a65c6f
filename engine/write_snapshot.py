"""Write `specs/snapshot.json` and `specs/model_types.json`: what a machine without torch has to know of libraries.

The first holds what the settings of peft and bitsandbytes are called, their types and defaults, so that a spec is
validated, and a key made, alike everywhere. The second holds what transformers can do with each type of model, so that
a plan refuses what cannot be trained. Make them again with
`python -m lorafile.engine.write_snapshot specs/snapshot.json specs/model_types.json`.
"""

import dataclasses
import inspect
import json
import sys
import typing
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

# The config classes of what a setting of `LoraConfig` may hold.
_INNER = ("LoftQConfig", "EvaConfig", "CordaConfig", "LoraGAConfig", "VeloraConfig", "BdLoraConfig")
# Settings that only PEFT itself sets, or that say how a run is carried out.
INTERNAL = {
    "task_type",
    "peft_type",
    "auto_mapping",
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "megatron_config",
    "megatron_core",
    "runtime_config",
}


def method_configs() -> dict[str, str]:
    """Return method -> the name of its config class, for each member of `PeftType`, by its name in lower case."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    return {kind.value.lower(): config.__name__ for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def peft_fields(name: str) -> dict[str, dict[str, Any]]:
    """Return setting -> {type, default, help} of one of peft's config classes, without what only PEFT itself sets."""
    import peft
    import peft.tuners.lora.config as inner

    config = getattr(peft, name, None) or getattr(inner, name)
    hints = typing.get_type_hints(config)
    fields = {}
    for field in dataclasses.fields(config):
        if field.name in INTERNAL or not field.init:
            continue
        help_text = " ".join(str(field.metadata.get("help", "")).split())
        fields[field.name] = {"type": _spell(hints[field.name]), "default": _default(field), "help": help_text}
    return fields


def bnb_fields() -> dict[str, dict[str, Any]]:
    """Return name -> {type, default} for each setting of transformers' `BitsAndBytesConfig`."""
    from transformers import BitsAndBytesConfig

    fields = {}
    for name, parameter in inspect.signature(BitsAndBytesConfig.__init__).parameters.items():
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name != "self":
            kind = "str | None" if parameter.default is None else type(parameter.default).__name__
            kind = "list[str] | None" if name == "llm_int8_skip_modules" else kind
            fields[name] = {"type": kind, "default": parameter.default}
    return fields


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default.value if isinstance(field.default, Enum) else field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else None


def _spell(hint: Any) -> str:
    """Spell a type with builtins and Literal alone: peft's own config classes become tables."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(repr, args))}]"
    if origin is typing.Union or type(hint).__name__ == "UnionType":
        # typing caches unions that are equal whatever the order of their members: give them one order
        return " | ".join(sorted({_spell(arg) for arg in args}, key=lambda word: (word == "None", word)))
    if origin in (list, dict, tuple):
        return f"{origin.__name__}[{', '.join(_spell(arg) for arg in args)}]"
    if hint is dict or dataclasses.is_dataclass(hint):
        return "dict[str, Any]"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return f"Literal[{', '.join(repr(member.value) for member in hint)}]"
    return "None" if hint is type(None) else str(hint.__name__)


def snapshot() -> dict[str, Any]:
    """Return the snapshot of the installed versions."""
    versions = {name: version(name) for name in ("peft", "transformers")}
    configs = {name: peft_fields(name) for name in (*method_configs().values(), *_INNER)}
    return {"versions": versions, **configs, "BitsAndBytesConfig": bnb_fields()}


def model_types() -> dict[str, list[str]]:
    """Return what transformers has a class for -> the model types, as `model_type` in a config.json, that have one."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto import modeling_auto

    return {
        "known": sorted(CONFIG_MAPPING.keys()),
        "causal": sorted(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
        "masked": sorted(modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
        "classification": sorted(modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
    }


if __name__ == "__main__":
    for made, file in zip((snapshot(), model_types()), sys.argv[1:], strict=True):
        Path(file).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
