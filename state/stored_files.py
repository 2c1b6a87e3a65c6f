"""Which stored files are not here as they were stored, by existence and size: looked up while other work goes on.

This file is also a program that prints their digests: `python stored_files.py INDEX OBJECTS`.
"""

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

_FIRST, _SLOW, _THREADS = 1000, 5e-5, 16  # files; seconds for each, as on a shared disk: then several at once
Differing = Callable[[], set[str] | None]


@contextlib.contextmanager
def looking_at_files(index: Path, objects: Path) -> Iterator[Differing]:
    """Look at all files of an index that is not being written, in a process of its own.

    Yields what waits for their digests; it returns None where the process could not tell.
    """
    command = [sys.executable or "", "-I", "-S", __file__, str(index), str(objects)]
    try:
        process = subprocess.Popen(  # noqa: S603  (this file, by this interpreter)
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        yield lambda: None
        return

    def differing() -> set[str] | None:
        told, _ = process.communicate()
        return set(told.split()) if process.returncode == 0 else None

    with process:
        try:
            yield differing
        finally:
            process.kill()


def differing_files(index: str, objects: str) -> list[str]:
    """Return the digests of files that are missing, or longer or shorter than what was stored."""
    with contextlib.closing(sqlite3.connect(f"file:{quote(index)}?mode=ro&immutable=1", uri=True)) as connection:
        rows = connection.execute("SELECT digest, bytes FROM outputs").fetchall()
    stat = os.stat

    def differs(row: tuple[str, int]) -> bool:
        digest, size = row
        try:
            return stat(f"{objects}/{digest[:2]}/{digest}").st_size != size
        except OSError:
            return True

    began = time.perf_counter()
    found = list(map(differs, rows[:_FIRST]))
    if time.perf_counter() - began > _SLOW * _FIRST:
        with ThreadPoolExecutor(_THREADS) as pool:
            found += pool.map(differs, rows[_FIRST:])
    else:
        found += map(differs, rows[_FIRST:])
    return [digest for (digest, _), wrong in zip(rows, found, strict=True) if wrong]


if __name__ == "__main__":
    print("\n".join(differing_files(*sys.argv[1:])))
