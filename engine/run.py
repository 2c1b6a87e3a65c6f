"""One door to the engine: a request and an empty directory in, a result out. It knows neither state nor CLI.

What needs torch is imported when a node needs it, so that a process that only scores never loads it.
"""

import contextlib
import errno
import os
import re
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from lorafile.engine.data.hub import hide_tokens
from lorafile.engine.nodes.score import score
from lorafile.engine.request import STOPPED, Report, Request, Result, Stopped
from lorafile.engine.stacking.compatible import NotPackable
from lorafile.errors import NodeError

if TYPE_CHECKING:
    from lorafile.engine.model.base import Bases

_DISK = (errno.EIO, errno.EROFS, errno.EDQUOT, errno.EFBIG)  # what no setting of a node brings about


class SplitBatch(Exception):
    """Nodes could not be done together; so many at a time may go.

    :ivar crowded: since memory ran out, or the base refuses: others of their class would do no better
    """

    def __init__(self, size: int, why: str, crowded: bool) -> None:
        super().__init__(why)
        self.size, self.crowded = size, crowded


def run(request: Request, out: Path, bases: "Bases | None" = None, report: Report = lambda _: None) -> Result:
    """Do one node in a directory of its own; every way in which it can end is a result, never an exception.

    :param bases: what the process has loaded; a score needs none
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        return score(request, out) if request.kind == "score" else _run_with_torch(request, out, bases, report)
    except Stopped:
        return STOPPED
    except NodeError as error:
        return Result("failed", str(error))
    except Exception as error:  # whatever it was, it is this node's outcome and not the study's end
        if bases is not None:
            bases.drop()
        return _failure(request, out, error)


def _run_with_torch(request: Request, out: Path, bases: "Bases | None", report: Report) -> Result:
    """Do a node by the function of its kind's name, in the module of that name, or train by a user's program."""
    from lorafile.engine.model.base import Bases

    if "trainer" in request.settings:
        from lorafile.engine.trainers.train import train_with_program

        return train_with_program(request, out, bases or Bases(), report)
    node = getattr(import_module(f"lorafile.engine.nodes.{request.kind}"), request.kind)
    result: Result = node(request, out, bases or Bases(), report)
    return result


def run_together(requests: list[Request], outs: list[Path], bases: "Bases", reports: list[Report]) -> list[Result]:
    """Do nodes of one kind and class at once, each in a directory of its own; a single one as `run` does it.

    :raises SplitBatch: when they have to be done in smaller parts, or one by one
    """
    if len(requests) == 1:
        return [run(requests[0], outs[0], bases, reports[0])]
    from lorafile.engine.nodes.predict import predict_together
    from lorafile.engine.packing.train import train_together

    together = {"train": train_together, "predict": predict_together}[requests[0].kind]
    try:
        for out in outs:
            out.mkdir(parents=True, exist_ok=True)
        return together(requests, outs, bases, reports)
    except Stopped:
        return [STOPPED for _ in requests]
    except Exception as error:  # it may be one member's fault: alone, each has an outcome of its own
        if not isinstance(error, NotPackable):  # which left the base as it was
            bases.drop()
        split = _split(error, len(requests))
    raise split  # here, where nothing holds on to what filled the memory


def is_packable(request: Request) -> bool:
    """Return whether there is a way to do such nodes together."""
    return bool(request.pack) and request.kind in ("train", "predict")


def _split(error: Exception, count: int) -> SplitBatch:
    """Return how to go on where nodes could not be done together."""
    if _is_out_of_memory(error):
        size = count // 2
        return SplitBatch(size, f"{count} adapters at a time did not fit into memory; continuing with {size}.", True)
    why = _first_line(error).rstrip(".")
    if not isinstance(error, NotPackable):
        traceback.print_exc()
        why = f"{type(error).__name__}: {why}"
    return SplitBatch(1, f"{count} adapters run one at a time: {hide_tokens(why)}.", isinstance(error, NotPackable))


def _failure(request: Request, out: Path, error: Exception) -> Result:
    """Return what an exception means to the user, with its traceback where that is all that can be said."""
    if _is_out_of_memory(error):
        why = f"The device does not have enough memory: {_first_line(error).rstrip('.')}. {_remedy(request)}"
        return Result("out-of-memory", why, request.execution)
    if "No space left on device" in str(error):
        why = f"No space left on the disk that holds {out}. Free some space and run the same command again."
        return Result("failed", why)
    if number := _disk_error(error):
        place = getattr(error, "filename", None) or out  # what could not be read, or else what was being written
        why = f"The disk that holds {place} is failing: {os.strerror(number)}. Check it and run the same command again."
        return Result("failed", why)
    with contextlib.suppress(OSError):
        (out / "traceback.txt").write_text(hide_tokens("".join(traceback.format_exception(error))), encoding="utf-8")
    files = ["traceback.txt"] if (out / "traceback.txt").is_file() else []
    return Result("failed", hide_tokens(f"{type(error).__name__}: {_first_line(error)}"), files=files)


def _is_out_of_memory(error: Exception) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from lorafile.engine.model.peak_memory import is_out_of_memory

    return is_out_of_memory(error)


def _remedy(request: Request) -> str:
    """Return what would need less memory."""
    if request.kind in ("inspect", "merge") or request.settings.get("task", {}).get("output") == "lm_eval":
        return "Use a smaller evaluate.per_device_eval_batch_size, which does not affect results."
    if request.execution.get("auto_find_batch_size"):
        return (
            "Not even one example at a time fits: use train.gradient_checkpointing = true, a shorter data.max_length, "
            "or a quantized base."
        )
    if request.kind not in ("train", "profile"):
        return "Use a device with more memory, or a quantized base."
    fallback = ", or train.auto_find_batch_size = true" if request.kind == "train" else ""
    return (
        "Use a smaller train.per_device_train_batch_size with more train.gradient_accumulation_steps, "
        f"train.gradient_checkpointing = true{fallback}."
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or "no message").splitlines()[0]


def _disk_error(error: Exception) -> int | None:
    """Return the number of an error that a failing disk brings about; safetensors has it in its text alone."""
    if type(error).__name__ == "SafetensorError":
        number = re.search(r"\(os error (\d+)\)", str(error))
        return int(number.group(1)) if number else None
    return error.errno if isinstance(error, OSError) and error.errno in _DISK else None
