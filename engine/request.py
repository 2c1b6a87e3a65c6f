"""Requests to the engine, and its results: plain data that travels between processes. Imports no torch."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    """One node to be done.

    :ivar settings: resolved sections, as they stand in the key
    :ivar paths: where things are on this machine (`model`, `data`, …); in no key
    :ivar inputs: role -> file name -> path of the files of the nodes that this one reads
    :ivar awaits: role -> key of a node of the same group whose files will be read
    :ivar execution: what changes how, but not what (batch size of evaluation)
    :ivar pack: equal text for nodes of a kind that can be done together, as several adapters on one base
    """

    key: str
    kind: str
    address: str
    settings: dict[str, Any]
    paths: dict[str, Any]
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)
    awaits: dict[str, str] = field(default_factory=dict)
    execution: dict[str, Any] = field(default_factory=dict)
    pack: str = ""


@dataclass(frozen=True)
class PackSizes:
    """How many adapters are trained, and predicted with, at a time, and why where that was measured."""

    train: int = 1
    predict: int = 1
    why: str = ""

    @property
    def most(self) -> int:
        """How many replicates a worker needs at hand."""
        return max(self.train, self.predict)


@dataclass(frozen=True)
class Result:
    """The result of a node: how it ended, its figures, and the files that it left in its directory.

    :ivar environment: what of its environment was not the worker's own
    """

    outcome: str = "done"
    message: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)


STOPPED = Result("interrupted", "Stopped on request.")


class Stopped(Exception):
    """The applying process asked for a stop, or is gone."""


Report = Callable[[dict[str, Any]], None]
"""Called with progress (`step`, `steps`, `loss`, `tokens_per_second`), or with a `note` for watchers.

Raises `Stopped` when the work is to end.
"""


EVAL_BATCH = "per_device_eval_batch_size"
EXAMPLES = 16  # at once, where that is unset


def examples_at_once(request: Request) -> int:
    """Return how many examples of an evaluation go through the model at once."""
    return int(request.execution.get(EVAL_BATCH, EXAMPLES))


def base_identity(settings: dict[str, Any]) -> str:
    """Return equal text for nodes that can share a loaded base."""
    return json.dumps([settings["model"], settings["quantization"]], sort_keys=True)
