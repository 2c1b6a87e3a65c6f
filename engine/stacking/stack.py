"""Several LoRA adapters stacked over one base: each layer computes the base once, and each adapter on its own rows.

A and B of all adapters lie in two flat tensors with a leading K, padded with zeros to the largest rank at each module;
a module that an adapter leaves out is zero. Rows of A and columns of B that are zero get no gradient and no decay, so
they stay zero under AdamW, and a slice computes what its adapter alone would have computed.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from lorafile.engine.randomness import SeededDropout
from lorafile.engine.stacking.compatible import NotPackable

Matrices = dict[str, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Factors:
    """One LoRA as matrices; without any it is the bare base.

    :ivar matrices: path of a module in the bare base -> A [r, in] and B [out, r]
    :ivar scaling: path -> what the update is multiplied by
    :ivar dropout: share of what an adapter reads that is dropped while it trains
    :ivar generators: path -> what that layer's dropout is drawn from
    """

    matrices: Matrices = field(default_factory=dict)
    scaling: dict[str, float] = field(default_factory=dict)
    dropout: float = 0.0
    generators: dict[str, torch.Generator] = field(default_factory=dict)


def factors_of(model: Any) -> Factors:
    """Read the adapter of a PEFT model; its tensors are shared and not copied.

    :raises NotPackable: when it is more than two matrices for each of some layers
    """
    from peft.tuners.lora import LoraLayer

    bare = model.get_base_model()
    head, adapter = bare.get_output_embeddings(), str(model.active_adapter)
    matrices: Matrices = {}
    scaling: dict[str, float] = {}
    generators: dict[str, torch.Generator] = {}
    seen: set[int] = set()
    dropouts: set[float] = set()
    layers: list[tuple[str, Any]] = [(n, m) for n, m in bare.named_modules() if isinstance(m, LoraLayer)]
    for path, layer in layers:
        _check_plain(path, layer, adapter, head)
        a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
        seen |= {id(a), id(b)}
        matrices[path] = a.detach(), b.detach()
        scaling[path] = float(layer.scaling[adapter])
        dropout = layer.lora_dropout[adapter]
        dropouts.add(float(getattr(dropout, "p", 0.0)))
        if isinstance(dropout, SeededDropout):
            generators[path] = dropout.generator
    mark = f".{adapter}"
    others = [n for n, p in model.named_parameters() if (p.requires_grad or mark in n) and id(p) not in seen]
    if others or len(dropouts) != 1:
        raise NotPackable(f"the adapter has other kinds of parts: {', '.join(others[:3]) or 'its dropout differs'}")
    return Factors(matrices, scaling, dropouts.pop(), generators)


def _check_plain(path: str, layer: Any, adapter: str, head: Any) -> None:
    """Refuse a layer that computes anything but two products, or that sees other rows than its batch has."""
    if adapter not in layer.lora_A or layer.lora_variant or layer.lora_B[adapter].bias is not None:
        raise NotPackable(f"the adapter of {path} is not a pair of matrices")
    if "experts" in path.split("."):  # what one of them reads is no longer in the order of the batch
        raise NotPackable(f"{path} is an expert")
    if layer is head:  # it is given the supervised positions alone
        raise NotPackable(f"{path} is the head")


class Stack:
    """K adapters on one base, to be put in place with `attached`.

    :ivar rows: examples and tokens (b, t) of each slice within the padded batch [K·b, t]; set before a forward pass
        that trains, because dropout draws what each adapter alone would have drawn
    :ivar width: K
    """

    def __init__(self, model: nn.Module, members: list[Factors], trained: bool = False) -> None:
        self.width, self.rows = len(members), [(0, 0)] * len(members)
        self._model, self._members = model, members
        used = {path for member in members for path in member.matrices}
        self._paths = [path for path, _ in model.named_modules() if path in used]
        self._ranks = [{path: len(a) for path, (a, _) in member.matrices.items()} for member in members]
        self.flats: list[Flat] = []
        views: dict[tuple[str, int], tuple[nn.Parameter, torch.Tensor | None]] = {}
        for side in (0, 1):
            for device, paths in self._places(side).items():
                shapes = {path: self._shape(path, side) for path in paths}
                dtype = next(m.matrices[path][side].dtype for m in members for path in paths if path in m.matrices)
                self.flats.append(Flat(side, shapes, self.width, dtype, device, trained))
                views |= {(path, side): self.flats[-1].view(path) for path in paths}
        for number, member in enumerate(members):
            self.fill(number, [flat.values[number] for flat in self.flats], member.matrices)
        self.layers = {path: self._layer(path, views[path, 0], views[path, 1]) for path in self._paths}

    def _places(self, side: int) -> dict[torch.device, list[str]]:
        """Return the paths that lie on each device."""
        places: dict[torch.device, list[str]] = {}
        for path in self._paths:
            device = next(m.matrices[path][side].device for m in self._members if path in m.matrices)
            places.setdefault(device, []).append(path)
        return places

    def _shape(self, path: str, side: int) -> tuple[int, int]:
        """Return the size of a module's A or B at the largest of its ranks."""
        shapes = [tuple(m.matrices[path][side].shape) for m in self._members if path in m.matrices]
        rows, columns = (max(sizes) for sizes in zip(*shapes, strict=True))
        return rows, columns

    def _layer(
        self,
        path: str,
        a: tuple[nn.Parameter, torch.Tensor | None],
        b: tuple[nn.Parameter, torch.Tensor | None],
    ) -> "StackedLinear":
        scaling = torch.tensor([member.scaling.get(path, 0.0) for member in self._members], dtype=torch.float64)
        drawn = [(m.dropout, m.generators[path]) if path in m.generators else None for m in self._members]
        gradients = None if a[1] is None or b[1] is None else (a[1], b[1])
        return StackedLinear(self._model.get_submodule(path), a[0], b[0], scaling, drawn, self, gradients)

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Put the stack in place; the base is bare again afterwards."""
        places = [(self._model.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2]) for path in self.layers]
        try:
            for (parent, name), layer in zip(places, self.layers.values(), strict=True):
                setattr(parent, name, layer)
            yield
        finally:
            for (parent, name), layer in zip(places, self.layers.values(), strict=True):
                setattr(parent, name, layer.base_layer)

    def row(self, number: int) -> "Row":
        """Return one adapter's parameters, with their gradients in place."""
        return Row(*([flat.row(number) for flat in self.flats if flat.side == side] for side in (0, 1)))

    def paths(self, number: int) -> list[str]:
        """Return the modules that one adapter adapts, in the model's order."""
        return list(self._ranks[number])

    def zero_grad(self) -> None:
        """Forget the gradients; they stay where they are."""
        for flat in self.flats:
            if flat.gradients is not None:
                flat.gradients.zero_()

    def cut(self, number: int, flat: list[torch.Tensor]) -> Matrices:
        """Return what stands for one adapter in flat tensors, without the padding; views where that is possible.

        :param flat: a tensor of P elements for each of `flats`: the adapter's values, or their moments
        """
        sides: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] = {}, {}
        for place, values in zip(self.flats, flat, strict=True):
            for path, rank in self._ranks[number].items():
                if path in place.shapes:
                    whole = place.part(path, values)
                    sides[place.side][path] = whole[:rank] if place.side == 0 else whole[:, :rank]
        return {path: (sides[0][path], sides[1][path]) for path in self._ranks[number]}

    def fill(self, number: int, flat: list[torch.Tensor], matrices: Matrices) -> None:
        """Write one adapter's matrices into flat tensors, the other way round."""
        with torch.no_grad():
            for path, pair in self.cut(number, flat).items():
                for place, given in zip(pair, matrices[path], strict=True):
                    place.copy_(given)


class StackedLinear(nn.Module):
    """W x + s_k B_k A_k drop(x_k) for each slice k of a batch, in the types that PEFT's own layers compute in.

    :ivar a: [K, r, in]; `b`: [K, out, r]
    :ivar scaling: [K, 1, 1]
    :ivar gradients: where those of A and B are added, of the same sizes
    :ivar drawn: the dropout of each adapter and what it is drawn from; None where it has none at this layer
    """

    def __init__(
        self,
        base_layer: nn.Module,
        a: nn.Parameter,
        b: nn.Parameter,
        scaling: torch.Tensor,
        drawn: Sequence[tuple[float, torch.Generator] | None],
        stack: "Stack",
        gradients: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.base_layer, self.a, self.b, self.drawn, self._stack = base_layer, a, b, drawn, stack
        self.gradients = gradients
        self.scaling = scaling[:, None, None].to(a)
        # PEFT computes over bitsandbytes and HQQ in what autocast says, and casts to the type of a bitsandbytes layer
        # before it adds.
        library = type(base_layer).__module__.partition(".")[0]
        self._as_autocast, self._cast_first = library in ("bitsandbytes", "hqq"), library == "bitsandbytes"
        self.training = base_layer.training

    @property
    def weight(self) -> Any:
        """The base's weight, which some models look at."""
        return self.base_layer.weight

    @property
    def bias(self) -> Any:
        """The base's bias."""
        return self.base_layer.bias

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the layer's output for rows [K·b, t, in] or [K·b·t, in], of which each adapter has its own K-th."""
        result: torch.Tensor = self.base_layer(x, *args, **kwargs)
        dtype, device = result.dtype, x.device.type
        if not (self._as_autocast and torch.is_autocast_enabled()):
            x = x.to(self.a.dtype)
        x = self._dropped(x.reshape(self._stack.width, -1, x.shape[-1]))
        x = x.to(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.a.dtype)
        flat = result.reshape(*x.shape[:2], -1) if dtype == x.dtype else None
        update = _updated(flat, x, self.a, self.b, self.scaling, self.gradients).view_as(result)
        if flat is not None:
            return update
        if self._cast_first:
            update = update.to(dtype)
        return (result + update).to(dtype)

    def _dropped(self, x: torch.Tensor) -> torch.Tensor:
        """Drop from each slice [n, in] what its adapter's own generator draws for its own rows, without the padding."""
        if not self.training or not any(self.drawn):
            return x
        rows = self._stack.rows
        longest = max(tokens for _, tokens in rows)
        keep = torch.ones_like(x)
        for slices, (examples, tokens), drawn in zip(keep, rows, self.drawn, strict=True):
            if drawn is None or not examples:
                continue
            share, generator = drawn
            part = slices.view(-1, longest, x.shape[-1])[:examples, :tokens]
            part.copy_(
                torch.empty(part.shape, dtype=x.dtype, device=x.device).bernoulli_(1 - share, generator=generator)
            )
            part.div_(1 - share)
        return x * keep


class _Update(torch.autograd.Function):
    """result + (s x Aᵀ) Bᵀ for each slice; gradients of A and B are added where they belong, without a copy."""

    @staticmethod
    def forward(
        ctx: Any,
        result: torch.Tensor | None,
        x: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: torch.Tensor,
        gradients: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        """Compute in the type of x [K, n, in]; the result, where there is one, has it, too."""
        with torch.autocast(x.device.type, enabled=False):
            hidden, output = _products(result, x, a, b, scaling)
        ctx.save_for_backward(x, hidden, a, b, scaling)
        ctx.gradients = gradients
        return output

    @staticmethod
    def backward(ctx: Any, *outward: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Add to the gradients of A and B; return those of the result and of x."""
        (above,) = outward
        x, hidden, a, b, scaling = ctx.saved_tensors
        within = (torch.bmm(above, b.to(x.dtype)) * scaling).to(x.dtype)
        if ctx.gradients is not None:
            _add_product(ctx.gradients[0], within, x)
            _add_product(ctx.gradients[1], above, hidden)
        below = torch.bmm(within, a.to(x.dtype)) if ctx.needs_input_grad[1] else None
        return above if ctx.needs_input_grad[0] else None, below, None, None, None, None


def _products(
    result: torch.Tensor | None, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return s x Aᵀ, and the result with (s x Aᵀ) Bᵀ added to it."""
    hidden = (torch.bmm(x, a.to(x.dtype).transpose(1, 2)) * scaling).to(x.dtype)
    last = b.to(x.dtype).transpose(1, 2)
    return hidden, torch.bmm(hidden, last) if result is None else torch.baddbmm(result, hidden, last)


def _updated(result: torch.Tensor | None, x: torch.Tensor, *rest: Any) -> torch.Tensor:
    if not (torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type)):
        return _products(result, x, *rest[:3])[1]  # small steps of answers would wait for autograd's bookkeeping
    output: torch.Tensor = _Update.apply(result, x, *rest)  # type: ignore[no-untyped-call]
    return output


def _add_product(to: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add leftᵀ right to a part of the flat gradients."""
    if to.dtype == right.dtype:
        to.baddbmm_(left.transpose(1, 2), right)
    else:
        to.add_(torch.bmm(left.transpose(1, 2), right))


class Flat:
    """A or B of all adapters on one device.

    :ivar values: [K, P], and `gradients` of the same size where it is trained
    :ivar shapes: path -> size of the module's matrix, in the order in which they lie one after another
    """

    def __init__(
        self,
        side: int,
        shapes: dict[str, tuple[int, int]],
        width: int,
        dtype: torch.dtype,
        device: torch.device,
        trained: bool,
    ) -> None:
        self.side, self.shapes = side, shapes
        *begins, total = accumulate((rows * columns for rows, columns in shapes.values()), initial=0)
        self._begins = dict(zip(shapes, begins, strict=True))
        self.values = torch.zeros(width, total, dtype=dtype, device=device)
        self.gradients = torch.zeros_like(self.values) if trained else None

    def part(self, path: str, values: torch.Tensor) -> torch.Tensor:
        """Return a module's matrix within [..., P]."""
        rows, columns = self.shapes[path]
        begin = self._begins[path]
        return values.narrow(-1, begin, rows * columns).view(*values.shape[:-1], rows, columns)

    def view(self, path: str) -> tuple[nn.Parameter, torch.Tensor | None]:
        """Return a module's matrices [K, rows, columns], and where their gradients are added."""
        gradients = None if self.gradients is None else self.part(path, self.gradients)
        return nn.Parameter(self.part(path, self.values), requires_grad=gradients is not None), gradients

    def row(self, number: int) -> nn.Parameter:
        """Return one adapter's parameters [1, P]: two dimensions, as the matrices have that weight decay is for."""
        parameter = nn.Parameter(self.values[number, None], requires_grad=self.gradients is not None)
        if self.gradients is not None:
            parameter.grad = self.gradients[number, None]
        return parameter


class Row(nn.Module):
    """One adapter's A and B, under names by which PEFT's optimizers tell them apart."""

    def __init__(self, a: list[nn.Parameter], b: list[nn.Parameter]) -> None:
        super().__init__()
        self.lora_A, self.lora_B = nn.ParameterList(a), nn.ParameterList(b)
