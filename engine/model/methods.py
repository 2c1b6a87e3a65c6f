"""What single methods need next to their settings: PEFT's config, virtual tokens, a term of the loss, a step's end."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from lorafile.engine.batching.batches import Batch
from lorafile.engine.request import Request
from lorafile.errors import NodeError
from lorafile.specs.tables.lora import INNER, VARIANTS

_ADALORA_STEPS = 2  # before the ranks are final: PEFT has no importances to go by otherwise
IN_CACHE = ("PREFIX_TUNING", "CARTRIDGE")  # what stands before a text is keys and values, and no embeddings
_IMPORTANCES = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # what PEFT's RankAllocator keeps of each parameter


def peft_config(request: Request, steps: int, head: Iterable[str] = ()) -> Any:
    """Return the config of a request's method, of PEFT's own class.

    :param steps: optimizer steps of the run, by which AdaLoRA divides its ranks
    :param head: the modules of a classification head, which are trained and saved whole
    """
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType
    from peft.tuners.lora import config as lora
    from peft.utils.constants import DUMMY_TARGET_MODULES

    settings = {key: value for key, value in request.settings["adapter"].items() if key != "method"}
    method, task = request.settings["adapter"]["method"], request.settings["model"].get("task_type", "CAUSAL_LM")
    for name, inner in {**{name: row[0] for name, row in INNER.items()}, **VARIANTS}.items():
        if name in settings:
            settings[name] = getattr(lora, inner)(**settings[name])
    if settings.get("init_lora_weights") == "loftq" or isinstance(settings.get("init_lora_weights"), dict):
        # PEFT's own LoftQ would write a quantized copy of a whole base; a user's function follows PEFT's default.
        settings["init_lora_weights"] = True
    if method == "adalora":
        for name in {"tinit", "tfinal"} & settings.keys():  # below 1 they are a share of all steps
            settings[name] = math.floor(settings[name] * steps) if settings[name] < 1 else int(settings[name])
        settings["total_step"] = steps
        if steps - settings.get("tfinal", 0) < _ADALORA_STEPS:
            raise NodeError(
                "adalora.tfinal: AdaLoRA needs two steps to rank what it removes, and this run has "
                f"{steps - settings.get('tfinal', 0)} before its ranks are fixed; train longer, or lower tfinal."
            )
    if settings.get("prompt_tuning_init") == "TEXT":
        settings["tokenizer_name_or_path"] = request.paths["model"]
    if method == "head":  # to PEFT it is a LoRA on nothing, with modules to save
        method, settings["target_modules"] = "lora", DUMMY_TARGET_MODULES
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(method.upper())]
    if head and "modules_to_save" in kind.__dataclass_fields__:
        saved = {name.rpartition(".")[2] for name in head} | set(settings.get("modules_to_save") or [])
        settings["modules_to_save"] = sorted(saved)
    return kind(**settings, task_type=task)


def virtual_tokens(model: Any) -> int:
    """Return how many vectors a model puts before the embeddings of every text."""
    config = getattr(model, "active_peft_config", None)
    if config is None or not config.is_prompt_learning or config.peft_type.value in IN_CACHE:
        return 0
    return int(config.num_virtual_tokens)


def cached_tokens(model: Any) -> int:
    """Return of how many tokens before every text a model trains the keys and values."""
    config = getattr(model, "active_peft_config", None)
    return int(config.num_virtual_tokens) if config is not None and config.peft_type.value in IN_CACHE else 0


def with_virtual_tokens(model: Any, batch: Batch) -> tuple[Batch, torch.Tensor]:
    """Return prompts with a model's virtual tokens between padding and text, and what stands for each: [b, t, h].

    PEFT puts its vectors before the padding, which moves the text away from them by as much as a row is padded. A
    vector has no token: the prompt's last one stands in its place, so that no penalty of a repetition sees another.
    """
    ids, mask, ahead = batch.input_ids, batch.attention_mask, virtual_tokens(model)
    words = model.word_embeddings(ids)
    prompts = model.get_prompt(batch_size=len(ids)).to(words.dtype)
    together = torch.cat([prompts, words], dim=1)
    named = torch.cat([ids[:, -1:].expand(-1, ahead), ids], dim=1)
    attended = torch.cat([mask.new_ones(len(ids), ahead), mask], dim=1)
    order = attended.argsort(dim=1, stable=True)  # what is not attended to goes first, all else keeps its order
    longer = replace(
        batch,
        input_ids=named.gather(1, order),
        attention_mask=attended.gather(1, order),
        supervised=torch.zeros_like(attended, dtype=torch.bool),
    )
    return longer, together.gather(1, order[:, :, None].expand_as(together))


def penalty(model: Any) -> torch.Tensor | None:
    """Return AdaLoRA's orthogonal regularisation, which its own forward adds to a loss that it computes itself.

    The mean over all P and Q of the Frobenius norm of PᵀP − I or QQᵀ − I, times its weight (arXiv 2303.10512, eq. 4).
    """
    config = getattr(model, "active_peft_config", None)
    weight = getattr(config, "orth_reg_weight", 0.0)
    if not weight:
        return None
    norms = []
    for name, matrix in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            square = matrix @ matrix.T if "lora_A" in name else matrix.T @ matrix
            norms.append(torch.linalg.norm(square - torch.eye(len(square), device=square.device), ord="fro"))
    return weight * torch.stack(norms).mean() if norms else None


def after_step(model: Any, step: int) -> None:
    """Let AdaLoRA take ranks away: after the optimizer's step, counted from 1, before gradients are forgotten."""
    config = getattr(model, "active_peft_config", None)
    if getattr(config, "total_step", None):
        model.base_model.update_and_allocate(step)


def allocation(model: Any) -> dict[str, torch.Tensor]:
    """Return AdaLoRA's state next to its parameters: importances, their spread, and the ranks that are left."""
    allocator = getattr(getattr(model, "base_model", None), "rankallocator", None)
    if allocator is None:
        return {}
    state = {f"{kind}/{name}": value for kind in _IMPORTANCES for name, value in getattr(allocator, kind).items()}
    kept = model.active_peft_config.rank_pattern or {}
    return state | {f"rank_pattern/{name}": torch.tensor(marks) for name, marks in kept.items()}


def restore_allocation(model: Any, state: dict[str, torch.Tensor]) -> None:
    """Restore what `allocation` returned."""
    for place, value in state.items():
        kind, _, name = place.partition("/")
        if kind == "rank_pattern":
            config = model.active_peft_config
            config.rank_pattern = {**(config.rank_pattern or {}), name: value.tolist()}
        else:
            device = model.get_parameter(f"base_model.model.{name}").device
            getattr(model.base_model.rankallocator, kind)[name] = value.to(device)
