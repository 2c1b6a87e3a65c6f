"""Which layers a model's forward pass calls: an adapter sits around a layer's call, and on any other it does nothing.

Some models read the weight of a layer instead (the time step of a Mamba), or have layers for what they do not do here.
"""

import inspect
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_LENGTH = 8  # tokens
_LENT = re.compile(r"\bself\.(\w+)\.weight\s*[,)]")
_BEGINNINGS = ("__init__", "_init_weights", "reset_parameters")  # methods that may write weights


class _NoValues(TorchDispatchMode):
    """Answers what a forward pass asks about values, of which the meta device has none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return True
        return func(*args, **(kwargs or {}))


def uncalled_layers(model: Any, names: Iterable[str], quantized: bool = False) -> list[str]:
    """Return which of some layers the forward pass of a model over one text never calls.

    Nothing where the meta device cannot tell: there a layer counts as called.

    :param model: on the meta device; it is spoiled
    :param quantized: as a quantized base, which some models compute in another way
    """
    called: set[str] = set()
    names = list(names)
    for name in names:
        model.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: called.add(name))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 3 and "experts" in name.split("."):  # which rows one gets depends on values
            model.get_submodule(name.rpartition(".")[0]).forward = lambda states, *_, **__: states
    if quantized:
        model.config._is_quantized = True
    ids = torch.zeros(1, _LENGTH, dtype=torch.int64, device="meta")
    try:
        with _NoValues(), torch.no_grad():  # type: ignore[no-untyped-call]
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except Exception:  # a model may do anything with its values
        return []
    return [name for name in names if name not in called]


def lent_layers(model: Any, names: Iterable[str]) -> list[str]:
    """Return which of some layers a model calls on one device, and on another only lends their weight to a kernel.

    It stands in the source of the module that holds them: `kernel(…, self.out_proj.weight, …)`.
    """
    lent: dict[type, set[str]] = {}
    chosen = []
    for name in names:
        holder, _, leaf = name.rpartition(".")
        kind = type(model.get_submodule(holder))
        if kind not in lent:
            lent[kind] = _lent_by(kind)
        chosen += [name] if leaf in lent[kind] else []
    return chosen


def _lent_by(kind: type) -> set[str]:
    """Return the names of the layers of which a module's class hands on the whole weight."""
    methods = [method for name, method in vars(kind).items() if inspect.isfunction(method) and name not in _BEGINNINGS]
    lent: set[str] = set()
    for method in methods:
        try:
            lent |= set(_LENT.findall(inspect.getsource(method)))
        except (OSError, TypeError):  # a class without a file
            continue
    return lent
