"""How a base is quantized: short names, and the settings of transformers' own quantization configs."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from lorafile.specs.snapshot import BnbSettings
from lorafile.specs.values import Positive, Settings, Share

# Short names, and the settings that each stands for.
QUANTIZATIONS: dict[str, dict[str, Any] | None] = {
    "none": None,  # as the checkpoint is: in full precision, or as it was quantized before
    # With the library's outlier threshold of 6 a result depends on what else is in the batch; at 0 it does not.
    "int8": {"load_in_8bit": True, "llm_int8_threshold": 0.0},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "hqq4": {"quant_method": "hqq", "nbits": 4, "group_size": 64},
    "torchao-int8": {"quant_method": "torchao", "quant_type": "Int8WeightOnlyConfig"},
}
QuantizationName = Literal["none", "int8", "nf4", "fp4", "hqq4", "torchao-int8"]
Method = Literal["bitsandbytes", "hqq", "torchao", "gptq", "awq"]
GroupSize = Positive | Literal[-1]

# torchao's config classes, by the names that they had as texts in earlier versions.
_TORCHAO_NAMES = {
    "int8_weight_only": "Int8WeightOnlyConfig",
    "int8_dynamic_activation_int8_weight": "Int8DynamicActivationInt8WeightConfig",
    "float8_weight_only": "Float8WeightOnlyConfig",
}
TorchAoType = Literal[
    "Int8WeightOnlyConfig",
    "Int8DynamicActivationInt8WeightConfig",
    "Float8WeightOnlyConfig",
    "int8_weight_only",
    "int8_dynamic_activation_int8_weight",
    "float8_weight_only",
]


class BnbTable(BnbSettings):
    """A bitsandbytes base: settings of transformers' `BitsAndBytesConfig`, by their own names."""

    # An unknown library is checked against this table, so that the message lists the known ones.
    quant_method: Method = Field(
        default="bitsandbytes", description="`bitsandbytes`", json_schema_extra={"enum": ["bitsandbytes"]}
    )


class HqqTable(Settings):
    """An HQQ base (half-quadratic quantization): settings of transformers' `HqqConfig`; needs the package hqq."""

    quant_method: Literal["hqq"] = Field(description="`hqq`")
    nbits: Literal[8, 4, 3, 2, 1] = Field(default=4, description="Bits per weight.")
    group_size: Positive = Field(default=64, description="Weights that share a scale; divides the layers' widths.")
    axis: Literal[0, 1] = Field(default=1, description="Along which axis weights are grouped.")
    skip_modules: list[str] = Field(default=["lm_head"], description="Modules that are not quantized.")


class TorchAoTable(Settings):
    """A torchao base: settings of transformers' `TorchAoConfig`; needs the package torchao."""

    quant_method: Literal["torchao"] = Field(description="`torchao`")
    quant_type: TorchAoType = Field(description="torchao's config class, or its former name as a string.")
    group_size: Positive | None = Field(
        default=None, description="Int8WeightOnlyConfig: weights per scale. Unset: one row."
    )
    modules_to_not_convert: list[str] | None = Field(default=None, description="Modules that are not quantized.")


class GptqTable(Settings):
    """A GPTQ base: settings of transformers' `GPTQConfig`; needs the packages gptqmodel and optimum."""

    quant_method: Literal["gptq"] = Field(description="`gptq`")
    bits: Literal[2, 3, 4, 8] = Field(default=4, description="Bits per weight.")
    dataset: Literal["wikitext2", "c4", "c4-new"] | Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None,
        description="Texts to calibrate on, or a data set used by GPTQ's authors; not for a GPTQ checkpoint.",
    )
    group_size: GroupSize = Field(default=128, description="Weights that share a scale; -1: one column.")
    damp_percent: Share = Field(default=0.1, description="Share of the mean Hessian diagonal that is added to it.")
    desc_act: bool = Field(default=False, description="Quantize columns in order of decreasing activation.")
    sym: bool = Field(default=True, description="Symmetric quantization.")
    backend: str | None = Field(default=None, description="gptqmodel's kernel. Unset: its own choice.")


class AwqTable(Settings):
    """An AWQ checkpoint: settings of transformers' `AwqConfig`; needs the package gptqmodel."""

    quant_method: Literal["awq"] = Field(description="`awq`")
    bits: Literal[4] = Field(default=4, description="Bits per weight.")
    group_size: GroupSize = Field(default=128, description="Weights that share a scale; -1: one column.")
    zero_point: bool = Field(default=True, description="Quantize with a zero point.")
    backend: str | None = Field(default=None, description="gptqmodel's kernel. Unset: its own choice.")


TABLES: dict[str, type[Settings]] = {
    "bitsandbytes": BnbTable,
    "hqq": HqqTable,
    "torchao": TorchAoTable,
    "gptq": GptqTable,
    "awq": AwqTable,
}


def _branch(value: Any) -> str:
    """Return which kind of value a quantization is; one that names no known library is checked as the first."""
    if not isinstance(value, dict):
        method = getattr(value, "quant_method", "name")
        return str(method)
    method = value.get("quant_method", "bitsandbytes")
    return method if isinstance(method, str) and method in TABLES else "bitsandbytes"


Quantization = Annotated[
    Annotated[QuantizationName, Tag("name")]
    | Annotated[BnbTable, Tag("bitsandbytes")]
    | Annotated[HqqTable, Tag("hqq")]
    | Annotated[TorchAoTable, Tag("torchao")]
    | Annotated[GptqTable, Tag("gptq")]
    | Annotated[AwqTable, Tag("awq")],
    Discriminator(_branch),
]


def quantization_kind(settings: dict[str, Any]) -> str:
    """Return what methods tell apart: `int8` and `nf4` for the 8 and 4 bits of bitsandbytes, or another library."""
    library = str(settings.get("quant_method", "bitsandbytes"))
    if library != "bitsandbytes":
        return library
    return "int8" if settings.get("load_in_8bit") else "nf4"


def quantization_settings(value: str | Settings) -> dict[str, Any] | None:
    """Return a quantization's settings in full, or None for a base that is loaded as its checkpoint is.

    Those of bitsandbytes stand without `quant_method`, as BitsAndBytesConfig takes them.
    """
    if isinstance(value, str):
        chosen = QUANTIZATIONS[value]
        return None if chosen is None else quantization_settings(TABLES[_branch(chosen)].model_validate(chosen))
    settings = value.model_dump()
    if settings["quant_method"] == "bitsandbytes":
        del settings["quant_method"]
    if "quant_type" in settings:
        settings["quant_type"] = _TORCHAO_NAMES.get(settings["quant_type"], settings["quant_type"])
    return settings


def quantization_name(settings: dict[str, Any] | None) -> str:
    """Return the short name of a base's quantization, or its type where its settings have no name of their own."""
    for name in QUANTIZATIONS:
        if settings == quantization_settings(name):
            return name
    assert settings is not None  # noqa: S101
    method = settings.get("quant_method", "bitsandbytes")
    if method == "bitsandbytes":
        return f"{settings['bnb_4bit_quant_type']}, own settings" if settings["load_in_4bit"] else "int8, own settings"
    if method == "torchao":
        return f"torchao {settings['quant_type'].removesuffix('Config')}"
    return f"{method} {settings.get('nbits') or settings['bits']}-bit"


def weight_bits(settings: dict[str, Any], scale: int) -> tuple[float, float]:
    """Return how a quantized weight is stored: its own bits, and the bits of scales and zero points that fall to it.

    bitsandbytes keeps a float32 for 64 weights, or with double quantization that as 8 bits with a float32 for 256 of
    those (QLoRA, section 3); HQQ scale and zero of each group in the base's own type; torchao a scale; GPTQ and AWQ a
    scale in float16 and a packed zero.

    :param scale: bits of a number of the base's own type
    """
    method = settings.get("quant_method", "bitsandbytes")
    if method == "bitsandbytes":
        if settings["load_in_8bit"]:
            return 8, 0
        return 4, (8 / 64 + 32 / (64 * 256)) if settings["bnb_4bit_use_double_quant"] else 32 / 64
    group = settings["group_size"] or 0
    if method == "torchao":
        return 8, scale / group if group else 0
    if method == "hqq":  # three bits are packed ten to a 32-bit word
        return (3.2 if settings["nbits"] == 3 else settings["nbits"]), 2 * scale / group
    return settings["bits"], (16 + settings["bits"]) / group if group > 0 else 0
