"""What vLLM and TGI accept of an adapter, without either: their loaders' own rules, and the command that serves it."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

from lorafile.errors import LoraError
from lorafile.lock.lockfile import ModelLock
from lorafile.lock.weights import headers
from lorafile.results.results import grouped

# vllm/config/lora.py: the only values that --max-lora-rank takes; it is 16 unless it is raised.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_DEFAULT = 16
_TGI_MODULE = re.compile(r"model\.layers\.(\d+)\.(self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)")


def adapted(files: dict[str, str]) -> dict[str, int]:
    """Return module -> stored rank of a LoRA's matrices, from the header of its file alone."""
    ranks = {}
    for name, header in headers(Path(files["adapter_model.safetensors"])).items():
        for ending in (".lora_A.weight", ".lora_embedding_A"):
            if name.endswith(ending):
                ranks[name.removeprefix("base_model.model.").removesuffix(ending)] = header.shape[0]
    return ranks


def problems(server: str, files: dict[str, str], base: ModelLock) -> list[str]:
    """Return why a server (`vllm`, `tgi`) would refuse an adapter, or serve another one than was measured."""
    config = json.loads(Path(files["adapter_config.json"]).read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA":
        return [f"it loads LoRA adapters only, and this one is {config.get('peft_type')}"]
    rules = _vllm_problems if server == "vllm" else _tgi_problems
    return _unlike_lora(config) + rules(adapted(files), base)


def _vllm_problems(ranks: dict[str, int], base: ModelLock) -> list[str]:
    """Return what vLLM refuses of an adapter's modules and ranks (vllm/lora/peft_helper.py)."""
    refusals = []
    if strange := sorted({module.rpartition(".")[2] for module in ranks if module not in base.modules}):
        refusals.append(f"it adapts linear layers inside blocks, not {', '.join(strange)}")
    if ranks and max(ranks.values()) > RANKS[-1]:
        refusals.append(f"its largest rank is {RANKS[-1]}, and this one has {max(ranks.values())}")
    return refusals


def _tgi_problems(ranks: dict[str, int], base: ModelLock) -> list[str]:
    """Return what TGI refuses, or leaves out, of an adapter's modules.

    It reads the two matrices of Llama's module names, and silently leaves a kind of module out where a layer lacks it
    (server/text_generation_server/adapters/lora.py, utils/adapter.py).
    """
    refusals = []
    layers = {int(match[1]) for name in base.modules if (match := _TGI_MODULE.fullmatch(name))}
    if strange := sorted({module.rpartition(".")[2] for module in ranks if not _TGI_MODULE.fullmatch(module)}):
        refusals.append(f"it adapts the projections of Llama's attention and MLP, not {', '.join(strange)}")
    kinds = grouped((match[2], int(match[1])) for module in ranks if (match := _TGI_MODULE.fullmatch(module)))
    if partial := sorted(kind for kind, adapted_layers in kinds.items() if set(adapted_layers) != layers):
        refusals.append(f"it ignores modules that are not adapted in every layer ({', '.join(partial)})")
    return refusals


def _unlike_lora(config: dict[str, Any]) -> list[str]:
    """Return what a loader of plain LoRA matrices refuses, or would leave out, by an adapter's configuration."""
    saved, patterns = config.get("modules_to_save") or (), ("rank_pattern", "alpha_pattern")
    biases = config.get("bias", "none") != "none" or config.get("lora_bias")
    one_scale = "it scales every module by one lora_alpha / r, and this one has rank_pattern or alpha_pattern"
    rules = (
        (config.get("use_dora"), "it does not support DoRA (use_dora)"),
        (config.get("use_bdlora"), "it expects whole matrices, and this one has blocks (use_bdlora)"),
        (biases, "it does not support trained biases (bias, lora_bias)"),
        (saved, f"it does not accept modules_to_save ({', '.join(saved)})"),
        (config.get("trainable_token_indices"), "it does not accept trained tokens (trainable_token_indices)"),
        (any(config.get(name) for name in patterns), one_scale),
    )
    return [refusal for applies, refusal in rules if applies]


def vllm_command(base: str, out: Path, whole: bool) -> str:
    """Return the command that serves an export: a whole model, or the base with the adapter next to it.

    :param base: a hub id or a directory
    """
    if whole:
        return f"vllm serve {shlex.quote(str(out))}"
    rank = max(adapted({"adapter_model.safetensors": str(out / "adapter_model.safetensors")}).values())
    least = next((value for value in RANKS if value >= rank), None)
    if least is None:
        raise LoraError(f"vLLM's largest rank is {RANKS[-1]}, and this adapter has {rank}.")
    raised = f" --max-lora-rank {least}" if least > _DEFAULT else ""
    module = shlex.quote(f"{out.resolve().name}={out}")
    return f"vllm serve {shlex.quote(base)} --enable-lora{raised} --lora-modules {module}"
