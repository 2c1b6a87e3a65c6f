"""A process that sends runs to one tracker: `python -m lorafile.apply.tracking.tracker_process wandb`, by JSON lines.

A tracker's library may print, hang, fork, exit, or take signals over: here it can do so to nobody else. The first line
is what the library is asked for; then comes a line for each run, and for each an answer: `sent`, or a `problem`.
"""

import contextlib
import importlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from typing import IO, Any, Protocol

_LOOK_SECONDS, _LAST_SECONDS = 2.0, 30.0  # how often it looks for its parent, and how long it goes on without


class Tracker(Protocol):
    """One library."""

    def send(self, record: dict[str, Any], curve: list[dict[str, Any]]) -> None:
        """Let the tracker have a run as it is now; sent again, it is the same run."""

    def close(self) -> None:
        """Let go of whatever is open."""


def main(name: str) -> None:
    """Answer every line of the standard input until it ends, then end at once, whatever the library left running."""
    threading.Thread(target=_end_when_alone, args=(os.getppid(),), daemon=True).start()
    with _own_channels() as (requests, answers):
        tracker: Tracker | None = None
        broken = ""
        try:
            module = importlib.import_module(f"lorafile.apply.tracking.{name}")
            tracker = module.open_tracker(json.loads(next(requests)))
        except BaseException as error:  # a library that calls sys.exit, too
            broken = _told(error)
        for line in requests:
            answers.write(json.dumps(_answer(tracker, json.loads(line)) if tracker else {"problem": broken}) + "\n")
            answers.flush()
        if tracker is not None:
            with contextlib.suppress(BaseException):
                tracker.close()
    os._exit(0)


def _end_when_alone(parent: int) -> None:
    """Outlive the process that applies by no more than it takes to send what is begun, even where a library hangs."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    time.sleep(_LAST_SECONDS)
    os._exit(1)


def _answer(tracker: Tracker, request: dict[str, Any]) -> dict[str, str]:
    try:
        tracker.send(request["record"], request["curve"])
    except BaseException as error:
        return {"problem": _told(error)}
    return {"sent": request["record"]["id"]}


@contextlib.contextmanager
def _own_channels() -> Iterator[tuple[IO[str], IO[str]]]:
    """Keep standard input and output for ourselves: what a library prints goes to the log, and it reads nothing."""
    with os.fdopen(os.dup(0), encoding="utf-8") as requests, os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        yield requests, answers


def _told(error: BaseException) -> str:
    """Return an error in a line, without the password of an address."""
    text = " ".join(str(error).split()) or "no reason was given"
    text = re.sub(r"//[^/@\s]+@", "//…@", text)
    return f"{type(error).__name__}: {text}"[:500]


if __name__ == "__main__":
    main(sys.argv[1])
