"""One door to the engine: a request and an empty directory in, an outcome out. It knows neither state nor CLI."""

import traceback
from pathlib import Path

import torch

from lorafile.engine.base import Bases
from lorafile.engine.predict import predict
from lorafile.engine.prepare import prepare
from lorafile.engine.profile import profile
from lorafile.engine.request import Done, Report, Request, Stopped
from lorafile.engine.train import train
from lorafile.errors import NodeError

# Raised when a change in a kind's code can change its result: every key of that kind becomes a new one.
# They stand in lorafile/graph.py, which has to know them without torch.


def run(request: Request, out: Path, bases: Bases, report: Report) -> Done:
    """Do one node; every way in which it can end is an outcome, never an exception."""
    try:
        if request.kind == "prepare":
            return prepare(request, out)
        work = {"train": train, "predict": predict, "profile": profile}[request.kind]
        return work(request, out, bases, report)
    except Stopped:
        return Done("interrupted", "Stopped on request.")
    except NodeError as error:
        return Done("failed", str(error))
    except (torch.OutOfMemoryError, MemoryError) as error:
        bases.drop()
        return Done(
            "out-of-memory", f"The device has not enough memory: {str(error).splitlines()[0] if str(error) else ''}"
        )
    except Exception as error:  # whatever it was, it is this node's outcome and not the study's end
        bases.drop()
        (out / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        first = (str(error).strip() or "no message").splitlines()[0]
        return Done("failed", f"{type(error).__name__}: {first}", files=["traceback.txt"])
