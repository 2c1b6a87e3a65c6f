"""How many parameters a method trains, counted from the lock alone: what PEFT says of the same settings."""

from math import isqrt, prod
from typing import Any

from lorafile.graph.target_modules import adapted_modules, of_pattern
from lorafile.lock.lockfile import ModelLock

Adapter = dict[str, Any]
_FIXED_A = "fixed_A"  # no setting of PEFT


def adapter_parameters(adapter: Adapter, model: ModelLock) -> int:
    """Return the trainable parameters of a method on a model without its head; all of them for `full`."""
    method = adapter["method"]
    if method == "full":
        return model.parameters
    if method in ("head", "none"):
        return 0
    if method == "prompt_tuning":
        return int(adapter["num_virtual_tokens"]) * _width(model)
    if method == "ln_tuning":
        return sum(
            prod(shape)
            for name, shape in model.tensors.items()
            if any(f".{name.rpartition('.')[0]}".endswith(f".{target}") for target in adapter["target_modules"])
        )
    modules = adapted_modules(adapter, model.modules)
    count = sum(_module(adapter, module, *model.modules[module]) for module in modules)
    count += sum(_expert(adapter, shape) for name, shape in model.experts.items() if _is_target(adapter, name))
    return count + _biases(adapter, modules, model) + _saved(adapter, model) + _tokens(adapter, model)


def trained_parameters(sections: dict[str, Any], model: ModelLock) -> int:
    """Return all that a configuration trains by its sections: a method's parameters, and those of a new head."""
    adapter, head = sections["adapter"], sections["model"]
    outputs = head.get("num_labels") or len(head.get("labels", ()))
    return adapter_parameters(adapter, model) + (head_parameters(model, outputs) if adapter["method"] != "none" else 0)


def trained_adapter(sections: dict[str, Any]) -> Adapter:
    """Return the section of an adapter, with what its optimizer leaves as it is: LoRA-FA does not train A."""
    adapter: Adapter = sections["adapter"]
    fixed = (sections.get("training") or {}).get("optim") == "lorafa"
    return adapter | ({_FIXED_A: True} if fixed else {})


def head_parameters(model: ModelLock, outputs: int) -> int:
    """Return the parameters of a classification head for so many classes, or for one number."""
    return sum(prod(size or outputs for size in shape) for shape in model.head.values())


def _module(adapter: Adapter, module: str, out: int, into: int) -> int:
    """Return what a method trains for one linear layer that maps `into` features to `out`."""
    method = adapter["method"]
    if method == "ia3":
        inner = any(module.endswith(name) for name in adapter.get("feedforward_modules", []))
        return into if inner else out
    if method == "vera":
        return int(adapter["r"]) + out
    if method == "adalora":
        return int(adapter["init_r"]) * (out + into + 1)
    rank = int(of_pattern(adapter.get("rank_pattern", {}), module, adapter["r"]))
    if method == "loha":
        return 2 * rank * (out + into)
    if method == "lokr":
        return _lokr(adapter, rank, out, into)
    if adapter.get("init_lora_weights") == "mica":
        return rank * into
    if adapter.get(_FIXED_A):
        return rank * out
    if blocks := adapter.get("use_bdlora"):
        return _blocks(blocks, rank, module, out, into)
    extra = (out if adapter.get("use_dora") else 0) + (out if adapter.get("lora_bias") else 0)
    return rank * (out + into) + extra


def _blocks(settings: dict[str, Any], rank: int, module: str, out: int, into: int) -> int:
    """Return the size of A and B, of which one may consist of blocks on its diagonal (BD-LoRA)."""
    in_a, in_b = (
        any(text in module for text in settings.get(f"target_modules_bd_{side}") or []) for side in ("a", "b")
    )
    blocks = int(settings["nblocks"])
    return rank * into // (blocks if in_a else 1) + rank * out // (blocks if in_b else 1)


def _is_target(adapter: Adapter, parameter: str) -> bool:
    return any(f".{parameter}".endswith(f".{name}") for name in adapter.get("target_parameters", ()))


def _expert(adapter: Adapter, shape: list[int]) -> int:
    """Return what LoRA trains for a parameter [experts, in, out] that holds a matrix for each expert."""
    experts, into, out = shape
    return experts * int(adapter["r"]) * (into + out)


def _lokr(adapter: Adapter, rank: int, out: int, into: int) -> int:
    """Return the size of two Kronecker factors; each is a product of two thin matrices where that is smaller."""
    factor = adapter.get("decompose_factor", -1)
    (rows, rows2), (columns, columns2) = factors(out, factor), factors(into, factor)
    whole = not (adapter.get("decompose_both") and rank < max(rows, columns) / 2)
    left = rows * columns if whole else rank * (rows + columns)
    right = rank * (rows2 + columns2) if rank < max(rows2, columns2) / 2 else rows2 * columns2
    return left + right


def factors(dimension: int, factor: int = -1) -> tuple[int, int]:
    """Return two factors of a dimension: first `factor` where it divides, else the largest divisor up to it and √d.

    LyCORIS' rule, as PEFT follows it; -1 asks for factors as even as possible.
    """
    if factor > 0 and dimension % factor == 0:
        return factor, dimension // factor
    most = isqrt(dimension) if factor < 0 else min(factor, isqrt(dimension))
    least = next(number for number in range(most, 0, -1) if dimension % number == 0)
    return least, dimension // least


def _biases(adapter: Adapter, modules: list[str], model: ModelLock) -> int:
    which = adapter.get("bias", "none")
    if which == "none":
        return 0
    own = {f"{module}.bias" for module in modules}
    biases = {name: shape for name, shape in model.tensors.items() if name.endswith("bias")}
    return sum(prod(shape) for name, shape in biases.items() if which == "all" or name in own)


def _saved(adapter: Adapter, model: ModelLock) -> int:
    """Return the size of the modules that are trained whole; a head that is tied to the embedding has its size."""
    shapes = model.tensors | {f"{name}.weight": shape for name, shape in model.modules.items()}
    total = 0
    for module in adapter.get("modules_to_save", []):
        saved = [shape for name, shape in shapes.items() if f".{name}".rpartition(".")[0].find(f".{module}.") >= 0]
        saved += [shape for name, shape in shapes.items() if f".{name}".rpartition(".")[0].endswith(f".{module}")]
        if not saved and module == "lm_head":
            saved = [_embedding(model)]
        total += sum(prod(shape) for shape in saved)
    return total


def _tokens(adapter: Adapter, model: ModelLock) -> int:
    given = adapter.get("trainable_token_indices", [])
    rows = given.values() if isinstance(given, dict) else [given]
    return sum(len(set(row)) for row in rows) * _width(model)


def _embedding(model: ModelLock) -> list[int]:
    """Return the shape of the input embedding: the matrix outside the blocks that has a row for each token."""
    text = model.settings.get("text_config") or model.settings
    rows = text.get("vocab_size")
    matrices = [shape for name, shape in model.tensors.items() if len(shape) == 2 and "head" not in name]
    return next((shape for shape in matrices if shape[0] == rows), matrices[0] if matrices else [0, 0])


def _width(model: ModelLock) -> int:
    return _embedding(model)[1]
