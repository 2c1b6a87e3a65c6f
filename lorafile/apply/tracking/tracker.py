"""What every tracker can do, and the process in which a tracker's library runs.

`python -m lorafile.apply.tracking.tracker wandb` reads JSON lines: the tracker's options, then a run in each, which it
answers with the `problem`, if any. A library may print, hang, fork, exit or take over signals: here it does no harm.
"""

import contextlib
import importlib
import json
import os
import re
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

_POLL_SECONDS, _LAST_SECONDS = 2.0, 30.0  # how often it looks for its parent, and how long it goes on without


@dataclass(frozen=True)
class RunRecord:
    """What a tracker gets of a run.

    :ivar id: the run's id in the tracker; `replaces`: that of an older training of the same run
    :ivar name: its address, `rank/r=16/seed=42`; `group`: its configuration
    :ivar key: that of the leading node; `keys`: node -> key
    :ivar figures: `train/final_loss`, `test/exact_match`, …
    :ivar curve: rows with a `step`, and figures by name
    """

    id: str
    replaces: str
    name: str
    group: str
    sweep: str
    study: str
    method: str
    config: dict[str, Any]
    key: str
    keys: dict[str, str]
    outcome: str
    message: str
    started: str
    ended: str
    environment: dict[str, Any]
    figures: dict[str, float]
    curve: list[dict[str, Any]]


class Tracker(Protocol):
    """One tracker. A run that is sent again is the same run: what the tracker has of it is not written twice."""

    def send(self, record: RunRecord) -> None:
        """Create a run, or take it up again, and let the tracker have all of it."""

    def close(self) -> None:
        """End whatever the library has started."""


def main(name: str) -> None:
    """Serve the standard input until it ends, then exit at once, whatever the library left running."""
    threading.Thread(target=_exit_after_parent, args=(os.getppid(),), daemon=True).start()
    requests, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", 1, encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a library prints goes to the log
    tracker: Tracker | None = None
    problem = ""
    try:
        module = importlib.import_module(f"lorafile.apply.tracking.{name}")
        tracker = getattr(module, f"{name.capitalize()}Tracker")(json.loads(next(requests)))
    except BaseException as error:  # a library that calls sys.exit, too
        problem = _describe(error)
    for line in requests:
        if tracker is not None:
            problem = _send(tracker, RunRecord(**json.loads(line)))
        answers.write(json.dumps({"problem": problem}) + "\n")
    if tracker is not None:
        with contextlib.suppress(BaseException):
            tracker.close()
    os._exit(0)


def _send(tracker: Tracker, record: RunRecord) -> str:
    """Send a run as it is now; return what went wrong."""
    try:
        tracker.send(record)
    except BaseException as error:
        return _describe(error)
    return ""


def _exit_after_parent(parent: int) -> None:
    """Outlive the process that applies by no more than it takes to send what is begun, even where a library hangs."""
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    time.sleep(_LAST_SECONDS)
    os._exit(1)


def _describe(error: BaseException) -> str:
    """Return an error in a line, without the password of an address."""
    text = re.sub(r"//[^/@\s]+@", "//…@", " ".join(str(error).split()) or "no reason was given")
    return f"{type(error).__name__}: {text}"[:500]


if __name__ == "__main__":
    main(sys.argv[1])
