"""`profile` nodes: what a configuration costs."""

from typing import Any

from lorafile.graph.builder import GraphBuilder, Owner
from lorafile.specs import Configuration
from lorafile.specs.tables.train import PACKED_ROW_LENGTH

# What a profile measures does not depend on these: they stay out of its key.
_NO_COST_OF_ADAPTER = (
    *("lora_alpha", "alpha", "use_rslora", "alpha_pattern", "d_initial", "projection_prng_key"),
    *("init_lora_weights", "init_weights", "init_ia3_weights", "eva_config", "corda_config", "lora_ga_config"),
    *("prompt_tuning_init", "prompt_tuning_init_text", "tinit", "tfinal", "beta1", "beta2", "target_r"),
)
_COST_OF_TRAINING = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "bf16",
    "fp16",
    "gradient_checkpointing",
    PACKED_ROW_LENGTH,
)


def add_profile(builder: GraphBuilder, configuration: Configuration) -> str:
    """Add the profile of a configuration; return its key."""
    sections = builder.graph.sections[configuration.name]
    protocol = builder.once(("protocol",), lambda: builder.spec.tables.profile.model_dump(exclude={"enabled"}))
    adapter = {key: value for key, value in sections["adapter"].items() if key not in _NO_COST_OF_ADAPTER}
    settings = configuration.train.as_text if configuration.train else ""
    rows = (sections.get("training") or {}).get(PACKED_ROW_LENGTH)
    training = builder.once(("costs", settings, rows), lambda: _costs(sections.get("training")))
    measured = {
        "model": sections["model"],
        "quantization": sections["quantization"],
        "adapter": adapter,
        # What the built-in loop needs to train says nothing of a program: only what its adapter costs is measured.
        **({} if "trainer" in sections else {"training": training}),
        "profile": protocol,
    }
    if "checkpoint" in sections:  # trained elsewhere: what it costs to use is measured on the very file
        measured["checkpoint"] = sections["checkpoint"]
    inputs = {"train": builder.graph.splits[configuration.name]["train"]}
    return builder.add("profile", f"{configuration.name}:profile", measured, inputs, Owner(configuration.name))


def _costs(training: dict[str, Any] | None) -> dict[str, Any]:
    """Return the settings of training that change what a step costs."""
    return {} if training is None else {key: training[key] for key in (*_COST_OF_TRAINING, "optim") if key in training}
