"""What vLLM and TGI accept of an adapter, without either: their loaders' own rules, and the command that serves it."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

from lorafile.errors import LoraError
from lorafile.lock.lockfile import ModelLock
from lorafile.lock.weights import headers

# vllm/config/lora.py: the only values that --max-lora-rank takes; it is 16 unless it is raised.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_DEFAULT = 16
_TGI_MODULE = re.compile(r"model\.layers\.(\d+)\.(self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)")


def adapted(files: dict[str, str]) -> dict[str, int]:
    """Return module -> stored rank of a LoRA's matrices, from the header of its file alone."""
    found = {}
    for name, header in headers(Path(files["adapter_model.safetensors"])).items():
        for ending in (".lora_A.weight", ".lora_embedding_A"):
            if name.endswith(ending):
                found[name.removeprefix("base_model.model.").removesuffix(ending)] = header.shape[0]
    return found


def problems(server: str, files: dict[str, str], base: ModelLock) -> list[str]:
    """Return why a server (`vllm`, `tgi`) would refuse an adapter, or serve another one than was measured."""
    return vllm_problems(files, base) if server == "vllm" else tgi_problems(files, base)


def vllm_problems(files: dict[str, str], base: ModelLock) -> list[str]:
    """Return why vLLM would refuse an adapter, or serve another one than was measured (vllm/lora/peft_helper.py)."""
    config = json.loads(Path(files["adapter_config.json"]).read_text(encoding="utf-8"))
    found = _unlike_lora(config)
    if config.get("peft_type") != "LORA":
        return found
    ranks = adapted(files)
    strange = sorted({module.rpartition(".")[2] for module in ranks if module not in base.modules})
    if strange:
        found.append(f"it adapts linear layers inside blocks, not {', '.join(strange)}")
    if ranks and max(ranks.values()) > RANKS[-1]:
        found.append(f"its largest rank is {RANKS[-1]}, and this one has {max(ranks.values())}")
    return found


def tgi_problems(files: dict[str, str], base: ModelLock) -> list[str]:
    """Return why TGI would refuse an adapter, or serve another one than was measured.

    It reads the two matrices of Llama's module names, and silently leaves a kind of module out where a layer lacks it
    (server/text_generation_server/adapters/lora.py, utils/adapter.py).
    """
    config = json.loads(Path(files["adapter_config.json"]).read_text(encoding="utf-8"))
    found = _unlike_lora(config)
    if config.get("peft_type") != "LORA":
        return found
    layers = {int(match[1]) for name in base.modules if (match := _TGI_MODULE.fullmatch(name))}
    ranks, kinds = adapted(files), dict[str, set[int]]()
    strange = sorted({module.rpartition(".")[2] for module in ranks if not _TGI_MODULE.fullmatch(module)})
    if strange:
        found.append(f"it adapts the projections of Llama's attention and MLP, not {', '.join(strange)}")
    for match in map(_TGI_MODULE.fullmatch, ranks):
        if match:
            kinds.setdefault(match[2], set()).add(int(match[1]))
    if partial := sorted(kind for kind, among in kinds.items() if among != layers):
        found.append(f"it leaves out what not every layer has ({', '.join(partial)})")
    return found


def _unlike_lora(config: dict[str, Any]) -> list[str]:
    """Return what a loader of plain LoRA matrices refuses, or would leave out, by an adapter's configuration."""
    if config.get("peft_type") != "LORA":
        return [f"it loads LoRA adapters, and this one is {config.get('peft_type')}"]
    found = []
    if config.get("use_dora"):
        found.append("it does not support DoRA (use_dora)")
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        found.append("it does not support trained biases (bias, lora_bias)")
    if config.get("modules_to_save"):
        found.append(f"it accepts no modules_to_save ({', '.join(config['modules_to_save'])})")
    if config.get("trainable_token_indices"):
        found.append("it accepts no trained tokens (trainable_token_indices)")
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        found.append("it scales every module by one lora_alpha / r, and this one has rank_pattern or alpha_pattern")
    return found


def vllm_command(base: str, out: Path, whole: bool) -> str:
    """Return the command that serves an export: a whole model, or the base with the adapter beside it.

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
