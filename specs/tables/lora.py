"""The `[lora]` table: settings of `peft.LoraConfig`, and of the initialisations that have settings of their own."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lorafile.specs.snapshot import Overrides, settings_table, snapshot
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

EVA = Overrides(
    types={"rho": Annotated[float, Field(ge=1)], "tau": Unit},
    help={
        "rho": "A layer's rank can grow to rho times `r`; 1 leaves every rank unchanged.",
        "tau": "Cosine similarity at which a direction counts as converged.",
        "use_label_mask": "Use supervised tokens only.",
        "whiten": "Divide the directions by their spread.",
        "adjust_scaling_factors": "Adjust alpha when a rank changes.",
    },
    refused={"label_mask_value": "Lorafile creates the mask of the supervised tokens itself"},
)
CORDA = Overrides(
    help={
        "corda_method": "`ipm` adapts the directions that the data use most, `kpm` those they use least.",
        "use_float16_for_covariance": "Halve the memory for the covariance, at lower precision.",
    },
    refused={
        "cache_file": "everything a run starts from must be in its key; Lorafile computes it from the train split",
        "covariance_file": "everything a run starts from must be in its key; Lorafile computes it from the train split",
        "verbose": "it only prints",
        "prune_temporary_fields": "the base is always restored",
    },
)
LORA_GA = Overrides(
    types={"stable_gamma": Positive},
    help={
        "direction": "Which singular directions of the gradient become A, and which B.",
        "scale": "Initial scale of A and B.",
        "stable_gamma": "`stable`: larger values make the initial B smaller.",
    },
)
VELORA = Overrides(
    types={
        "num_groups": Positive,
        "scale": PositiveNumber,
        # PEFT's batch_average_once follows from the first batch that a process sees: a resumed run sees another one.
        "init_type": Literal["batch_average", "random"],
    },
    help={
        "num_groups": "Groups of input features, each of which is kept as one number for the backward pass.",
        "scale": "Factor of the inputs that are rebuilt from these numbers.",
        "init_type": "Direction on which a group is projected: the mean of each batch, or drawn once.",
    },
)
BDLORA = Overrides(
    types={"target_modules_bd_a": Texts | None, "target_modules_bd_b": Texts | None, "nblocks": Positive},
    defaults={"match_strict": False},  # as modules without blocks are plain LoRA
    help={
        "target_modules_bd_a": "Modules whose A consists of blocks: those whose name contains one of these texts.",
        "target_modules_bd_b": "The same for B.",
        "nblocks": "Number of blocks on the diagonal, by which the rank and the layer's dimensions are divisible.",
        "match_strict": "Refuse target modules that are in neither list.",
    },
)
_HELP = {
    "r": "Rank of the update.",
    "lora_alpha": 'The update is scaled by alpha / r; a multiple of the rank such as "2r" follows it.',
    "lora_dropout": "Dropout on the adapter's input.",
    "target_modules": "Modules that get an adapter: `attention`, `mlp`, `all-linear`; a list of these and of module "
    "names; or a regular expression for full module paths.",
    "target_parameters": "Parameters that hold one matrix per expert, by name or path suffix, such as "
    "`experts.down_proj`. With `target_modules = []`, only these are adapted.",
    "exclude_modules": "Modules that get no adapter even if targeted: names, or a regular expression for full paths.",
    "layers_to_transform": "Layers that get an adapter, counted from 0; or `first-third`, `middle-third`, "
    "`last-third`, `alternate` (every second). Unset: all.",
    "layers_pattern": "The name of the model's list of layers, if PEFT does not know it.",
    "init_lora_weights": "How A and B are initialized. `true`: an update of zero; `gaussian`: A as in diffusers; "
    "`orthogonal`; `pissa`, `olora`: from the base's own weights; `eva`, `corda`, `lora_ga`: from the train split; "
    "`loftq`: from the error of a 4-bit base; `mica`: only A is trained; `false`: both are random; a table: by "
    "your own function.",
    "eva_config": 'Settings of `init_lora_weights = "eva"` (arXiv 2410.07170).',
    "corda_config": 'Settings of `init_lora_weights = "corda"` (arXiv 2406.05223).',
    "lora_ga_config": 'Settings of `init_lora_weights = "lora_ga"` (arXiv 2407.05000).',
    "use_rslora": "Scale by alpha / √r instead of alpha / r (rank-stabilized LoRA, arXiv 2312.03732).",
    "use_dora": "Learn magnitude and direction separately (DoRA, arXiv 2402.09353): better at low ranks, slower.",
    "lora_bias": "A bias term in the adapter's second matrix.",
    "bias": "Which biases of the base are trained and saved as well: `none`, `all`, or those of adapted layers.",
    "fan_in_fan_out": "The layer stores its weight as (in, out), as in GPT-2; PEFT detects this.",
    "rank_pattern": 'Ranks of individual modules: `{ "q_proj" = 4 }`. Keys: names or regular expressions of path ends.',
    "alpha_pattern": "Like `rank_pattern`, for alpha.",
    "modules_to_save": "Modules that are trained and saved in full, such as `lm_head` or `embed_tokens`.",
    "trainable_token_indices": "Embedding rows to train, by token id; or a table by module name.",
    "velora_config": "VeLoRA (arXiv 2405.17991): keep compressed inputs for the gradient of A; less memory, an inexact "
    "gradient.",
    "use_bdlora": "BD-LoRA (arXiv 2510.23346): A or B consists of blocks, for serving in shards.",
    "ensure_weight_tying": "Keep the trained part of a tied embedding tied to the head.",
}


class InitFunction(Settings):
    """A function that gives A and B their initial values (docs/how-to/initialize-adapters.md)."""

    file: Annotated[str, Field(pattern=PYTHON_FILE)] = Field(
        description="The file, relative to the spec. Its content, and that of the modules next to it that it imports, "
        "is part of the key; its name is not."
    )
    function: Annotated[str, Field(pattern=FUNCTION_NAME)] = Field(
        description="The function: `function(name, A, B, weight, generator)` returns the new `(A, B)`."
    )


_OTHER_BASE = "the adapter would belong to a modified base and not work on the original one"
LORA = Overrides(
    types={
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
        "eva_config": settings_table("EvaSettings", "EVA's own settings.", "EvaConfig", EVA) | None,
        "corda_config": settings_table("CordaSettings", "CorDA's own settings.", "CordaConfig", CORDA) | None,
        "lora_ga_config": settings_table("LoraGaSettings", "LoRA-GA's own settings.", "LoraGAConfig", LORA_GA) | None,
        "velora_config": settings_table("VeloraSettings", "VeLoRA's own settings.", "VeloraConfig", VELORA) | None,
        "use_bdlora": settings_table("BdLoraSettings", "BD-LoRA's own settings.", "BdLoraConfig", BDLORA) | None,
    },
    defaults={
        "r": 16,  # peft's 8 is below what most published comparisons settle on
        "lora_alpha": "2r",  # scaling stays 2 when the rank is swept
        "target_modules": "all-linear",  # all layers beat attention alone at matched parameters (LoRA Without Regret)
    },
    help=_HELP,
    refused={
        "alora_invocation_tokens": "an activated LoRA works only after tokens that every example would have to "
        "contain, and cannot be merged",
        "arrow_config": "it routes between finished adapters; there is nothing to train",
        "kasa_config": "KaSA cuts the base's own weights when it is put on and when it is loaded, and its regularizers "
        "are not part of PEFT's forward pass",
        "layer_replication": f"it builds a larger model from copied layers; {_OTHER_BASE}",
        "loftq_config": 'with init_lora_weights = "loftq" the base determines the bits: set quantization = "nf4"',
        "monteclora_config": "it draws its noise in advance into a buffer that no checkpoint holds, so no run could be "
        "resumed",
        "qalora_group_size": "PEFT supports QALoRA for GPTQ bases only, and it cannot be merged into the study's base",
        "use_qalora": "PEFT supports QALoRA for GPTQ bases only, and it cannot be merged into the study's base",
    },
)
# Variants of LoRA that are on where their table is there: the setting, and PEFT's class of it.
VARIANTS = {"velora_config": "VeloraConfig", "use_bdlora": "BdLoraConfig"}
# The table of each initialization that has settings of its own.
INNER: dict[str, tuple[str, Overrides]] = {
    "eva_config": ("EvaConfig", EVA),
    "corda_config": ("CordaConfig", CORDA),
    "lora_ga_config": ("LoraGAConfig", LORA_GA),
}


def inner_settings(name: str, given: dict[str, Any] | None) -> dict[str, Any]:
    """Return an initialization's own settings in full."""
    config, own = INNER[name]
    return given or {key: row["default"] for key, row in snapshot()[config].items() if key not in own.refused}


if TYPE_CHECKING:
    LoraSettings = Settings
else:
    LoraSettings = settings_table(
        "LoraSettings", "The adapter: settings of `peft.LoraConfig`, by their own names.", "LoraConfig", LORA
    )
