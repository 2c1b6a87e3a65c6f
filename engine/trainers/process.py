"""A program's run: the directory it gets, the process it runs in, and what is seen of it while it trains."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lorafile.engine.request import Request, Stopped
from lorafile.engine.trainers import landlock
from lorafile.engine.trainers.environment import PROGRAM
from lorafile.engine.trainers.sandbox import descendants
from lorafile.environment import gpu_processes, gpus
from lorafile.errors import NodeError
from lorafile.files.digests import file_digest

_SANDBOX = Path(__file__).with_name("sandbox.py")
_POLL_SECONDS = 0.2
_MEASURE_SECONDS = 1.0
_AFTER_KILL_SECONDS = 20.0  # that the sandbox has beyond the program's own
_INHERITED = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUDA_HOME")
_SET = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "WANDB_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
    "PYTHONNOUSERSITE": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
}
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/opt", "/proc", "/sys")
_DEVICES = ("/dev",)
_PROBE = """
import importlib.metadata as m, json, platform, sys
print(json.dumps({"prefixes": [sys.prefix, sys.base_prefix, sys.exec_prefix], "paths": sys.path, "python":
platform.python_version(), "versions": {d.metadata["Name"].lower().replace("_", "-"): d.version
for d in m.distributions() if d.metadata["Name"]}}))
"""


@dataclass(frozen=True)
class Interpreter:
    """The Python of a program's environment, as it says itself.

    :ivar readable: directories that it reads to run
    :ivar versions: project -> version of everything that is installed in it
    """

    path: str
    python: str
    readable: tuple[str, ...]
    versions: dict[str, str]


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    :ivar code: its exit code, or minus the signal that ended it
    :ivar killed: it did not end when it was asked to
    :ivar survivors: how many processes it left running
    :ivar peak_bytes: the most memory that all of its processes had at a time
    """

    code: int
    stopped: bool
    killed: bool
    survivors: int
    peak_bytes: int


def interpreter(path: str) -> Interpreter:
    """Ask a Python for its version and libraries, in isolation from the environment and the user's own.

    :raises NodeError: when it cannot be run
    """
    try:
        done = subprocess.run(  # noqa: S603  (the interpreter that the user names)
            [path, "-I", "-c", _PROBE], stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=True
        )
        about = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise NodeError(f"the interpreter {path} cannot be run: {error}") from error
    readable = {os.path.realpath(place) for place in (*about["prefixes"], *about["paths"], path) if place}
    readable |= {str(Path(path).parent.parent.absolute())}
    return Interpreter(path, about["python"], tuple(sorted(readable)), about["versions"])


@dataclass(frozen=True)
class RunDirectory:
    """The directory of a program's run: copies of its files, the request, its data, and where it leaves its result.

    :ivar root: where the program is started
    :ivar kept: what survives an interruption: the program's checkpoint and its curve
    """

    root: Path
    kept: Path

    @property
    def output(self) -> Path:
        """Where the program leaves its result."""
        return self.root / "output"

    @property
    def checkpoint(self) -> Path:
        """Where the program keeps what it needs to go on after an interruption."""
        return self.kept / "checkpoint"

    @property
    def curve(self) -> Path:
        """The file to which the program appends its curve."""
        return self.kept / "curve.jsonl"

    @property
    def log(self) -> Path:
        """What the program printed."""
        return self.root / "log.txt"

    def last_line(self) -> str:
        """Return the last line that the program printed."""
        with contextlib.suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it printed nothing")
        return "it printed nothing"


def make_directory(request: Request, out: Path) -> RunDirectory:
    """Make the directory of a run, with copies of exactly the files that are in its key.

    :raises NodeError: when one of them is not what it was when the plan was made
    """
    program, section = request.paths["trainer"], request.settings["trainer"]
    root = out / "run"
    shutil.rmtree(root, ignore_errors=True)
    for name, digest in section["files"].items():
        _copy(Path(program["files"][name]), root / name, digest, f"trainer.{program['name']}: {name}")
    for name, digest in section["data"].items():
        source = Path(program["data"][name])
        _copy(source, root / _data_name(name, source), digest, f"trainer.{program['name']}.data.{name}: {source.name}")
    # Kept with the result, because the working tree moves on.
    texts = {name: _text((root / name).read_bytes()) for name in sorted(section["files"])}
    (out / PROGRAM).write_text(json.dumps(texts), encoding="utf-8")
    kept = Path(request.paths["checkpoint"]) / "trainer" if "checkpoint" in request.paths else root / "kept"
    run = RunDirectory(root, kept)
    for directory in (run.output, run.checkpoint, root / "home", root / "tmp"):
        directory.mkdir(parents=True, exist_ok=True)
    return run


def _text(content: bytes) -> str | dict[str, str]:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _data_name(name: str, source: Path) -> str:
    return f"data/{name}{source.suffix}"


def _copy(source: Path, target: Path, digest: str, what: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise NodeError(f"{what} cannot be read: {error.strerror}") from error
    if file_digest(target) != digest:
        raise NodeError(f"{what} was changed after the plan was made. Run lora plan again.")


def write_request(request: Request, run: RunDirectory, training: dict[str, Any]) -> None:
    """Write what the program is asked to do."""
    program, settings = request.paths["trainer"], request.settings
    section = settings["trainer"]
    data = {name: _data_name(name, Path(path)) for name, path in program["data"].items()}
    content = {
        "protocol": section["protocol"],
        "key": request.key,
        "seed": settings["seed"],
        "model": {
            "path": str(Path(request.paths["model"]).resolve()),
            "dtype": settings["model"]["dtype"],
            "quantization": settings["quantization"],
            "trust_remote_code": request.paths["trust_remote_code"],
        },
        "adapter": settings["adapter"],
        "training": training,
        "objective": section["objective"],
        "options": section["options"],
        "processes": section["processes"],
        "data": {"train": "train.jsonl", **data},
        "output": "output",
        "checkpoint": str(run.checkpoint.resolve()),
        "curve": str(run.curve.resolve()),
        "execution": {name: request.execution.get(name) for name in ("save_steps", "save_minutes")},
    }
    (run.root / "request.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def environment(request: Request, run: RunDirectory, python: Interpreter) -> dict[str, str]:
    """Return the environment variables of a program: a few of ours, those that the spec passes on, and its own home."""
    passed = (*_INHERITED, *request.paths["trainer"]["environment"])
    values = {name: os.environ[name] for name in passed if name in os.environ}
    values.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # as many as the worker itself uses
    home = run.root.resolve() / "home"
    values["PATH"] = os.pathsep.join([str(Path(python.path).parent.absolute()), values.get("PATH", os.defpath)])
    values |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "HF_HOME": str(home / "huggingface")}
    values |= {"TMPDIR": str(run.root.resolve() / "tmp"), "LORA_REQUEST": str(run.root.resolve() / "request.json")}
    return values | _SET


def command(request: Request, python: Interpreter) -> list[str]:
    """Return a program's command, with the interpreter's path in the place of its name."""
    first, *rest = request.settings["trainer"]["command"]
    return [python.path if first in ("python", "python3") else first, *rest]


@contextlib.contextmanager
def started(request: Request, run: RunDirectory, python: Interpreter, lock: int | None) -> Iterator["Process"]:
    """Start a program; when this is left, it has ended, whatever happened.

    :param lock: what holds the lock of the run, so that it stays locked while any process of the program runs
    """
    status = run.root / "status.json"
    job = {
        "command": command(request, python),
        "directory": str(run.root.resolve()),
        "environment": environment(request, run, python),
        "readable": readable(request, python) if landlock.version() else None,
        "writable": [str(run.root.resolve()), str(run.kept.resolve()), *_DEVICES],
        "log": str(run.log.resolve()),
        "status": str(status.resolve()),
        "stop_seconds": request.paths["trainer"]["stop_seconds"],
        "worker": os.getpid(),
    }
    file = run.root / "job.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    process = subprocess.Popen(  # noqa: S603  (the user's own program, named in the user's own spec)
        [sys.executable, "-E", "-S", str(_SANDBOX), str(file.resolve())],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=[] if lock is None else [lock],
    )
    running = Process(process, status, float(job["stop_seconds"]))
    try:
        yield running
    finally:
        running.end()


def readable(request: Request, python: Interpreter) -> list[str]:
    """Return what a program may read besides its own directory: the system, its libraries, and the model.

    Where its libraries lie around what it must not see, as those of a checkout do, they are left out.
    """
    protected = [Path(path) for path in request.paths["trainer"]["protected"]]
    libraries = [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if path]
    places = [place for place in (*python.readable, *libraries) if not _is_around(Path(place), protected)]
    return [*_SYSTEM, *places, *map(str, _places(Path(request.paths["model"])))]


def sees_nothing_held_out(request: Request) -> bool:
    """Return whether the kernel keeps a program from every held-out example."""
    protected = [Path(path) for path in request.paths["trainer"]["protected"]]
    open_to_it = [*map(Path, _SYSTEM), *_places(Path(request.paths["model"]))]
    return landlock.version() > 0 and not any(_is_around(place, protected) for place in open_to_it)


def _is_around(place: Path, protected: list[Path]) -> bool:
    return any(each.is_relative_to(place.resolve()) for each in protected)


def _places(model: Path) -> set[Path]:
    """Return the directory of a model, and of the files that it links to: a hub's cache holds them elsewhere."""
    return {model.resolve(), *(file.resolve().parent for file in model.rglob("*") if file.is_symlink())}


@dataclass
class GpuUse:
    """What the processes of a program hold on GPUs, as NVML counts it.

    :ivar peak_bytes: the most that all of them held at a time
    :ivar others: the uuids of GPUs that they used without having been given them
    """

    peak_bytes: int = 0
    others: set[str] = field(default_factory=set)
    _measured: float = 0.0

    def measure(self, sandbox: int) -> None:
        """Measure, at most once a second.

        :param sandbox: the process below which all of the program's are
        """
        if time.monotonic() - self._measured < _MEASURE_SECONDS:
            return
        self._measured = time.monotonic()
        below = set(descendants(sandbox))
        held = {
            uuid: sum(size for process, size in there.items() if process in below)
            for uuid, there in gpu_processes().items()
        }
        given = {gpu["uuid"] for gpu in gpus()}
        self.peak_bytes = max(self.peak_bytes, sum(held.values()))
        if not any(uuid.startswith("MIG-") for uuid in given):  # an instance has not its GPU's uuid
            self.others |= {uuid for uuid, size in held.items() if size and uuid not in given}


@dataclass
class Process:
    """A program that runs.

    :ivar gpu_use: what it was seen to hold on GPUs so far
    """

    process: "subprocess.Popen[bytes]"
    status: Path
    stop_seconds: float
    gpu_use: GpuUse = field(default_factory=GpuUse)

    def wait(self, on_poll: Callable[[], None]) -> Ended:
        """Wait for the end of the program.

        :param on_poll: called several times a second
        :raises Stopped: when it does; the program has saved a checkpoint then, or was killed
        """
        while self.process.poll() is None:
            try:
                on_poll()
            except Stopped:
                self.end()
                raise
            self.gpu_use.measure(self.process.pid)
            time.sleep(_POLL_SECONDS)
        return self.ended()

    def end(self) -> None:
        """Ask the program to stop, wait, and do not wait for ever."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(self.stop_seconds + _AFTER_KILL_SECONDS)
            except subprocess.TimeoutExpired:  # it kills what it runs when it is killed itself
                self.process.kill()
                self.process.wait()

    def ended(self) -> Ended:
        """Return how the program ended.

        :raises NodeError: when its sandbox was killed
        """
        try:
            return Ended(**json.loads(self.status.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise NodeError("the process that watches the program was killed.") from error
