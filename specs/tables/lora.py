"""The `[lora]` table: settings of `peft.LoraConfig`, and of the initialisations that have settings of their own."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from lorafile.specs.snapshot import Overrides, declared, settings_table, snapshot
from lorafile.specs.values import (
    FUNCTION_NAME,
    NITER,
    PYTHON_FILE,
    Alpha,
    LayerWord,
    Natural,
    Pattern,
    Positive,
    PositiveNumber,
    Settings,
    Share,
    Text,
    Texts,
    Unit,
)

# Initialisations that take something out of the base's weights and put it into the adapter.
REWRITING = ("pissa", "olora", "corda", "lora_ga")
# Matrices of which PEFT holds the second fixed: no rate of its own could be given to it.
FIXED_B = "mica"


class InitFunction(Settings):
    """A function that gives A and B their initial values (docs/how-to/initialize-adapters.md)."""

    file: Annotated[str, Field(pattern=PYTHON_FILE)] = Field(
        description="The file, relative to the spec. Its content, and that of the modules next to it that it imports, "
        "is part of the key; its name is not."
    )
    function: Annotated[str, Field(pattern=FUNCTION_NAME)] = Field(
        description="The function: `function(name, A, B, weight, generator)` returns the new `(A, B)`."
    )


_TYPES: dict[str, Any] = {
    "r": Positive,
    "lora_alpha": Alpha,
    "lora_dropout": Share,
    "target_modules": Text | list[Text],
    "target_parameters": Texts | None,
    "init_lora_weights": bool
    | Literal["gaussian", "orthogonal", "pissa", "olora", "loftq", "eva", "corda", "lora_ga", "mica"]
    | Annotated[str, Field(pattern=NITER)]
    | InitFunction,
    # Empty would be every layer to PEFT; the words are ours, because a preset cannot know the number of layers.
    "layers_to_transform": LayerWord | Natural | Annotated[list[Natural], Field(min_length=1)] | None,
    "rank_pattern": dict[Pattern, Positive],
    "alpha_pattern": dict[Pattern, PositiveNumber],
    "modules_to_save": Texts | None,
    "trainable_token_indices": Annotated[list[Natural], Field(min_length=1)]
    | dict[Text, Annotated[list[Natural], Field(min_length=1)]]
    | None,
}
# The same for the settings of its inner tables.
_INNER_TYPES: dict[str, dict[str, Any]] = {
    "eva_config": {"rho": Annotated[float, Field(ge=1)], "tau": Unit},
    "lora_ga_config": {"stable_gamma": Positive},
    "velora_config": {
        "num_groups": Positive,
        "scale": PositiveNumber,
        # PEFT's batch_average_once follows from the first batch that a process sees: a resumed run sees another one.
        "init_type": Literal["batch_average", "random"],
    },
    "use_bdlora": {
        "target_modules_bd_a": Texts | None,
        "target_modules_bd_b": Texts | None,
        "nblocks": Positive,
    },
}


def _own(lines: dict[str, Any], types: dict[str, Any]) -> Overrides:
    """Return our own types, and what methods.toml has of defaults, help and refusals."""
    return Overrides(types, *(lines.get(part, {}) for part in ("defaults", "help", "refused")))


_LINES = declared()["lora"]
_TABLES = {
    name: (lines["config"], _own(lines, _INNER_TYPES.get(name, {})), lines["title"])
    for name, lines in (_LINES["inner"] | _LINES["variants"]).items()
}
# The class in PEFT of each variant that is on where its table is there.
VARIANTS: dict[str, str] = {name: _TABLES[name][0] for name in _LINES["variants"]}
# The table of each initialization that has settings of its own.
INNER: dict[str, tuple[str, Overrides]] = {name: _TABLES[name][:2] for name in _LINES["inner"]}
LORA = _own(_LINES, _TYPES)


def inner_settings(name: str, given: dict[str, Any] | None) -> dict[str, Any]:
    """Return an initialization's own settings in full."""
    config, own = INNER[name]
    return given or {key: row["default"] for key, row in snapshot()[config].items() if key not in own.refused}


def lora_table() -> type[Settings]:
    """Make the table, with the inner tables of initializations and variants."""
    inner: dict[str, Any] = {
        name: settings_table(f"{config.removesuffix('Config')}Settings", f"{title}'s own settings.", config, own) | None
        for name, (config, own, title) in _TABLES.items()
    }
    doc = "The adapter: settings of `peft.LoraConfig`, by their own names."
    return settings_table("LoraSettings", doc, "LoraConfig", replace(LORA, types={**LORA.types, **inner}))
