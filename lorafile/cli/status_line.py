"""One line on a terminal about what takes long before a plan is there: what is read, hashed or walked, and how far."""

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from typing import Self

from lorafile.files.tasks import Task, current, on_end
from lorafile.units import duration, size

_PATIENCE = 1.0  # seconds until a task is shown
_REDRAW_SECONDS = 0.5
_CLEAR = "\r\x1b[K"


class StatusLine:
    """A line that a thread draws on stderr, and that is gone before anything else is printed."""

    def __init__(self) -> None:
        self._ended, self._lock, self._shown = threading.Event(), threading.Lock(), False
        self._thread = threading.Thread(target=self._run, name="status line", daemon=True)

    def __enter__(self) -> Self:
        on_end.append(self._clear)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join()

    def stop(self) -> None:
        """Show nothing from now on: something else draws on the terminal."""
        self._ended.set()
        self._clear()
        if self._clear in on_end:
            on_end.remove(self._clear)

    def _run(self) -> None:
        while not self._ended.wait(_REDRAW_SECONDS):
            with self._lock:
                task = current()
                if task is not None and time.monotonic() - task.began > _PATIENCE and not self._ended.is_set():
                    sys.stderr.write(_CLEAR + line(task, shutil.get_terminal_size().columns))
                    sys.stderr.flush()
                    self._shown = True

    def _clear(self) -> None:
        with self._lock:
            if self._shown:
                sys.stderr.write(_CLEAR)
                sys.stderr.flush()
            self._shown = False


_shown: list[StatusLine] = []


@contextlib.contextmanager
def status_line() -> Iterator[None]:
    """Show on stderr what takes longer than a second, where that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    with StatusLine() as shown:
        _shown[:] = [shown]
        yield


def hide_status_line() -> None:
    """Show nothing from now on."""
    for shown in _shown:
        shown.stop()


def line(task: Task, width: int) -> str:
    """Return `Hashing the weights of phi-2: 4.2 GB of 16.1 GB, 12 s`, as far as the width allows."""
    done, total = (size(n) if task.unit == "bytes" else f"{n:,} {task.unit}" for n in (task.done, task.total))
    far = f"{done} of {total}, " if task.total else f"{done}, " if task.done else ""
    rest = f": {far}{duration(time.monotonic() - task.began)}"
    room = width - len(rest) - 1
    what = task.what if len(task.what) <= room else task.what[: room - 1] + "…"
    return what + rest
