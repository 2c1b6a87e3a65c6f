"""`train` of several adapters together: one forward pass of their base, each adapter on its own rows."""

import time
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from lorafile.engine.batching.batches import Batch, join_batches
from lorafile.engine.batching.tokens import Blocks, Tokens, training_units
from lorafile.engine.model.adapters import autocast, checkpointed, new_adapter
from lorafile.engine.model.base import Base, Bases
from lorafile.engine.model.head import load_tokens
from lorafile.engine.model.loss import cross_entropies, supervised_logits
from lorafile.engine.nodes.train import total_steps
from lorafile.engine.packing.member import Member
from lorafile.engine.randomness import seeded
from lorafile.engine.request import STOPPED, Report, Request, Result, Stopped
from lorafile.engine.stacking.compatible import NotPackable
from lorafile.engine.stacking.stack import Stack, factors_of
from lorafile.engine.training.checkpoint import frozen_sums
from lorafile.engine.training.recorder import RunRecorder, record_run


def train_together(requests: list[Request], outs: list[Path], bases: Bases, reports: list[Report]) -> list[Result]:
    """Train adapters of one training class together, each as it would be trained alone, up to rounding.

    A run that diverged or has no steps left leaves; the others go on. Where one is asked to stop, all are, and each can
    go on from there, together or alone.

    :raises NotPackable: when it turns out that they have to be trained one by one; nothing was trained then
    """
    with ExitStack() as stack:
        recorders = [stack.enter_context(record_run(*pair)) for pair in zip(requests, reports, strict=True)]
        with bases.proven(requests[0].settings, requests[0].paths) as base:
            try:
                return _Pack(base, requests, outs, recorders).train()
            except NotPackable as found:
                refusal = found
        raise refusal  # out here, so that the base need not be loaded again


class _Pack:
    """Runs that share a base."""

    def __init__(self, base: Base, requests: list[Request], outs: list[Path], recorders: list[RunRecorder]) -> None:
        documents = load_tokens(requests[0], "train")
        tokens, self._unpacked = training_units(documents, base.model)
        check_batch_independence(base.model, tokens)
        self._base, self._settings, self._requests = base, requests[0].settings["training"], requests
        keeps = any(one.file is not None for one in recorders)
        frozen = frozen_sums(base.model) if keeps else []
        self._members = []
        for request, out, recorder in zip(requests, outs, recorders, strict=True):
            steps = total_steps(len(tokens), request.settings["training"])
            with new_adapter(base, request, documents, steps) as model:  # as it begins alone; taken off again
                factors = factors_of(model)
            self._members.append(Member(base, request, out, recorder, tokens, factors, frozen))

    def train(self) -> list[Result]:
        """Train until nobody is left, or all are stopped."""
        found: dict[str, Result] = {}
        left, stopped = self._members, False
        more: dict[str, Any] = {"packed": len(left)} | ({"unpacked": self._unpacked} if self._unpacked else {})
        self._stacked(left)
        for member in left:
            member.begin()
        while left and not stopped:
            stopped = self._until_one_leaves(left)
            for member in left:
                if member.ended and not (stopped and not member.trouble):
                    found[member.request.key] = member.finished(more)
            left = [member for member in left if member.request.key not in found]
            if left and not stopped:
                states = [member.state() for member in left]
                self._stacked(left)
                for member, state in zip(left, states, strict=True):
                    member.restore(state)
        return [found.get(request.key, STOPPED) for request in self._requests]

    def _stacked(self, members: list[Member]) -> None:
        self._stack = Stack(self._base.model, [member.factors for member in members], trained=True)
        for number, member in enumerate(members):
            member.join(self._stack, number)

    def _until_one_leaves(self, members: list[Member]) -> bool:
        """Take steps until a run ends; return whether they were asked to stop."""
        model: Any = self._base.model
        generators = [one for member in members for one in member.generators()]
        stopped = False
        try:
            with self._stack.attached(), checkpointed(model, self._settings["gradient_checkpointing"], generators):
                model.train()
                while not stopped and not any(member.ended for member in members):
                    self._step(members)
                    stopped = _asked_to_stop(members)
        finally:
            model.eval()
        return stopped

    def _step(self, members: list[Member]) -> None:
        """Take one optimizer step of each run."""
        began = time.monotonic()
        model, device = self._base.model, self._base.device
        groups = [member.batches() for member in members]
        counts = [max(member.curve.seen(group), 1) for member, group in zip(members, groups, strict=True)]
        shares = 1 / torch.tensor(counts, dtype=torch.float64)
        losses = torch.zeros(len(members), dtype=torch.float64, device=device)
        for batches in zip_longest(*groups):
            self._stack.rows = [(0, 0) if one is None else tuple(one.input_ids.shape) for one in batches]
            batch = join_batches(list(batches), self._base.padding).to(device)
            with autocast(device, self._settings):
                sums = slice_losses(model, batch, len(members))
                parts = sums * shares.to(sums)
            parts.sum().backward()
            losses += parts.detach()
        norms = torch.stack([member.step() for member in members]).double()
        self._stack.zero_grad()
        for member, loss, norm in zip(members, *torch.stack([losses, norms]).tolist(), strict=True):
            member.note(loss, norm)
        took = time.monotonic() - began
        for member in members:
            member.share += took / len(members)


def slice_losses(model: Any, batch: Batch, width: int) -> torch.Tensor:
    """Return the summed negative log likelihood of each slice of a batch, [K], in nats."""
    logits, targets, rows = supervised_logits(model, batch)
    each = cross_entropies(logits, targets)
    return each.new_zeros(width).index_add(0, rows // (len(batch.input_ids) // width), each)


def _asked_to_stop(members: list[Member]) -> bool:
    """Tell of a step; where one run is asked to stop, keep all of them where they are."""
    stopped = False
    for member in members:
        if member.trouble:
            continue
        try:
            member.recorder.record_step(member, member.curve)
        except Stopped:
            stopped = True
    if stopped:
        for member in members:
            if not member.trouble:
                member.recorder.save_checkpoint(member, member.curve)
    return stopped


def check_batch_independence(model: Any, tokens: Tokens | Blocks) -> None:
    """Check that rows of other adapters would change nothing of a row.

    :raises NotPackable: when the base draws at random while it trains, or looks at the longest row of a batch
    """
    if _draws(model):
        raise NotPackable("the base has a dropout of its own, which would be drawn for all adapters at once")
    limit = _scaled_beyond(model)
    if limit is not None and max(tokens.lengths()) > limit:
        raise NotPackable(f"above {limit} tokens the base computes its positions by the longest row of a batch")


def _draws(model: Any) -> bool:
    """Return whether a forward pass in training draws from the global generators."""
    device = model.get_input_embeddings().weight.device
    ids = torch.zeros(1, 2, dtype=torch.int64, device=device)
    with seeded(0, "probe"), torch.no_grad():
        before = _states(device)
        try:
            model.train()
            model(input_ids=ids, use_cache=False)
        finally:
            model.eval()
        return any(not torch.equal(*pair) for pair in zip(before, _states(device), strict=True))


def _states(device: torch.device) -> list[torch.Tensor]:
    on_device = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_device]


def _scaled_beyond(model: Any) -> int | None:
    """Return up to how many tokens positions are computed alike, where they depend on the batch's longest row."""
    found: list[int] = []
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        kinds = list(kinds.values()) if isinstance(kinds, dict) else [kinds]
        if any(isinstance(kind, str) and ("dynamic" in kind or kind == "longrope") for kind in kinds):
            scaling = getattr(module.config, "rope_parameters", None) or {}
            tables = [scaling, *(table for table in scaling.values() if isinstance(table, dict))]
            found.append(int(module.original_max_seq_len))
            found += [
                int(t["original_max_position_embeddings"]) for t in tables if "original_max_position_embeddings" in t
            ]
    return min(found, default=None)
