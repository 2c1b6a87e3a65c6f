"""Target words such as `attention` resolved to the layers and module names that PEFT takes.

A preset cannot know how many layers a model has, nor what they are called; these pure functions tell, from the model's
inventory: dotted module name -> weight shape of each linear layer, without embeddings and output head.
"""

from collections.abc import Callable, Iterable
from typing import get_args

from lorafile.errors import ModelError
from lorafile.specs.bounded_regex import matches
from lorafile.specs.error_messages import show, suggestion
from lorafile.specs.values import LayerWord

Inventory = dict[str, list[int]]

_THIRDS = get_args(LayerWord)[:3]
_ATTENTION = ("attn", "attention")
_MLP = ("mlp", "ffn", "feed_forward", "feedforward", "moe", "densereludense")
_MLP_LEAVES = ("fc1", "fc2")  # OPT keeps its feed-forward layers next to the attention, without a module around them
_MLP_ENDS = ("intermediate.dense", "output.dense")  # so do BERT and its kin


def layer_indexes(word: str, layers: int) -> list[int]:
    """Return the layers, from 0, that a layer word stands for.

    The thirds are contiguous and cover every layer once; where 3 does not divide the number, first and last third are
    of equal size. Below three layers a third may be empty, which PEFT would read as "every layer": refuse it.
    """
    if word == "alternate":
        return list(range(0, layers, 2))
    third = _THIRDS.index(word)
    first, end = ((2 * part * layers + 3) // 6 for part in (third, third + 1))  # rounded, not cut
    return list(range(first, end))


def target_names(
    targets: str | list[str],
    inventory: Inventory,
    setting: str = "lora.target_modules",
    kind: str = "linear layer",
    reserved: Iterable[str] = (),
) -> list[str]:
    """Return the shortest names by which PEFT finds exactly the wanted modules, sorted.

    Two ways to write the same modules give the same names, so they are the same adapter. PEFT takes a name for every
    module that is called so or whose path ends with it: the last part where that is enough, else with what stands
    before it (GPT-2: `attn.c_proj`).

    :param targets: `attention`, `mlp`, `all-linear`; a list of these and of names or path endings; any other text is a
        regular expression that has to match a whole path, as in PEFT
    :param setting: where the targets are named, `kind`: what the inventory holds; both for messages
    :param reserved: other modules of the model, which no name may find: PEFT looks at all of them
    :raises ModelError: when something of it is nowhere in the model
    """
    return shortest_names(target_modules(targets, inventory, setting, kind), [*inventory, *reserved])


def target_modules(
    targets: str | list[str], inventory: Inventory, setting: str = "lora.target_modules", kind: str = "linear layer"
) -> set[str]:
    """Return the whole names of the modules that targets stand for; as `target_names`."""
    try:
        if isinstance(targets, str):
            return _group(targets, inventory) if targets in _GROUPS else _matching(targets, inventory)
        parts = [_group(name, inventory) if name in _GROUPS else _named(name, inventory, kind) for name in targets]
        return set().union(*parts)
    except LookupError as error:
        raise _unknown(str(error.args[0]), inventory, setting, kind) from error


def shortest_names(modules: set[str], inventory: Iterable[str]) -> list[str]:
    """Return the shortest path endings that some modules have and no other module of the inventory has."""
    taken = {ending for module in inventory if module not in modules for ending in _endings(module)}
    return sorted({next(ending for ending in _endings(module) if ending not in taken) for module in modules})


def is_attention(module: str) -> bool:
    """Return whether a linear layer belongs to an attention block."""
    return any(word in part for part in module.lower().split(".") for word in _ATTENTION)


def is_mlp(module: str) -> bool:
    """Return whether a linear layer belongs to a feed-forward block."""
    parts = module.lower().split(".")
    return not is_attention(module) and (
        parts[-1] in _MLP_LEAVES
        or ".".join(parts[-2:]) in _MLP_ENDS
        or any(word in part for part in parts for word in _MLP)
    )


_GROUPS: dict[str, Callable[[str], bool]] = {"attention": is_attention, "mlp": is_mlp, "all-linear": lambda _: True}


def _endings(module: str) -> list[str]:
    """Return `proj`, `attn.proj`, `0.attn.proj`, …: what PEFT finds a module by, the shortest first."""
    parts = module.split(".")
    return [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]


def _group(word: str, inventory: Inventory) -> set[str]:
    modules = {module for module in inventory if _GROUPS[word](module)}
    if not modules:
        raise LookupError(f'"{word}" matches nothing in this model')
    return modules


def _named(name: str, inventory: Inventory, kind: str) -> set[str]:
    modules = {module for module in inventory if module == name or module.endswith(f".{name}")}
    if not modules:
        close = suggestion(name, [*leaves(inventory), *_GROUPS])
        raise LookupError(f"no {kind} of the model is named {show(name)}{close}")
    return modules


def _matching(pattern: str, inventory: Inventory) -> set[str]:
    try:
        matched = matches(pattern, tuple(inventory))
    except ValueError as error:
        raise LookupError(f"{show(pattern)} {error}") from error
    if any(matched):
        return {module for module, match in zip(inventory, matched, strict=True) if match}
    if any(module.endswith(f".{pattern}") for module in inventory):
        hint = f'; write ["{pattern}"] for the modules with that name'
    else:
        hint = suggestion(pattern, [*_GROUPS, *leaves(inventory)])
    words = ", ".join(_GROUPS)
    raise LookupError(
        f"{show(pattern)} is not one of {words}, and as a regular expression it matches no full path{hint}"
    )


def _unknown(message: str, inventory: Inventory, setting: str, kind: str) -> ModelError:
    names = leaves(inventory)
    listed = ", ".join(names[:24]) + (", …" if len(names) > 24 else "") if names else "none"
    end = "" if message.endswith("?") else "."
    return ModelError(f"{setting}: {message}{end} The model's {kind}s: {listed}.")


def leaves(inventory: Iterable[str]) -> list[str]:
    """Return the last parts of a model's module names: what one may list in `target_modules`."""
    return sorted({module.rsplit(".", 1)[-1] for module in inventory})
