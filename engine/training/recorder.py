"""The record of a run: its curve while it trains, checkpoints now and then, and where it was resumed."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorafile.engine.request import Report, Request, Stopped
from lorafile.engine.training import checkpoint
from lorafile.engine.training.curve import Curve
from lorafile.errors import NodeError
from lorafile.files.digests import file_digest, text_digest
from lorafile.files.run_directory import CHECKPOINT, CurveFile, DamagedCheckpoint

_SHARE = 20  # by time a checkpoint is written at most after so many times what the last one took: 5 % of a run
_POLL_SECONDS = 0.2
WAIT_SECONDS = 300.0  # for a worker of a killed apply, which ends at its next step


@dataclass
class RunRecorder:
    """Records one run; without a directory it writes and keeps nothing.

    :ivar parts: into so many each micro-batch is cut, because a whole one did not fit into memory
    :ivar resumed_from: the steps from which the run went on after an interruption
    """

    request: Request
    report: Report
    file: CurveFile | None = None
    parts: int = 1
    steps: int = 0
    resumed_from: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    before: float = 0.0  # seconds of training before this attempt, as far as they led here
    clock: Callable[[], float] = time.monotonic  # of the run: where it shares a device, its share of the time
    _reads: str = ""
    _began: float = 0.0
    _saved: float = 0.0
    _kept: int = 0
    _took: float = 0.0

    @property
    def directory(self) -> Path:
        """The directory of the run's curve and checkpoint."""
        return Path(self.request.paths["checkpoint"])

    def seconds(self) -> float:
        """Return the time that the run has trained in all, over its interruptions."""
        return self.before + self.clock() - self._began

    def begin(self, run: checkpoint.Resumable, curve: Curve, steps: int) -> int:
        """Begin, or go on where an earlier attempt was interrupted; return how many steps are done.

        :param curve: filled with what was seen before
        """
        self.steps, self.before, self._began = steps, 0.0, self.clock()
        if self.file is None:
            return 0
        done = self._restore(run, curve)
        self._saved, self._took = time.monotonic(), 0.0
        about = {"key": self.request.key, "address": self.request.address, "steps": steps}
        self.file.begin({**about, "settings": self.request.settings}, curve.rows)
        return done

    def _restore(self, run: checkpoint.Resumable, curve: Curve) -> int:
        if not self._reads:  # the digest of the names and bytes of the files that are trained on
            inputs = self.request.inputs  # and of those that it starts from
            files = [file for role in ("train", "start") for file in sorted(inputs.get(role, {}).items())]
            self._reads = text_digest("".join(f"{name} {file_digest(Path(path))}\n" for name, path in files))
        if not (self.directory / CHECKPOINT).exists():
            return 0
        try:
            kept = checkpoint.load(self.directory, run, self.request.key, self._reads)
        except DamagedCheckpoint as damage:
            self.note(f"The checkpoint in {self.directory} is not used: {damage}. Training starts at step 1.")
            return 0
        curve.rows[:], curve.tokens, curve.supervised = kept["rows"], kept["tokens"], kept["supervised"]
        self.before, self.parts = kept["seconds"], max(self.parts, kept["parts"])
        self.resumed_from = [*kept["resumed_from"], kept["step"]]
        self.note(f"Resumes from step {kept['step']} of {self.steps}.")
        return int(kept["step"])

    def record_step(self, run: checkpoint.Resumable, curve: Curve) -> None:
        """Record a step; write a checkpoint where one is due, or where the run is asked to stop.

        :raises Stopped: when it is
        """
        step = len(curve.rows)
        if self.file is not None:
            self.file.add(curve.rows[-1])
        speed = curve.tokens / self.seconds()
        progress = {"step": step, "steps": self.steps, "loss": curve.rows[-1]["loss"], "tokens_per_second": speed}
        try:
            self.report(progress)
        except Stopped:
            self.save_checkpoint(run, curve)
            raise
        if step < self.steps and self._due(step):
            self.save_checkpoint(run, curve)

    def evaluate(self, run: checkpoint.ResumableModel, curve: Curve) -> str:
        """Evaluate the last step on validation where that is due; return why training diverged, or nothing.

        :raises Stopped: when the run is asked to stop; it is evaluated when it goes on
        """
        if run.validation is None or not run.validation.is_due(len(curve.rows)):
            return ""
        try:
            with run.optimizer_step.stored_weights():
                return run.validation.evaluate(run.model, len(curve.rows), curve.rows[-1]["epoch"], self.report)
        except Stopped:
            self.save_checkpoint(run, curve)
            raise

    def _due(self, step: int) -> bool:
        every = self.request.execution.get("save_steps")
        if every and step % every == 0:
            return True
        wait = 60 * float(self.request.execution.get("save_minutes") or 0)
        return wait > 0 and time.monotonic() - self._saved >= max(wait, _SHARE * self._took)

    def save_checkpoint(self, run: checkpoint.Resumable, curve: Curve) -> None:
        """Write a checkpoint, where there is not one of this step."""
        if self.file is None or self._kept == len(curve.rows):
            return
        began = time.monotonic()
        about = {"key": self.request.key, "reads": self._reads, "step": len(curve.rows), "steps": self.steps}
        about |= {"rows": curve.rows, "tokens": curve.tokens, "supervised": curve.supervised}
        about |= {"seconds": self.seconds(), "parts": self.parts, "resumed_from": self.resumed_from}
        try:
            checkpoint.save(self.directory, run, about)
        except OSError as error:  # the run itself is sound; it goes on without
            self.note(f"The checkpoint at step {len(curve.rows)} could not be written: {error.strerror or error}.")
        self._saved, self._kept = time.monotonic(), len(curve.rows)
        self._took = self._saved - began

    def note(self, sentence: str) -> None:
        """Report a sentence for the reader of the result, once; it is kept there."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            self.report({"note": sentence})

    def figures(self) -> dict[str, Any]:
        """Return what the result should say of how it was made."""
        split = self.parts if self.parts > 1 else None
        figures = {"resumed_from": self.resumed_from, "seconds_before": self.before, "notes": self.notes}
        return {name: value for name, value in {**figures, "micro_batch_split": split}.items() if value}


@contextlib.contextmanager
def record_run(request: Request, report: Report) -> Iterator[RunRecorder]:
    """Record a run; wait where the worker of a killed apply has not noticed yet that it is alone."""
    if "checkpoint" not in request.paths:
        yield RunRecorder(request, report)
        return
    with CurveFile(Path(request.paths["checkpoint"])) as file:
        recorder = RunRecorder(request, report, file)
        deadline = time.monotonic() + WAIT_SECONDS
        while not file.locked():
            if time.monotonic() > deadline:
                raise NodeError(
                    f"For {WAIT_SECONDS:g} s {file.holder()} has held this run, left over from an earlier apply. "
                    "Stop it (kill -9) and run lora apply again."
                )
            recorder.note("Waiting for another process that is still training this run.")
            time.sleep(_POLL_SECONDS)
            report({})
        yield recorder
