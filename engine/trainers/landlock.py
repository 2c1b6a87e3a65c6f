"""What a process and its children may open, enforced by the Linux kernel (Landlock); the standard library alone.

Source of numbers and structures: `include/uapi/linux/landlock.h`. Needs no privilege.
"""

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # system calls, the same on every architecture
_VERSION = 1  # a flag of the first: return which version of Landlock there is
_NO_NEW_PRIVILEGES = 38
_BENEATH = 1  # a rule for a path and all that is below it
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIRECTORY, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_READ = _EXECUTE | _READ_FILE | _READ_DIRECTORY
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_ALL = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}  # version -> everything that it can forbid


def version() -> int:
    """Return the version of Landlock in this kernel; 0 where it has none."""
    if sys.platform != "linux":
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(_CREATE, None, 0, _VERSION)))


def restrict(readable: Iterable[str], writable: Iterable[str]) -> None:
    """Forbid this process, and all that it starts, every file that is not below one of these paths.

    :param readable: may be read and executed; what does not exist is left out
    :param writable: may be read, written, made and removed
    :raises OSError: when the kernel refuses
    """
    libc = ctypes.CDLL(None, use_errno=True)
    everything = _ALL[min(version(), max(_ALL))]
    attributes = struct.pack("Q", everything)
    rules = _checked(libc.syscall(_CREATE, attributes, len(attributes), 0))
    for paths, wanted in ((readable, _READ), (writable, everything)):
        for path in filter(os.path.exists, paths):
            allowed = wanted if Path(path).is_dir() else wanted & _OF_FILES
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = struct.pack("=Qi", allowed & everything, place)
            _checked(libc.syscall(_ADD_RULE, rules, _BENEATH, rule, 0))
            os.close(place)
    _checked(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _checked(libc.syscall(_RESTRICT, rules, 0))
    os.close(rules)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
