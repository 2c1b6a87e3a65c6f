"""Runs the command line in forks of itself, each watched: what it writes, starts, connects to, and how long it takes.

Requests and answers are lines of JSON. It is started by `oracle.Server`, never imported.
"""

import gc
import json
import math
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

_PATHS = {  # events that change files -> which of their arguments are paths
    "os.rename": (0, 1),
    "os.link": (0, 1),
    "os.symlink": (1,),
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "os.utime": (0,),
    "sqlite3.connect": (0,),
}
_NEVER = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "socket.connect")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def watch(root: str, log: int) -> None:
    """Log whatever this process does outside a directory, starts, or unpickles."""

    def outside(path: Any, of_link: bool = False) -> bool:
        if isinstance(path, int):
            return False
        folder, name = os.path.split(os.fsdecode(path))
        real = f"{os.path.realpath(folder)}/{name}" if of_link and name else os.path.realpath(path)
        return not (real == root or real.startswith(root + "/") or real == os.devnull)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        told = ""
        if event == "open":
            path, _, flags = arguments
            told = str(path) if path is not None and (flags or 0) & _WRITES and outside(path) else ""
        elif event in _PATHS:
            paths = [arguments[number] for number in _PATHS[event]]
            paths = [_plain(path) for path in paths] if event == "sqlite3.connect" else paths
            told = " ".join(str(path) for path in paths if outside(path, of_link=True))
        elif event == "subprocess.Popen":
            told = str(arguments[0])
        elif event == "exec":
            file = getattr(arguments[0], "co_filename", "")
            told = file if file.startswith(root) else ""
        elif event in _NEVER:
            told = str(arguments)[:200]
        if told:
            os.write(log, f"{event}: {told}\n".encode("utf-8", "replace"))

    sys.addaudithook(hook)


def _plain(path: Any) -> Any:
    """Return the file that SQLite opens by a name."""
    if isinstance(path, str) and path.startswith("file:"):
        return path.removeprefix("file://").removeprefix("file:").partition("?")[0]
    return os.devnull if path in (":memory:", "") else path


def child(request: dict[str, Any]) -> None:
    """Be the command line; never returns."""
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    # Processor time, too: what hangs shall end though its parent was killed.
    limits = {"DATA": request["memory"], "CORE": 0, "CPU": 2 * math.ceil(request["seconds"])}
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    code = 99
    try:
        from lorafile.cli.main import main

        watch(os.path.realpath(request["root"]), log)
        main(request["argv"], prog_name="lora")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BaseException:
                code = 98
        os._exit(code)


def serve() -> None:
    """Answer requests until their end."""
    warm_up()
    gc.collect()
    gc.freeze()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        began = time.monotonic()
        pid = os.fork()
        if not pid:
            child(request)
        handle = os.pidfd_open(pid)
        in_time = bool(select.select([handle], [], [], request["seconds"])[0])
        if not in_time:
            os.killpg(pid, signal.SIGKILL)
        _, status, used = os.wait4(pid, 0)
        os.close(handle)
        answer = {"code": os.waitstatus_to_exitcode(status), "hung": not in_time, "kilobytes": used.ru_maxrss}
        print(json.dumps({**answer, "seconds": time.monotonic() - began}), flush=True)


def warm_up() -> None:
    """Import what commands import lazily, by running some."""
    import contextlib
    import io
    import tempfile

    from lorafile.cli.main import main

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        spec = Path(folder, "s.toml")
        spec.write_text('study.name="s"\nmodel.path="builtin:facts-llama"\ndata.path="builtin:facts"\n')
        hub = spec.read_text().replace("builtin:facts-llama", "nobody/nothing")
        Path(folder, "h.toml").write_text(hub)
        common = [str(spec), "--state", folder + "/state"]
        out = folder + "/p.json"
        if sys.argv[1:] == ["tokenizers"]:
            with contextlib.suppress(SystemExit):
                main(["data", "show", str(spec)])
        for words in (
            ["plan", *common, "--out", out],
            ["graph", *common],
            ["report", *common, "--out", folder + "/r"],
            ["fetch", folder + "/h.toml"],
        ):
            with contextlib.suppress(SystemExit):
                main(words)


if __name__ == "__main__":
    serve()
