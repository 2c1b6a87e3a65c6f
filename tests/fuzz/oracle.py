"""What holds whatever the input is: a documented exit code, a sentence, in time, nothing touched that is not ours."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

CODES = (0, 1, 3, 4, 5, 6, 64)
MEMORY = 4 << 30  # bytes: what one command may take, whatever is asked of it
SECONDS = 60.0
_SECRET = "nobody may change this"
# What is not to be in any output: control characters that a terminal obeys, and those that turn its text around.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_BROKEN = re.compile(r"Traceback|bug in lorafile|\.py:\d+: \w*Warning|MemoryError|RecursionError|Fatal Python")
_HOME = {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float
    kilobytes: int
    hung: bool
    did: str


class Server:
    """The command line in forks of one process that has everything imported, or each time as a new process."""

    def __init__(self, folder: Path, tokenizers: bool = False) -> None:
        self._folder = folder
        self._python = [sys.executable, "-P", "-W", "ignore::DeprecationWarning"]
        words = [*self._python, str(Path(__file__).with_name("fork_server.py")), *["tokenizers"] * tokenizers]
        environment = {**os.environ, **_HOME}
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._read()

    def close(self) -> None:
        """End it."""
        self._process.communicate()

    def run(self, argv: list[str], box: "Box", seconds: float = SECONDS) -> Ended:
        """Run a command in a fork."""
        files = {name: str(self._folder / name) for name in ("out", "err", "log")}
        request = {"argv": argv, "cwd": str(box.work), "env": box.environment, "root": str(box.root), **files}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**request, "memory": MEMORY, "seconds": seconds}) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        out, err, did = (Path(file).read_bytes().decode("utf-8", "replace") for file in files.values())
        return Ended(out=out, err=err, did=did, **answer)

    def run_alone(self, argv: list[str], box: "Box", seconds: float = SECONDS) -> Ended:
        """Run a command as people do: in a new process, whose imports and end are its own."""
        words = [*self._python, "-c", "from lorafile.cli.main import main; main()", *argv]
        began, hung = time.monotonic(), False
        environment = {**os.environ, **_HOME, **box.environment}
        process = subprocess.Popen(
            words,
            cwd=box.work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            (out, err), hung = process.communicate(), True
        texts = (text.decode("utf-8", "replace") for text in (out, err))
        return Ended(process.returncode, *texts, time.monotonic() - began, 0, hung, "")

    def _read(self) -> dict[str, object]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the fork server has died"
        return json.loads(line)


class Box:
    """A directory in which a command runs; its home, its temporary files and its neighbours lie in it too."""

    def __init__(self, root: Path) -> None:
        self.root, self.work = root, root / "around" / "work"
        self.environment = {"HOME": str(root / "home"), "TMPDIR": str(root / "tmp"), "HF_HOME": str(root / "hub")}
        self.environment["XDG_CACHE_HOME"] = str(root / "hub")
        self.environment["TORCHINDUCTOR_CACHE_DIR"] = str(root / "hub")  # torch makes it when it is imported
        self.fresh()

    @property
    def canary(self) -> Path:
        """A file that no input may change; code in an input writes to it."""
        return self.root / "canary"

    def fresh(self) -> Path:
        """Empty the box, but for what is kept of models, and return the directory to work in."""
        kept, aside = self.root / "hub" / "lorafile", self.root.with_name("kept")
        if kept.is_dir():
            kept.rename(aside)
        shutil.rmtree(self.root, ignore_errors=True)
        for name in ("home", "tmp", "hub", "around/work", "around/neighbour"):
            (self.root / name).mkdir(parents=True)
        if aside.is_dir():
            aside.rename(kept)
        for file in (self.canary, self.root / "around" / "neighbour" / "kept"):
            file.write_text(_SECRET, encoding="utf-8")
        return self.work

    def seen(self) -> dict[str, tuple[int, int, int, str]]:
        """Return what lies in it: path -> type, size, time of change, and where a link points."""
        found: dict[str, tuple[int, int, int, str]] = {}
        stack = [self.root]
        while stack:
            for entry in os.scandir(stack.pop()):
                about = entry.stat(follow_symlinks=False)
                link = str(Path(entry.path).readlink()) if entry.is_symlink() else ""
                kind = stat.S_IFMT(about.st_mode)
                at = 0 if kind == stat.S_IFDIR else about.st_mtime_ns
                size = 0 if kind == stat.S_IFDIR else about.st_size
                found[os.path.relpath(entry.path, self.root)] = (kind, size, at, link)
                if kind == stat.S_IFDIR:
                    stack.append(Path(entry.path))
        return found


class Oracle:
    """Runs commands on inputs of one kind, holds what they did against what must hold, and counts."""

    def __init__(self, server: Server, box: Box) -> None:
        self.server, self.box = server, box
        self.numbers = {"tried": 0, "accepted": 0, "refused": 0}
        self.slowest = 0.0

    def __call__(
        self,
        *argv: str,
        writes: tuple[str, ...] = (),
        names: str | None = None,
        codes: tuple[int, ...] = CODES,
        alone: bool = False,
        starts: tuple[str, ...] = (sys.executable,),
        seconds: float = SECONDS,
        raw: bool = False,
    ) -> Ended:
        """Run a command and assert all that must hold.

        :param writes: what may be changed: paths under the box's working directory
        :param names: what a refusal has to name; `starts`: programs that it may start; `raw`: its output is data
        """
        before = self.box.seen()
        ended = (self.server.run_alone if alone else self.server.run)(list(argv), self.box, seconds)
        self._count(ended)
        told = (
            f"lora {' '.join(argv)[:300]} in {self.box.work}\n{ended.code} {ended.out[-1500:]!r} {ended.err[-1500:]!r}"
        )
        assert not ended.hung, f"hangs: {told}"
        assert not (broken := _BROKEN.search(ended.out + ended.err)), f"{broken[0]}: {told}"
        assert ended.code in codes, f"exit code {ended.code}: {told}"
        assert raw or not (control := _CONTROL.search(ended.out + ended.err)), (
            f"control character {control[0]!r}: {told}"
        )
        assert ended.code == 0 or (ended.out + ended.err).strip(), f"says nothing: {told}"
        assert ended.code in (0, 64) or names is None or names in ended.err, f"does not name {names}: {told}"
        assert len(ended.err) < 200_000, f"says too much: {len(ended.err)}"
        known = tuple(f"/{Path(program).name}" for program in (*starts, *(["git"] if self._registered() else [])))
        did = [one for one in ended.did.splitlines() if not (one.startswith("subprocess") and one.endswith(known))]
        assert not did, f"{did[:3]}: {told}"
        changed = {path for path, about in (self.box.seen().items() ^ before.items())}
        allowed = tuple(f"around/work/{name}" for name in writes)
        allowed = (*allowed, "hub")
        wrong = [path for path in changed if not path.startswith(allowed)]
        assert not wrong, f"changed {wrong[:3]}: {told}"
        assert self.box.canary.read_text(encoding="utf-8") == _SECRET, f"code ran: {told}"
        return ended

    def _registered(self) -> bool:
        """Whether a spec asks for git: what it says of itself is only then looked up."""
        return any(b"registered" in file.read_bytes() for file in self.box.work.glob("*.toml") if file.is_file())

    def _count(self, ended: Ended) -> None:
        self.numbers["tried"] += 1
        self.numbers["refused" if ended.code else "accepted"] += 1
        self.slowest = max(self.slowest, ended.seconds)
