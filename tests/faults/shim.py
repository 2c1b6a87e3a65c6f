"""Faults of the disk and the clock, put under an apply and all of its processes by a preloaded library."""

import os
import re
import shutil
import struct
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

_LAYOUT = "=qqd"  # as `struct shared` of shim.c: calls, fired, seconds by which the clock is ahead
ERRORS = {"ENOSPC": 28, "EIO": 5, "EACCES": 13, "EROFS": 30}
# What fails after the first failure: nothing, the same site, all that needs room, all that changes anything.
LASTING = {"EIO": 0, "EACCES": 1, "ENOSPC": 2, "EROFS": 3}
FAILS = {
    "ENOSPC": {"open", "write", "mkdir"},
    "EIO": {"open", "write", "fsync", "rename", "truncate"},
    "EACCES": {"open", "mkdir", "rename", "unlink"},
    "EROFS": {"open", "write", "mkdir", "rename", "unlink", "truncate"},
}
_RANDOM = (
    (r"[0-9a-f]{64}", "*"),
    (r"^objects/[0-9a-f]{2}(?=/|$)", "objects/*"),
    (r"^staging/\d+", "staging/*"),
    (r"(new-|score-|importing-|exporting-)[a-z0-9_]{8}", r"\1*"),
    (r"step-\d+", "step-*"),
    (r"\.tmp\w{6}", ".tmp*"),
    (r"damaged-[-T\d]+", "damaged-*"),
    (r"\.new-[0-9a-f]{8}", ".new-*"),
    (r"\.before-[a-z0-9_]{8}", ".before-*"),
    (r"/(charts|tables)/(\.?)[^/.]+\.", r"/\1/\2*."),
)


@dataclass(frozen=True)
class Site:
    """A place where an apply changes something under its state: an operation and a pattern of paths."""

    op: str
    name: str

    def __str__(self) -> str:
        return f"{self.op} {self.name or '.'}"


@dataclass(frozen=True)
class Shim:
    """The library, and where it notes what it has done."""

    library: Path
    folder: Path

    @classmethod
    def build(cls, folder: Path) -> "Shim":
        """Compile it."""
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler: faults of the disk cannot be put under an apply")
        library, source = folder / "shim.so", Path(__file__).with_name("shim.c")
        command = [compiler, "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", library, source, "-ldl"]
        subprocess.run(command, check=True)
        return cls(library, folder)

    def environment(self, under: Path, **fault: object) -> dict[str, str]:
        """Return what an apply's environment needs so that its processes are disturbed under a directory."""
        self.put(0.0)
        found = {"LD_PRELOAD": str(self.library), "FAULT_SHARED": str(self._shared), "FAULT_UNDER": str(under)}
        return os.environ | found | {f"FAULT_{name.upper()}": str(value) for name, value in fault.items()}

    def fault(self, under: Path, act: str, site: Site, nth: int, group: bool = True) -> dict[str, str]:
        """Return the environment in which the nth time at a site an error comes, or the end: before, middle, after."""
        options: dict[str, object] = {"act": ERRORS.get(act, act), "lasting": LASTING.get(act, 0)}
        options |= {"group": 1} if group else {}
        return self.environment(under, op=site.op, name=site.name, nth=nth, **options)

    def put(self, clock: float) -> None:
        """Forget what was counted, and put the clock ahead by some seconds, or back."""
        self._shared.write_bytes(struct.pack(_LAYOUT, 0, 0, clock))

    def shift(self, seconds: float) -> None:
        """Move the clock of processes that run, without a look at what they count."""
        with self._shared.open("r+b") as stream:
            stream.seek(16)
            stream.write(struct.pack("=d", seconds))

    @property
    def fired(self) -> bool:
        """Whether the fault came to pass."""
        return bool(struct.unpack(_LAYOUT, self._shared.read_bytes())[1])

    @property
    def log(self) -> Path:
        """Return an empty file for what is changed."""
        file = self.folder / "log"
        file.write_text("", encoding="utf-8")
        return file

    @property
    def _shared(self) -> Path:
        return self.folder / "shared"


def sites(log: Path) -> Counter[Site]:
    """Return how often each site was come to, from what was noted."""
    found: Counter[Site] = Counter()
    for line in log.read_text(encoding="utf-8").splitlines():
        op, _, name = line.partition(" ")
        for pattern, instead in _RANDOM:
            name = re.sub(pattern, instead, name)
        found[Site(op, name)] += 1
    return found
