"""How many parameters a method trains, counted from the lock alone as PEFT counts them; and at which rank so many."""

from bisect import bisect_left
from functools import cache
from math import ceil, isqrt, prod
from types import CodeType
from typing import Any

from lorafile.graph.target_modules import adapted_modules, layer_count, of_pattern
from lorafile.lock.lockfile import ModelLock
from lorafile.specs.configurations import as_integer
from lorafile.specs.snapshot import snapshot
from lorafile.specs.tables.methods import METHODS

Adapter = dict[str, Any]
_FIXED_A = "fixed_A"  # no setting of PEFT
_LARGEST = 2**20  # rank of a LoRA
_ROUNDED = 16  # ranks next to the one that is found, among which rounding may have put a better one


def adapter_parameters(adapter: Adapter, model: ModelLock) -> int:
    """Return the trainable parameters of a method on a model without its head; all of them for `full`."""
    method = adapter["method"]
    if method == "full":
        return model.parameters
    if method in ("head", "none"):
        return 0
    formulas = METHODS[method].parameters
    if "whole" in formulas:
        return _computed(formulas["whole"], _Settings(adapter, **_sizes(model)))
    if method == "ln_tuning":
        return sum(
            prod(shape)
            for name, shape in model.tensors.items()
            if any(f".{name.rpartition('.')[0]}".endswith(f".{target}") for target in adapter["target_modules"])
        )
    modules = adapted_modules(adapter, model.modules)
    count = sum(_module(adapter, module, model) for module in modules)
    if "shared" in formulas:
        count += _computed(formulas["shared"], _Settings(adapter, layers=len(modules)))
    count += sum(_expert(adapter, shape) for name, shape in model.experts.items() if _is_target(adapter, name))
    return count + _biases(adapter, modules, model) + _saved(adapter, model) + _tokens(adapter, model)


def possible_ranks(adapter: Adapter, model: ModelLock) -> range:
    """Return the ranks that a method can have; without a limit for LoRA, else up to what its smallest layer holds."""
    method = METHODS[adapter["method"]]
    step = rank_step(adapter)
    shapes = [model.modules[module] for module in adapted_modules(adapter, model.modules)]
    limit = min((out * into // (out + into) for out, into in shapes), default=1)
    return range(step, max(step, _LARGEST if method.second_matrix else limit) + 1, step)


def solved_rank(adapter: Adapter, model: ModelLock, wanted: int) -> int:
    """Return the rank at which an adapter's parameters come nearest to a number; of two the smaller.

    They grow with the rank, or fall with it as RandLoRA's do, apart from steps where PEFT rounds; or else all ranks
    are looked at.
    """
    method = METHODS[adapter["method"]]
    name = method.rank

    def count(rank: int) -> int:
        return adapter_parameters(adapter | {name: rank}, model)

    ranks = possible_ranks(adapter, model)
    sign = 1 if count(ranks[-1]) >= count(ranks[0]) else -1
    if count(ranks[-1]) == count(ranks[0]):  # every module has a rank of its own by `rank_pattern`
        return int(adapter[name])
    if method.jumps:
        return min(ranks, key=lambda rank: (abs(count(rank) - wanted), rank))
    place = bisect_left(ranks, sign * wanted, key=lambda rank: sign * count(rank))
    near = ranks[max(0, place - _ROUNDED) : place + _ROUNDED]
    return min(near, key=lambda rank: (abs(count(rank) - wanted), rank))


def matched(adapter: Adapter, model: ModelLock, wanted: int, alpha_of_rank: float | None) -> Adapter:
    """Return an adapter's settings at its solved rank, with the alpha that follows it."""
    rank, method = solved_rank(adapter, model, wanted), METHODS[adapter["method"]]
    if alpha_of_rank is None:
        return adapter | {method.rank: rank}
    return adapter | {method.rank: rank, method.alpha: as_integer(alpha_of_rank * rank)}


def rank_step(adapter: Adapter) -> int:
    """Return what the rank of a method has to be a multiple of."""
    formula = METHODS[adapter["method"]].parameters.get("rank_step")
    return _computed(formula, _Settings(adapter)) if formula else 1


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


class _Settings(dict[str, Any]):
    """What a formula may name: an adapter's settings, PEFT's default of each that its section leaves out, and sizes."""

    def __init__(self, adapter: Adapter, **sizes: int | bool) -> None:
        super().__init__(adapter, **sizes)
        self._rows = snapshot()[METHODS[adapter["method"]].config]

    def __missing__(self, name: str) -> Any:
        return self._rows[name]["default"]


def _computed(formula: str, names: _Settings) -> int:
    """Return the value of a formula of methods.toml."""
    return int(eval(_compiled(formula), _FUNCTIONS, names))  # noqa: S307 (the package's own text)


@cache
def _compiled(formula: str) -> CodeType:
    return compile(f"({formula})", "methods.toml", "eval")


def _module(adapter: Adapter, module: str, model: ModelLock) -> int:
    """Return what a method trains for one linear layer that maps `into` features to `out`."""
    out, into = model.modules[module]
    inner = any(module.endswith(name) for name in adapter.get("feedforward_modules", []))
    names = _Settings(adapter, out=out, into=into, inner=inner, biased=f"{module}.bias" in model.tensors)
    if "rank_pattern" in adapter:
        names["r"] = of_pattern(adapter["rank_pattern"], module, adapter["r"])
    if adapter.get(_FIXED_A):
        return int(names["r"]) * out
    if blocks := adapter.get("use_bdlora"):
        return _blocks(blocks, int(names["r"]), module, out, into)
    return _computed(METHODS[adapter["method"]].parameters["layer"], names)


def _sizes(model: ModelLock) -> dict[str, int]:
    """Return the sizes of a model that formulas name: its width, and how many keys of a token each layer has."""
    settings = model.settings.get("text_config") or model.settings
    width, heads = _width(model), settings.get("num_attention_heads") or settings.get("n_head") or 1
    size = settings.get("head_dim") or width // heads
    blocks = layer_count(model.modules)
    return {"width": width, "keys": size * (settings.get("num_key_value_heads") or heads), "blocks": blocks}


def _nearest_divisor(number: int, wanted: int) -> int:
    """Return the divisor that PEFT takes in the place of an OFT block size: the nearest, of two the smaller."""
    if wanted >= number:
        return number
    return min((size for size in range(1, number + 1) if number % size == 0), key=lambda s: (abs(s - wanted), s))


def _groups(layers: int, tying: float) -> int:
    """Return how many groups of layers share a vector of TinyLoRA, as PEFT divides them."""
    groups = max(1, round(layers * (1 - tying)))
    size = max(1, layers // groups)
    return len({min(layer // size, groups - 1) for layer in range(layers)})


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


def _lokr(rank: int, out: int, into: int, factor: int, both: bool) -> int:
    """Return the size of two Kronecker factors; each is a product of two thin matrices where that is smaller."""
    (rows, rows2), (columns, columns2) = factors(out, factor), factors(into, factor)
    whole = not (both and rank < max(rows, columns) / 2)
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


_FUNCTIONS = {
    **{"__builtins__": {}, "min": min, "max": max, "int": int, "len": len, "set": set, "ceil": ceil},
    **{"lokr": _lokr, "nearest_divisor": _nearest_divisor, "groups": _groups},
}


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
