"""`train` of several adapters together: one forward pass of their base, each adapter on its own rows."""

import time
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from lorafile.engine.batching.batches import Batch, joined
from lorafile.engine.batching.blocks import Blocks, units
from lorafile.engine.batching.tokens import Tokens
from lorafile.engine.model.adapters import autocast, checkpointed, new_adapter
from lorafile.engine.model.base import Base, Bases
from lorafile.engine.model.cross_entropy import cross_entropies
from lorafile.engine.model.head import load_tokens
from lorafile.engine.model.loss import supervised_logits
from lorafile.engine.nodes.train import total_steps
from lorafile.engine.packing.batch_independence import check_apart
from lorafile.engine.packing.member import Member
from lorafile.engine.request import STOPPED, Report, Request, Result, Stopped
from lorafile.engine.stacking.compatible import Alone
from lorafile.engine.stacking.stack import Stack, factors_of
from lorafile.engine.training.journal import Journal, journal
from lorafile.engine.training.run_state import frozen_sums


def train_together(requests: list[Request], outs: list[Path], bases: Bases, reports: list[Report]) -> list[Result]:
    """Train adapters of one training class together, each as it would be trained alone, up to rounding.

    A run that diverged or has no steps left leaves; the others go on. Where one is asked to stop, all are, and each can
    go on from there, together or alone.

    :raises Alone: when it turns out that they have to be trained one by one; nothing was trained then
    """
    with ExitStack() as stack:
        journals = [stack.enter_context(journal(*pair)) for pair in zip(requests, reports, strict=True)]
        with bases.proven(requests[0].settings, requests[0].paths) as base:
            try:
                return _Pack(base, requests, outs, journals).train()
            except Alone as found:
                refusal = found
        raise refusal  # out here, so that the base need not be loaded again


class _Pack:
    """Runs that share a base."""

    def __init__(self, base: Base, requests: list[Request], outs: list[Path], journals: list[Journal]) -> None:
        documents = load_tokens(requests[0], "train")
        tokens, self._unpacked = units(documents, base.model)
        check_apart(base.model, tokens)
        self._base, self._settings, self._requests = base, requests[0].settings["training"], requests
        kept = any(one.file is not None for one in journals)
        frozen = frozen_sums(base.model) if kept else []
        self._members = [
            self._member(request, out, one, documents, tokens, frozen)
            for request, out, one in zip(requests, outs, journals, strict=True)
        ]

    def _member(
        self,
        request: Request,
        out: Path,
        kept: Journal,
        documents: Tokens,
        tokens: Tokens | Blocks,
        frozen: list[int],
    ) -> Member:
        """Begin an adapter as it begins alone, and take it off again."""
        steps = total_steps(len(tokens), request.settings["training"])
        with new_adapter(self._base, request, documents, steps) as model:
            factors = factors_of(model)
        return Member(self._base, request, out, kept, tokens, factors, frozen)

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
                    member.put_back(state)
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
            batch = joined(list(batches), self._base.tokenizer.pad_token_id or 0).to(device)
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
            member.kept.went_on(member, member.curve)
        except Stopped:
            stopped = True
    if stopped:
        for member in members:
            if not member.trouble:
                member.kept.keep(member, member.curve)
    return stopped
