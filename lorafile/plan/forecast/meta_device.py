"""Memory from a walk through the real model on the meta device, in a process of its own that may import torch."""

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from lorafile.environment import installed
from lorafile.files.tasks import task
from lorafile.files.user_cache import keep_json, kept_json
from lorafile.graph.graph import GraphNode
from lorafile.plan.forecast.memory import BYTES
from lorafile.plan.forecast.shape import Shape, micro_batch
from lorafile.specs.tables.quantizations import weight_bits
from lorafile.units import plural

_PATIENCE = 120.0  # seconds
_LIBRARIES = ("torch", "transformers", "peft")
_WAY = 1  # raised when a step is walked otherwise
_WALKS = "walks"  # of the user's cache: a walk takes ten seconds, most of which are imports
_FIXED = (0, 43, 2)  # bitsandbytes kept the inputs of its layers until then (its pull request 1270)


@dataclass(frozen=True)
class Walk:
    """A training step to be walked."""

    node: GraphNode
    shape: Shape


def can_walk() -> bool:
    """Return whether the libraries are here that a walk takes."""
    return all(find_spec(name) is not None for name in _LIBRARIES)


def walked(walks: list[Walk], bitsandbytes: str | None) -> list[int | None]:
    """Return for each step the bytes allocated at its peak; None where the model cannot be walked.

    :param bitsandbytes: version that will train, which decides what quantized layers keep
    """
    steps = [json.dumps(_step(walk, bitsandbytes)) for walk in walks]
    peaks = {step: _known(step) for step in dict.fromkeys(steps)}
    new = [step for step, peak in peaks.items() if peak is None]
    for step, peak in zip(new, _walk(new) if new else [], strict=True):
        peaks[step] = peak
        if peak is not None:
            keep_json(_WALKS, _of_libraries(step), peak)
    return [peaks[step] for step in steps]


def _known(step: str) -> int | None:
    """Return what a former walk through the very step said, with the libraries that are here."""
    peak = kept_json(_WALKS, _of_libraries(step))
    return peak if isinstance(peak, int) and peak > 0 else None


def _of_libraries(step: str) -> str:
    return "\n".join([step, str(_WAY), *(f"{name} {installed(name)}" for name in (*_LIBRARIES, "lorafile"))])


def _walk(steps: list[str]) -> list[int | None]:
    command = [sys.executable, "-P", "-m", "lorafile.engine.training.memory_walk"]
    try:
        with task(f"Tracing {plural(len(steps), 'training step')} without weights"):
            done = subprocess.run(  # noqa: S603
                command, input=f"[{','.join(steps)}]", capture_output=True, text=True, timeout=_PATIENCE, check=True
            )
        by_step = json.loads(done.stdout)
    except (subprocess.SubprocessError, OSError, ValueError):
        return [None] * len(steps)  # the arithmetic stands, and says that it is what it is
    return [sum(held.values()) if held else None for held in by_step]


def _step(walk: Walk, bitsandbytes: str | None) -> dict[str, Any]:
    node, shape = walk.node, walk.shape
    examples, length = micro_batch(node.settings["training"], shape)
    positions = examples * length
    return {
        "config": shape.model.settings,
        "settings": {name: node.settings[name] for name in ("model", "quantization", "adapter", "training")},
        "examples": examples,
        "length": length,
        "supervised": round(positions * shape.supervised),
        "packed": packed(node.settings["quantization"], shape),
        "saves_inputs": _version(bitsandbytes) < _FIXED,
    }


def packed(quantization: dict[str, Any] | None, shape: Shape) -> dict[str, int]:
    """Return the bytes of each quantized layer: its weights at their bits, and its scales."""
    if quantization is None:
        return {}
    bits, scales = weight_bits(quantization, 8 * BYTES[shape.dtype])
    return {name: int(out * into * (bits + scales) / 8) for name, (out, into) in shape.model.modules.items()}


def _version(text: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:3] if part.isdigit()) if text else (99,)
