"""`train` of several adapters together: one forward pass of their base, each adapter on its own rows."""

import time
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from lorafile.engine.batching.batches import join_batches
from lorafile.engine.batching.tokens import Tokens, Units, separates_documents, training_units
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
from lorafile.engine.training.checkpoint import frozen_sums, random_states
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
            except NotPackable as error:
                refusal = error
        raise refusal  # out here, so that the base need not be loaded again


class _Pack:
    """Runs that share a base."""

    def __init__(self, base: Base, requests: list[Request], outs: list[Path], recorders: list[RunRecorder]) -> None:
        documents = load_tokens(requests[0], "train")
        tokens, self._unpacked = training_units(documents, base.model, requests[0].settings["training"])
        check_batch_independence(base.model, tokens)
        self._base, self._settings, self._requests = base, requests[0].settings["training"], requests
        keeps = any(recorder.file is not None for recorder in recorders)
        frozen = frozen_sums(base.model) if keeps else []
        self._members = []
        for request, out, recorder in zip(requests, outs, recorders, strict=True):
            steps = total_steps(len(tokens), request.settings["training"])
            with new_adapter(base, request, documents, steps) as model:  # as it begins alone; taken off again
                factors = factors_of(model)
            self._members.append(Member(base, request, out, recorder, tokens, factors, frozen))

    def train(self) -> list[Result]:
        """Train until all runs have ended, or are stopped."""
        results: dict[str, Result] = {}
        left, stopped = self._members, False
        more: dict[str, Any] = {"packed": len(left)} | ({"unpacked": self._unpacked} if self._unpacked else {})
        self._stacked(left)
        for member in left:
            member.begin()
        while left and not stopped:
            stopped = self._until_one_leaves(left)
            for member in left:
                if member.ended and not (stopped and not member.trouble):
                    results[member.request.key] = member.finished(more)
            left = [member for member in left if member.request.key not in results]
            if left and not stopped:
                states = [member.state() for member in left]
                self._stacked(left)
                for member, state in zip(left, states, strict=True):
                    member.restore(state)
        return [results.get(request.key, STOPPED) for request in self._requests]

    def _stacked(self, members: list[Member]) -> None:
        self._stack = Stack(self._base.model, [member.factors for member in members], trained=True)
        for number, member in enumerate(members):
            member.join(self._stack, number)

    def _until_one_leaves(self, members: list[Member]) -> bool:
        """Take steps until a run ends; return whether they were asked to stop."""
        model: Any = self._base.model
        generators = [generator for member in members for generator in member.generators()]
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
        counts = [max(member.curve.count(group), 1) for member, group in zip(members, groups, strict=True)]
        shares = 1 / torch.tensor(counts, dtype=torch.float64)
        losses = torch.zeros(len(members), dtype=torch.float64, device=device)
        for batches in zip_longest(*groups):
            self._stack.rows = [(0, 0) if part is None else tuple(part.input_ids.shape) for part in batches]
            batch = join_batches(list(batches), self._base.padding).to(device)
            with autocast(device, self._settings):
                logits, targets, rows = supervised_logits(model, batch)
                each = cross_entropies(logits, targets)
                slices = rows // (len(batch.input_ids) // len(members))
                parts = each.new_zeros(len(members)).index_add(0, slices, each) * shares.to(each)
            parts.sum().backward()
            losses += parts.detach()
        norms = torch.stack([member.step() for member in members]).double()
        self._stack.zero_grad()
        for member, loss, norm in zip(members, *torch.stack([losses, norms]).tolist(), strict=True):
            member.note(loss, norm)
        took = time.monotonic() - began
        for member in members:
            member.share += took / len(members)


def _asked_to_stop(members: list[Member]) -> bool:
    """Record a step; where one run is asked to stop, write a checkpoint of each."""
    stopped, sound = False, [member for member in members if not member.trouble]
    for member in sound:
        try:
            member.recorder.record_step(member, member.curve)
        except Stopped:
            stopped = True
    for member in sound if stopped else ():
        member.recorder.save_checkpoint(member, member.curve)
    return stopped


def check_batch_independence(model: Any, tokens: Units) -> None:
    """Check that rows of other adapters would change nothing of a row.

    :raises NotPackable: when the base draws at random while it trains, or looks at the longest row of a batch
    """
    if _draws(model):
        raise NotPackable("the base has its own dropout, which all adapters would share")
    if not (isinstance(tokens, Tokens) or separates_documents(model)):
        raise NotPackable("the base keeps documents apart in a single row only")
    limit = _scaled_beyond(model)
    if limit is not None and max(tokens.lengths()) > limit:
        raise NotPackable(f"above {limit} tokens, the base's positions depend on the longest row of a batch")


def _draws(model: Any) -> bool:
    """Return whether a forward pass in training draws from the global generators."""
    device = model.get_input_embeddings().weight.device
    ids = torch.zeros(1, 2, dtype=torch.int64, device=device)
    with seeded(0, "probe"), torch.no_grad():
        before, _ = random_states()
        try:
            model.train()
            model(input_ids=ids, use_cache=False)
        finally:
            model.eval()
        after, _ = random_states()
        return any(not torch.equal(state, after[name]) for name, state in before.items())


def _scaled_beyond(model: Any) -> int | None:
    """Return up to how many tokens positions are computed alike, where they depend on the batch's longest row."""
    limits: list[int] = []
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        kinds = list(kinds.values()) if isinstance(kinds, dict) else [kinds]
        if any(isinstance(kind, str) and ("dynamic" in kind or kind == "longrope") for kind in kinds):
            scaling = getattr(module.config, "rope_parameters", None) or {}
            tables = [scaling, *(table for table in scaling.values() if isinstance(table, dict))]
            limits.append(int(module.original_max_seq_len))
            given = [table.get("original_max_position_embeddings") for table in tables]
            limits += [int(limit) for limit in given if limit is not None]
    return min(limits, default=None)
