"""Who does the work of a plan on this machine: how many workers, and how they are asked to stop."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lorafile import specs
from lorafile.engine.environment import cores, gpus, installed, most_threads
from lorafile.errors import LoraError, MissingExtra
from lorafile.lockfile import Lock
from lorafile.plan import Plan

if TYPE_CHECKING:
    from lorafile.apply import Applier
    from lorafile.executors.local import LocalExecutor

_SMALL_MODEL = 50_000_000  # parameters; below it a core does more alone than together with the others (benchmarks/)


def local_executor(plan: Plan, state: Path, workers: int | None, pack: str | int) -> "LocalExecutor":
    """Return the local executor with as many workers as the device can use well.

    :raises MissingExtra: where torch is not installed
    """
    from lorafile.executors.local import LocalExecutor

    if installed("torch") is None and plan.work:
        raise MissingExtra("lora apply", "torch")
    spec = plan.graph.spec
    workers = 1 if is_spread(spec) else workers or default_workers(spec, plan.graph.lock)
    each_its_own = 0 if is_spread(spec) else len(gpus())
    threads = max(1, min(cores() // workers, most_threads()))
    about = (each_its_own, model_types(plan), pack_width(pack))
    return LocalExecutor(state / "staging", workers, threads, most_threads(), *about)


def model_types(plan: Plan) -> tuple[str, ...]:
    """Return the kinds of models whose code workers need."""
    return tuple(sorted({str(model.settings.get("model_type")) for model in plan.graph.lock.models.values()}))


def pack_width(pack: str | int) -> int:
    """Return how many adapters are trained together at most; 0 where that is to be measured.

    :raises LoraError: for anything but `auto`, `off` and a whole number from 1
    """
    words = {"auto": 0, "off": 1}
    if str(pack) in words:
        return words[str(pack)]
    if not str(pack).isdecimal() or int(pack) < 1:
        raise LoraError(f'"{pack}" is no way to pack adapters: write auto, off, or how many are trained together.')
    return int(pack)


def is_spread(spec: specs.Spec) -> bool:
    """Return whether a base lies on all GPUs at once, so that one worker has them all."""
    return any(configuration.model.device_map for configuration in spec.configurations)


def default_workers(spec: specs.Spec, lock: Lock) -> int:
    """Return one worker for each GPU; on a CPU one for each core where models are small, else one with all cores."""
    if is_spread(spec):
        return 1
    small = all(model.parameters < _SMALL_MODEL for model in lock.models.values())
    return len(gpus()) or (cores() if small else 1)


@contextlib.contextmanager
def stop_on_interrupt(applier: "Applier") -> Iterator[None]:
    """Turn Ctrl-C into a request: once, to begin nothing new; twice, to stop what is running; then to break off."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may take signals
        return

    def handle(_number: int, _frame: object) -> None:
        applier.stop()
        if applier.stopping > 2:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
