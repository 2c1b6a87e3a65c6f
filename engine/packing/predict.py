"""Predictions of several stored adapters on one base: each batch of examples goes through it once, for all of them."""

from pathlib import Path
from typing import Any

from lorafile.engine.inference.cache import can_reserve
from lorafile.engine.inference.predictions import load_split, predictions
from lorafile.engine.model.base import Base, Bases
from lorafile.engine.nodes.predict import decoder_figure, kept, predict
from lorafile.engine.request import Report, Request, Result
from lorafile.engine.stacking.stack import Factors, Stack
from lorafile.engine.stacking.stored import stored_factors
from lorafile.errors import NodeError


def predict_together(requests: list[Request], outs: list[Path], bases: Bases, reports: list[Report]) -> list[Result]:
    """Predict one split with several adapters, the bare base among them; what is no plain LoRA comes after, alone."""
    first, split = requests[0], load_split(requests[0])
    done: dict[int, Result] = {}
    with bases.proven(first.settings, first.paths) as base:
        members = {number: one for number, one in enumerate(_members(base, requests)) if one is not None}
        if len(members) > 1:
            told = [reports[number] for number in members]
            stack = Stack(base.model, list(members.values()))
            with stack.attached():
                found = predictions(
                    base, base.model.eval(), split, lambda progress: _tell(told, progress), len(members)
                )
            figures = decoder_figure(base, base.model, split) | {"packed": len(members)}
            for number, lines in zip(members, found, strict=True):
                done[number] = kept(split, lines, outs[number], figures)
    for number, request in enumerate(requests):
        if number not in done:
            done[number] = _alone(request, outs[number], bases, reports[number])
    return [done[number] for number in range(len(requests))]


def _members(base: Base, requests: list[Request]) -> list[Factors | None]:
    """Return what each request puts on the base, and None for what cannot be stacked."""
    if not can_reserve(base.model):  # of others it is not known whether rows stay in the order of the batch
        return [None] * len(requests)
    adapters = [request.inputs.get("adapter") for request in requests]
    return [
        Factors() if files is None else stored_factors(base.model, files) if "adapter_config.json" in files else None
        for files in adapters
    ]


def _alone(request: Request, out: Path, bases: Bases, report: Report) -> Result:
    try:
        return predict(request, out, bases, report)
    except NodeError as error:
        return Result("failed", str(error))


def _tell(reports: list[Report], progress: dict[str, Any]) -> None:
    for report in reports:
        report(progress)
