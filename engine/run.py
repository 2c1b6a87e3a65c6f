"""One door to the engine: a request and an empty directory in, an outcome out. It knows neither state nor CLI."""

import contextlib
import traceback
from pathlib import Path

from lorafile.engine.base import Bases
from lorafile.engine.hub import hide_tokens
from lorafile.engine.inspect import inspect
from lorafile.engine.memory import is_out_of_memory
from lorafile.engine.merge import merge
from lorafile.engine.predict import predict
from lorafile.engine.prepare import prepare
from lorafile.engine.profile import profile
from lorafile.engine.request import Done, Report, Request, Stopped
from lorafile.engine.train import train
from lorafile.engine.truncate import truncate
from lorafile.errors import NodeError

_WORK = {
    "train": train,
    "predict": predict,
    "profile": profile,
    "truncate": truncate,
    "inspect": inspect,
    "merge": merge,
}


def run(request: Request, out: Path, bases: Bases, report: Report) -> Done:
    """Do one node in a directory of its own; every way in which it can end is an outcome, never an exception."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if request.kind == "prepare":
            return prepare(request, out)
        return _WORK[request.kind](request, out, bases, report)
    except Stopped:
        return Done("interrupted", "Stopped on request.")
    except NodeError as error:
        return Done("failed", str(error))
    except Exception as error:  # whatever it was, it is this node's outcome and not the study's end
        bases.drop()
        if is_out_of_memory(error):
            told = f"The device has not enough memory: {_first_line(error).rstrip('.')}. {_remedy(request)}"
            return Done("out-of-memory", told, request.execution)
        if "No space left on device" in str(error):
            told = f"No space left on the disk that holds {out}. Free some space and run the same command again."
            return Done("failed", told)
        with contextlib.suppress(OSError):
            (out / "traceback.txt").write_text(hide_tokens(traceback.format_exc()), encoding="utf-8")
        files = ["traceback.txt"] if (out / "traceback.txt").is_file() else []
        return Done("failed", hide_tokens(f"{type(error).__name__}: {_first_line(error)}"), files=files)


def _remedy(request: Request) -> str:
    """Return what would need less memory."""
    if request.kind == "predict":
        return "Use a smaller evaluate.per_device_eval_batch_size, which changes no result."
    if request.execution.get("auto_find_batch_size"):
        return (
            "Not even one example at a time fits: use train.gradient_checkpointing = true, a shorter data.max_length, "
            "or a quantized base."
        )
    if request.kind not in ("train", "profile"):
        return "Use a device with more, or a quantized base."
    fallback = ", or train.auto_find_batch_size = true" if request.kind == "train" else ""
    return (
        "Use a smaller train.per_device_train_batch_size with more train.gradient_accumulation_steps, "
        f"train.gradient_checkpointing = true{fallback}."
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or "no message").splitlines()[0]
