"""The methods that a study may compare, and a settings table for each that PEFT has a config class for.

A method is called as PEFT calls it, in lower case; its table has the settings of its config class by their own names.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lorafile.specs.snapshot import Overrides, settings_table
from lorafile.specs.tables.lora import INNER, LORA, VARIANTS
from lorafile.specs.values import (
    Alpha,
    Natural,
    Number,
    Pattern,
    Positive,
    PositiveNumber,
    Settings,
    Share,
    Targets,
    Text,
    Texts,
)

_PLACED: dict[str, Any] = {
    "target_modules": Targets,
    "layers_to_transform": LORA.types["layers_to_transform"],
    "modules_to_save": Texts | None,
    "rank_pattern": dict[Pattern, Positive],
    "alpha_pattern": dict[Pattern, PositiveNumber],
}
_EVERYWHERE = {"target_modules": "all-linear"}  # as for LoRA, so that methods are compared at one placement
_NO_CONVOLUTION = "a language model has no convolutional layers"
_OF_MODEL = "PEFT reads it from the model"
_OF_LORA = "AdaLoRA ignores it"
_FRACTION = "a value below 1 is a fraction of all steps"

IA3 = Overrides(
    types={**_PLACED, "feedforward_modules": Targets},
    # The published placement is keys, values and the second feed-forward layer, which has its inputs scaled.
    defaults={**_EVERYWHERE, "feedforward_modules": "mlp"},
    help={
        **LORA.help,
        "feedforward_modules": "Which of the target modules have their inputs scaled instead of their outputs.",
        "init_ia3_weights": "Initialize the factors to 1.",
    },
)
VERA = Overrides(
    types={**_PLACED, "r": Positive, "vera_dropout": Share, "d_initial": Number, "projection_prng_key": Natural},
    defaults=_EVERYWHERE,
    help={
        **LORA.help,
        "r": "Rows of the shared random matrices; only two vectors per module are trained.",
        "vera_dropout": LORA.help["lora_dropout"],
        "d_initial": "Initial value of one of the two vectors; the other starts at 0.",
        "projection_prng_key": "Seed of the shared random matrices.",
        "save_projection": "Also save the shared matrices: larger files, but independent of the random generator.",
        "init_weights": "Start with an update of zero.",
    },
    refused={"bias": "PEFT trains these biases but does not save them"},
)
ADALORA = Overrides(
    types={
        **_PLACED,
        "init_r": Positive,
        "target_r": Positive,
        "lora_alpha": Alpha,
        "lora_dropout": Share,
        "tinit": Number,
        "tfinal": Number,
        "deltaT": Positive,
        "beta1": Share,
        "beta2": Share,
        "orth_reg_weight": Number,
        "init_lora_weights": bool,
    },
    defaults={
        **_EVERYWHERE,
        "lora_alpha": "2r",
        "tinit": 0.1,  # with PEFT's 0 the first, arbitrary gradients decide what is pruned
        "tfinal": 0.3,  # with PEFT's 0 the ranks that are left are never trained as they stay
    },
    help={
        **LORA.help,
        "init_r": "Initial rank of every module.",
        "target_r": "Mean rank at the end.",
        "lora_alpha": 'The update is scaled by alpha / init_r; a multiple such as "2r" follows it.',
        "lora_dropout": LORA.help["lora_dropout"],
        "tinit": f"Steps before the first rank reduction; {_FRACTION}.",
        "tfinal": f"Final training steps at the remaining ranks; {_FRACTION}.",
        "deltaT": "Steps between two rank reductions.",
        "beta1": "Smoothing factor of the importance.",
        "beta2": "Smoothing factor of its uncertainty.",
        "orth_reg_weight": "Weight of the term that keeps the singular vectors orthogonal.",
        "init_lora_weights": "Start with an update of zero.",
    },
    refused={
        **dict.fromkeys((*LORA.refused, *INNER, *VARIANTS), _OF_LORA),
        **dict.fromkeys(("alpha_pattern", "use_rslora", "use_dora", "lora_bias", "ensure_weight_tying"), _OF_LORA),
        "trainable_token_indices": _OF_LORA,
        "r": "AdaLoRA starts at init_r and ends at a mean of target_r",
        "total_step": "it is the run's own number of steps",
        "rank_pattern": "it is what AdaLoRA finds",
        "bias": "PEFT trains these biases but does not save them",
    },
)
LOHA = Overrides(
    types={**_PLACED, "r": Positive, "alpha": Alpha, "rank_dropout": Share, "module_dropout": Share},
    defaults={**_EVERYWHERE, "alpha": "1r"},  # peft's own ratio, kept when the rank is swept
    help={
        **LORA.help,
        "r": "Rank of each of the two factors, whose element-wise product is the update.",
        "alpha": 'The update is scaled by alpha / r; a multiple of the rank such as "1r" follows it.',
        "rank_dropout": "Share of the update's rows dropped in a forward pass.",
        "module_dropout": "Probability of dropping a module in a forward pass.",
        "init_weights": "Start with an update of zero.",
    },
    refused={"use_effective_conv2d": _NO_CONVOLUTION},
)
LOKR = Overrides(
    types={**LOHA.types, "decompose_factor": Literal[-1] | Positive},
    defaults=LOHA.defaults,
    help={
        **LOHA.help,
        "r": "Rank of the right factor of the Kronecker product.",
        "decompose_both": "Use a low rank for the left factor too.",
        "decompose_factor": "How the dimensions are divided; -1: as evenly as possible.",
        "rank_dropout_scale": "Scale up the rows that `rank_dropout` keeps.",
        "init_weights": "Start with an update of zero; `lycoris`: with the zeros in the right factor.",
    },
    refused={"use_effective_conv2d": _NO_CONVOLUTION},
)
PROMPT_TUNING = Overrides(
    types={
        "num_virtual_tokens": Positive,
        "prompt_tuning_init": Literal["SAMPLE_VOCAB", "TEXT", "RANDOM"],
        "prompt_tuning_init_text": Text | None,
    },
    defaults={
        "num_virtual_tokens": 20,  # past 20, the published curves are flat
        "prompt_tuning_init": "SAMPLE_VOCAB",  # peft's RANDOM begins far outside what a model has seen
    },
    help={
        "num_virtual_tokens": "Vectors to put before every text.",
        "prompt_tuning_init": "Initial vectors: random vocabulary tokens, the tokens of a text, or random numbers.",
        "prompt_tuning_init_text": "The text for `TEXT`; it is repeated or truncated to the number of vectors.",
    },
    refused={
        **dict.fromkeys(("token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"), _OF_MODEL),
        "modules_to_save": "PEFT trains only the virtual tokens",
        "tokenizer_name_or_path": "it is the model's own tokenizer",
        "tokenizer_kwargs": "it is the model's own tokenizer",
    },
)
LN_TUNING = Overrides(
    types={"target_modules": Targets, "modules_to_save": Texts | None},
    defaults={"target_modules": "all-norms"},
    help={
        **LORA.help,
        "target_modules": "Which norms are trained: `all-norms`, a list of their names, or a regular expression.",
    },
)


@dataclass(frozen=True)
class Method:
    """A method that PEFT trains.

    :ivar config: peft's config class
    :ivar title: what it is called in text
    :ivar rank, alpha: its settings of rank and scale, where it has them
    :ivar on_quantized: whether PEFT trains it on a quantized base
    :ivar second_matrix: whether it has B matrices, which LoRA+ gives a rate of their own
    """

    config: str
    title: str
    own: Overrides
    rank: str = ""
    alpha: str = ""
    on_quantized: bool = True
    second_matrix: bool = False


METHODS: dict[str, Method] = {
    "lora": Method("LoraConfig", "LoRA", LORA, "r", "lora_alpha", second_matrix=True),
    "ia3": Method("IA3Config", "IA³", IA3),
    "vera": Method("VeraConfig", "VeRA", VERA, "r"),
    "adalora": Method("AdaLoraConfig", "AdaLoRA", ADALORA, "init_r", "lora_alpha", second_matrix=True),
    "loha": Method("LoHaConfig", "LoHa", LOHA, "r", "alpha", on_quantized=False),
    "lokr": Method("LoKrConfig", "LoKr", LOKR, "r", "alpha", on_quantized=False),
    "prompt_tuning": Method("PromptTuningConfig", "prompt tuning", PROMPT_TUNING),
    "ln_tuning": Method("LNTuningConfig", "layer-norm tuning", LN_TUNING),
}
MethodName = Literal[
    "lora", "ia3", "vera", "adalora", "loha", "lokr", "prompt_tuning", "ln_tuning", "head", "full", "none"
]


def refusal(path: tuple[str | int, ...]) -> str:
    """Return why a spec cannot name a setting that peft has, or nothing."""
    method = METHODS.get(str(path[0])) if len(path) > 1 else None
    if method is None:
        return ""
    config, own = method.config, method.own
    if len(path) > 2:
        config, own = INNER.get(str(path[1]), ("", Overrides()))
    reason = own.refused.get(str(path[-1]))
    return f"is a setting of peft.{config} that a spec cannot name: {reason}" if reason else ""


def _made(name: str, method: str) -> type[Settings]:
    about = METHODS[method]
    doc = f"{about.title[0].upper()}{about.title[1:]}: settings of `peft.{about.config}`, by their own names."
    return settings_table(name, doc, about.config, about.own)


if TYPE_CHECKING:
    Ia3Settings = Settings
    VeraSettings = Settings
    AdaLoraSettings = Settings
    LoHaSettings = Settings
    LoKrSettings = Settings
    PromptTuningSettings = Settings
    LnTuningSettings = Settings
else:
    Ia3Settings = _made("Ia3Settings", "ia3")
    VeraSettings = _made("VeraSettings", "vera")
    AdaLoraSettings = _made("AdaLoraSettings", "adalora")
    LoHaSettings = _made("LoHaSettings", "loha")
    LoKrSettings = _made("LoKrSettings", "lokr")
    PromptTuningSettings = _made("PromptTuningSettings", "prompt_tuning")
    LnTuningSettings = _made("LnTuningSettings", "ln_tuning")
