"""The study that is disturbed, how it is applied, and the one question that is asked after every fault."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from lorafile import Study
from lorafile.cli.main import main
from lorafile.state import Attempt, State
from lorafile.state.integrity.verify import verify

# Fast, and yet all of it: candidates that share examples and one profile, checkpoints, scores.
STUDY = """
[study]
name = "faults"
seeds = [1, 2]
[model]
path = "{model}"
[data]
path = "{data}"
max_length = 32
split = {{ train = 16, validation = 4, test = 4 }}
[train]
max_steps = 9
save_steps = 4
learning_rate = 1e-2
per_device_train_batch_size = 8
[evaluate]
metrics = ["log_loss"]
max_new_tokens = 2
[profile]
warmup_steps = 1
steps = 1
new_tokens = 1
repeats = 1
[[sweep]]
name = "alpha"
lora.r = [2]
lora.lora_alpha = [2, 4, 8]
"""
EVERY_KIND = (
    STUDY.replace("seeds = [1, 2]", "seeds = [1]").replace("[2, 4, 8]", "[2]")
    + """
[inspect]
examples = 4
[truncate]
ranks = [1]
[merge]
examples = 4
dtypes = ["float32"]
"""
)
OPTIONS = ("--yes", "--pack", "off")
# One thread for each worker: threads that wait for each other on a busy machine take seconds for a step.
_LORA = "import os; os.cpu_count = lambda: 1; from lorafile.cli.main import main; main()"
_STATELESS = ("init", "lock")  # commands that know no state
Counts = Callable[..., None]
Results = dict[str, tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Bench:
    """A spec, and a state that one test has for itself.

    :ivar expected: the results of an apply that nothing disturbed; `seconds`: how long it took
    """

    spec: Path
    state: Path
    expected: Results = field(default_factory=dict)
    seconds: float = 0.0

    def command(self, *words: str) -> list[str]:
        """Return the command line of `lora …` on this state."""
        state = () if words[0] in _STATELESS else ("--state", str(self.state))
        return [sys.executable, "-P", "-c", _LORA, *words, *state]

    def start(self, *more: str, **options: Any) -> "subprocess.Popen[str]":
        """Begin an apply in a process group of its own."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL, "text": True}
        command = self.command("apply", str(self.spec), *OPTIONS, *more)
        return subprocess.Popen(command, cwd=self.spec.parent, start_new_session=True, **pipes, **options)

    def apply(self, *more: str, **options: Any) -> tuple[int, str]:
        """Apply, and return the exit code and all that was said."""
        process = self.start(*more, **options)
        said, _ = process.communicate(timeout=200)
        return process.returncode, said

    def lora(self, *words: str) -> tuple[int, str]:
        """Run another command in this process, and return its exit code and all that it said."""
        with contextlib.chdir(self.spec.parent):
            done = CliRunner().invoke(main, self.command(*words)[4:])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert "bug in lorafile" not in done.output, done.output
        return done.exit_code, done.output

    def disturbed(self, environment: dict[str, str], *words: str) -> tuple[int, str]:
        """Run a command in a process group of its own, and return its exit code and all that it said."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL, "text": True}
        options: dict[str, Any] = {"cwd": self.spec.parent, "start_new_session": True, "env": environment, **pipes}
        done = subprocess.run(self.command(*words), timeout=200, **options)
        return done.returncode, done.stdout

    def load(self) -> Study:
        """Return the study over this state."""
        return Study.load(self.spec, self.state)

    def attempts(self) -> dict[str, list[Attempt]]:
        """Return key -> its attempts."""
        return State.read(self.state).latest()

    def finished(self) -> dict[str, list[Attempt]]:
        """Return key -> its finished attempts, for all that have one."""
        found = {key: [one for one in attempts if one.finished] for key, attempts in self.attempts().items()}
        return {key: attempts for key, attempts in found.items() if attempts}

    def results(self) -> Results:
        """Return address -> the digests of its files, and the figures that are no measurement."""
        found: Results = {}
        for attempts in self.finished().values():
            last = attempts[-1]
            digests = "" if last.kind == "profile" else " ".join(f"{n}={d}" for n, d in sorted(last.outputs.items()))
            figures = dict(last.figures) if last.kind == "score" else {}
            found[last.address] = (digests, figures)
        return found


def lost_and_twice(bench: Bench, before: dict[str, list[Attempt]]) -> tuple[int, int]:
    """Return how much of what had finished is not as it was, and how much was finished more than once."""
    now = bench.finished()
    lost = sum(now.get(key, [])[:1] != attempts[:1] for key, attempts in before.items())
    return lost, sum(len(attempts) > 1 for attempts in now.values())


def assert_opens(bench: Bench, before: dict[str, list[Attempt]]) -> None:
    """Check that a state opens and verifies, that what had finished is there, and that nothing was finished twice."""
    found = verify(bench.state) if (bench.state / "objects").exists() else None
    assert found is None or found.sound, [*found.index, *found.objects]
    assert lost_and_twice(bench, before) == (0, 0), "something finished is gone, or was done again"


def assert_sound(bench: Bench, before: dict[str, list[Attempt]]) -> None:
    """Check the same, and that an apply completes the study with the results of one that nothing disturbed."""
    assert_opens(bench, before)
    before = bench.finished()
    applied = bench.load().apply(pack="off", lock_timeout=60)
    assert not applied.with_outcome("failed"), applied.with_outcome("failed")
    assert not {attempt.key for attempt in applied.attempts} & before.keys(), "something finished was done again"
    assert bench.load().plan().work == []
    assert_opens(bench, before)
    assert bench.results() == bench.expected


def assert_told(code: int, said: str) -> None:
    """Check that a failure is a sentence with a documented exit code: 1, or 4 where the state is what failed."""
    assert code in (1, 4), said
    assert "Traceback" not in said, said
    assert "bug in lorafile" not in said, said


def killed(process: "subprocess.Popen[str]") -> bool:
    """Whether a process was ended by a kill."""
    return process.returncode == -signal.SIGKILL
