"""Peak memory of a phase: what the allocator gave and held on a GPU; live tensors and resident size on a CPU."""

import contextlib
import gc
import resource
import sys
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from lorafile.engine.model.fingerprint import held_tensors, parts


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of live tensor storages by kind, and remembers the moment at which they were the most.

    A tiny model hides behind the hundreds of megabytes of a process that has imported torch; its tensors do not.

    :ivar peak: bytes at that moment; `peak_by_kind`: the same by what they are for
    """

    def __init__(self, model: Any = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._live: dict[int, tuple[str, int]] = {}
        self.now = self.peak = 0
        self._now_by_kind: Counter[str] = Counter()
        self.peak_by_kind: Counter[str] = Counter()
        for tensor in held_tensors(model) if model is not None else ():
            self.count(tensor, "weights")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it returns."""
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, torch.Tensor):
                for part in parts(value):
                    self.count(part, self.kind(part))
        return result

    def kind(self, _tensor: torch.Tensor) -> str:
        """Return what a tensor that an operation made is for."""
        return "activations"

    def count(self, tensor: torch.Tensor, kind: str) -> None:
        """Count a tensor's storage, once, for as long as it lives."""
        storage = tensor.untyped_storage()
        size = storage.nbytes()
        place = storage.data_ptr() or storage._cdata  # on the meta device nothing has an address
        if place in self._live or not size:
            return
        self._live[place] = kind, size
        self.now += size
        self._now_by_kind[kind] += size
        if self.now > self.peak:
            self.peak, self.peak_by_kind = self.now, self._now_by_kind.copy()
        weakref.finalize(storage, self._release, place)

    def _release(self, place: int) -> None:
        kind, size = self._live.pop(place, ("", 0))
        self.now -= size
        self._now_by_kind[kind] -= size


_SIGNS = (
    "can't allocate memory",
    "Cannot allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the device has not enough memory: torch, its libraries and the system each say it in their way."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(sign in str(error) for sign in _SIGNS)


def reset_peak(device: torch.device) -> None:
    """Begin a phase."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        for number in range(torch.cuda.device_count()):
            torch.cuda.synchronize(number)
            torch.cuda.reset_peak_memory_stats(number)
    else:
        with contextlib.suppress(OSError):  # where it cannot be reset, the peak is that of the process so far
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5)


def peak(device: torch.device, live: LiveTensors | None = None) -> tuple[int, int]:
    """Return the bytes allocated and reserved at their peak since the phase began, summed over a worker's GPUs.

    On a CPU these are live tensor bytes and the resident size of the process.
    """
    if device.type == "cuda":
        numbers = range(torch.cuda.device_count())
        for number in numbers:
            torch.cuda.synchronize(number)
        allocated, reserved = torch.cuda.max_memory_allocated, torch.cuda.max_memory_reserved
        return sum(allocated(number) for number in numbers), sum(reserved(number) for number in numbers)
    return (live.peak if live else 0), _peak_resident()


def _peak_resident() -> int:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) * 1024
    except (OSError, StopIteration):  # no Linux
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
