"""The `[lora]` table: settings of `peft.LoraConfig`, and of the initialisations that have settings of their own."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from lorafile.specs.snapshot import Overrides, settings_table, snapshot
from lorafile.specs.values import (
    NITER,
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
        "rho": "A layer's rank may grow to rho times `r`; 1 leaves every rank as it is.",
        "tau": "Cosine similarity at which a direction counts as found.",
        "use_label_mask": "Look at supervised tokens alone.",
        "whiten": "Divide the directions by their spread.",
        "adjust_scaling_factors": "Let alpha follow a rank that has changed.",
    },
    refused={"label_mask_value": "the mask of the supervised tokens is made by this tool"},
)
CORDA = Overrides(
    help={
        "corda_method": "`ipm` adapts the directions that the data use most, `kpm` those that they use least.",
        "use_float16_for_covariance": "Half the memory for the covariance, less exact.",
    },
    refused={
        "cache_file": "what a run starts from has to be in its key; it is computed from the train split",
        "covariance_file": "what a run starts from has to be in its key; it is computed from the train split",
        "verbose": "it only prints",
        "prune_temporary_fields": "the base is left as it was in any case",
    },
)
LORA_GA = Overrides(
    types={"stable_gamma": Positive},
    help={
        "direction": "Which singular directions of the gradient become A, and which B.",
        "scale": "How large the two begin.",
        "stable_gamma": "`stable`: the larger, the smaller B begins.",
    },
)
_HELP = {
    "r": "Rank of the update.",
    "lora_alpha": 'The update is scaled by alpha / r; a multiple of the rank such as "2r" follows it.',
    "lora_dropout": "Dropout on what the adapter reads.",
    "target_modules": "Where adapters sit: `attention`, `mlp`, `all-linear`; a list of these and of module names; or a "
    "regular expression for whole module paths.",
    "target_parameters": "Parameters that hold a matrix for each expert, by name or path ending, such as "
    "`experts.down_proj`; with `target_modules = []` they alone are adapted.",
    "exclude_modules": "Module names, or a regular expression for whole paths, that get no adapter all the same.",
    "layers_to_transform": "Layers that get an adapter, from 0; or `first-third`, `middle-third`, `last-third`, "
    "`alternate` (every second). Absent: all.",
    "layers_pattern": "What the model calls its list of layers, where PEFT does not know it.",
    "init_lora_weights": "How A and B begin. `true`: an update of zero; `gaussian`: A drawn as in diffusers; "
    "`orthogonal`; `pissa`, `olora`: from the base's own weights; `eva`, `corda`, `lora_ga`: from the train split; "
    "`loftq`: from the error of a 4-bit base; `mica`: only A is trained; `false`: both drawn at random.",
    "eva_config": 'Settings of `init_lora_weights = "eva"` (arXiv 2410.07170).',
    "corda_config": 'Settings of `init_lora_weights = "corda"` (arXiv 2406.05223).',
    "lora_ga_config": 'Settings of `init_lora_weights = "lora_ga"` (arXiv 2407.05000).',
    "use_rslora": "Scale by alpha / √r instead of alpha / r (rank-stabilized LoRA, arXiv 2312.03732).",
    "use_dora": "Learn magnitude and direction apart (DoRA, arXiv 2402.09353): better at low ranks, slower.",
    "lora_bias": "A bias term in the adapter's second matrix.",
    "bias": "Which biases of the base are trained and saved as well: `none`, `all`, or those of adapted layers.",
    "fan_in_fan_out": "The layer stores its weight as (in, out), as GPT-2 does; PEFT sees that by itself.",
    "rank_pattern": 'Ranks of single modules: `{ "q_proj" = 4 }`; names or regular expressions for the end of a path.',
    "alpha_pattern": "As `rank_pattern`, for alpha.",
    "modules_to_save": "Modules that are trained and saved whole, such as `lm_head` or `embed_tokens`.",
    "trainable_token_indices": "Rows of the embedding that are trained, by token number; or a table of module names.",
    "ensure_weight_tying": "What is trained of an embedding that is tied to the head stays tied to it.",
}
_OTHER_BASE = "the adapter would belong to another base than the study's: it is not what it was on the original one"
LORA = Overrides(
    types={
        "r": Positive,
        "lora_alpha": Alpha,
        "lora_dropout": Share,
        "target_modules": Text | list[Text],
        "target_parameters": Texts | None,
        "init_lora_weights": bool
        | Literal["gaussian", "orthogonal", "pissa", "olora", "loftq", "eva", "corda", "lora_ga", "mica"]
        | Annotated[str, Field(pattern=NITER)],
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
    },
    defaults={
        "r": 16,  # peft's 8 is below what most published comparisons settle on
        "lora_alpha": "2r",  # scaling stays 2 when the rank is swept
        "target_modules": "all-linear",  # all layers beat attention alone at matched parameters (LoRA Without Regret)
    },
    help=_HELP,
    refused={
        "alora_invocation_tokens": "an activated LoRA works only behind tokens that every example would have to hold, "
        "and cannot be merged",
        "arrow_config": "it routes between adapters that are finished; there is nothing to train",
        "kasa_config": f"KaSA cuts the base's own weights; {_OTHER_BASE}",
        "layer_replication": f"it makes a larger model out of copied layers; {_OTHER_BASE}",
        "loftq_config": 'with init_lora_weights = "loftq" the bits are those of the base: set quantization = "nf4"',
        "monteclora_config": "it draws other weights in every forward pass, so that no loss could be computed twice",
        "qalora_group_size": "QALoRA is for GPTQ bases alone in PEFT, and cannot be merged into the study's base",
        "use_bdlora": "its blocks fit one way of serving in parts, and the rank of the update is no longer r",
        "use_qalora": "QALoRA is for GPTQ bases alone in PEFT, and cannot be merged into the study's base",
        "velora_config": "its backward pass depends on the first batch that a process saw, so that no run could be "
        "resumed",
    },
)
# The table of each setting that has settings of its own.
INNER: dict[str, tuple[str, Overrides]] = {
    "eva_config": ("EvaConfig", EVA),
    "corda_config": ("CordaConfig", CORDA),
    "lora_ga_config": ("LoraGAConfig", LORA_GA),
}


def inner_settings(name: str, given: dict[str, Any] | None) -> dict[str, Any]:
    """Return an initialisation's own settings in full."""
    config, own = INNER[name]
    return given or {key: row["default"] for key, row in snapshot()[config].items() if key not in own.refused}


if TYPE_CHECKING:
    LoraSettings = Settings
else:
    LoraSettings = settings_table(
        "LoraSettings", "The adapter: settings of `peft.LoraConfig`, by their own names.", "LoraConfig", LORA
    )
