"""What git says of a file: which commit is checked out, whether the file is in it, and what it was at a commit."""

import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Registration:
    """Where a spec stood in git when an apply began.

    :ivar commit: the commit that was checked out; `spec`: git's digest (blob) of the spec as it was read
    :ivar dirty: whether any tracked file of the repository differed from that commit
    """

    commit: str
    spec: str
    dirty: bool

    def as_json(self) -> dict[str, str | bool]:
        """Return it as it is recorded with an attempt."""
        return asdict(self)


def registration(file: Path) -> Registration | None:
    """Return where a file stands in git; None without git, a repository, or a commit."""
    commit, blob = head(file), blob_of(file)
    if commit is None or blob is None:
        return None
    dirty = git(file, "status", "--porcelain", "--untracked-files=no")
    return Registration(commit, blob, dirty is None or bool(dirty.strip()))


def head(file: Path) -> str | None:
    """Return the commit that is checked out where a file is; None where there is none."""
    found = git(file, "rev-parse", "--verify", "--quiet", "HEAD")
    return None if found is None else found.decode().strip()


def blob_of(file: Path) -> str | None:
    """Return git's digest of a file as it is now."""
    found = git(file, "hash-object", "--no-filters", "--", file.name)
    return None if found is None else found.decode().strip()


def blob_at(file: Path, commit: str) -> str | None:
    """Return git's digest of a file at a commit; None where the commit is not here, or has no such file."""
    found = git(file, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}:./{file.name}")
    return None if found is None else found.decode().strip()


def content_at(file: Path, commit: str) -> bytes | None:
    """Return a file's bytes at a commit; None where the commit is not here, or has no such file."""
    return git(file, "cat-file", "blob", f"{commit}:./{file.name}")


def git(file: Path, *arguments: str) -> bytes | None:
    """Return what a git command prints in a file's folder; None where git is not there, or says no."""
    program = shutil.which("git")
    if program is None or not file.absolute().parent.is_dir():
        return None
    try:
        done = subprocess.run(  # noqa: S603  (no shell; the arguments are ours, and a name stands after --)
            [program, "-c", "core.fsmonitor=false", *arguments],
            cwd=file.absolute().parent,
            capture_output=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
