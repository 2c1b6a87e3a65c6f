"""A `train` node that a program carries out: asked, watched, and believed only as far as it can be checked."""

import json
import math
import shutil
import stat
import time
from pathlib import Path
from typing import Any

from lorafile.engine.batching.tokens import Tokens
from lorafile.engine.data.encode import load_tokenizer
from lorafile.engine.model.base import Bases
from lorafile.engine.model.head import load_tokens
from lorafile.engine.nodes.train import total_steps
from lorafile.engine.request import Report, Request, Result, Stopped
from lorafile.engine.trainers.checks import Checked, ModelFiles, check_adapter, check_curve
from lorafile.engine.trainers.curve import ProgramCurve, is_finite
from lorafile.engine.trainers.environment import PROGRAM, in_result, wrong_environment
from lorafile.engine.trainers.held_out import held_out_texts, texts_of
from lorafile.engine.trainers.process import (
    Ended,
    RunDirectory,
    interpreter,
    make_directory,
    sees_nothing_held_out,
    started,
    write_request,
)
from lorafile.engine.training.recorder import RunRecorder, record_run
from lorafile.errors import NodeError
from lorafile.files.jsonl import read_lines, write_lines
from lorafile.files.run_directory import DamagedCheckpoint, read_manifest, write_manifest
from lorafile.specs.tables.train import PROTOCOLS

_INTERRUPTED, _OUT_OF_MEMORY = 75, 76  # exit codes of the contract
_KILLED = -9
_MOST_BYTES = 1 << 20  # of result.json
_RESULT = "result.json"
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


def train_with_program(request: Request, out: Path, bases: Bases, report: Report) -> Result:
    """Train one adapter under one seed by the program that the spec names; its device is the program's."""
    bases.drop()
    with record_run(request, report) as recorder:
        return _ProgramRun(request, out, recorder).train(bases)


class _ProgramRun:
    """One run of a program."""

    def __init__(self, request: Request, out: Path, recorder: RunRecorder) -> None:
        self.request, self.out, self.recorder = request, out, recorder
        self.settings, self.program = request.settings["training"], request.paths["trainer"]
        self.who = f"trainer.{self.program['name']}"
        self.before, self.resumed_from = 0.0, list[int]()

    def train(self, bases: Bases) -> Result:
        """Run the program, and check what it left."""
        tokens = load_tokens(self.request, "train")
        self.steps = total_steps(len(tokens), self.settings)
        try:
            python = interpreter(self.program["python"])
            self._check_environment(python.versions, python.python)
        except NodeError as error:
            raise NodeError(f"{self.who}: {error}") from error
        run = make_directory(self.request, self.out)
        self._check_data(run)
        _write_rows(tokens, self.request, run.root / "train.jsonl")
        training = {name: value for name, value in self.settings.items() if name not in PROTOCOLS}
        write_request(self.request, run, training)
        model = Path(self.request.paths["model"])
        files = ModelFiles.of(model)
        self._begin(run)
        began = time.monotonic()
        file = self.recorder.file
        with started(self.request, run, python, None if file is None else file.fileno()) as process:
            self.gpu_use = process.gpu_use
            try:
                ended = process.wait(self._read_curve)
            except Stopped:
                ended = process.ended()
                if ended.code != 0 or not _is_plain(run.output / _RESULT):  # else it came to its end in the meantime
                    self._keep(time.monotonic() - began)
                    raise
        self._read_curve(end=True)
        self.seconds = self.before + time.monotonic() - began
        if changed := files.changed(model):
            raise NodeError(f"{self.who}: the base model's files were changed by the program: {', '.join(changed)}.")
        result = self._outcome(run, ended, tokens, bases)
        environment = {**in_result(python.versions, python.python), "trainer": self.program["name"]}
        return Result(result.outcome, result.message, result.figures, result.files, environment)

    def _check_environment(self, versions: dict[str, str], python: str) -> None:
        pins, lock = self.request.settings["trainer"]["requirements"], str(self.program["requirements"])
        if wrong := wrong_environment(pins, lock, self.program["python"], versions, python):
            raise NodeError(wrong)

    def _check_data(self, run: RunDirectory) -> None:
        """Refuse data of which a text is also held out.

        :raises NodeError: naming the line
        """
        held = held_out_texts(self.program["splits"])
        for name, written in self.program["data"].items():
            file = run.root / "data" / f"{name}{Path(written).suffix}"
            with file.open(encoding="utf-8", errors="replace") as stream:
                for number, line in enumerate(stream, 1):
                    where = f"{self.who}.data.{name}: line {number}"
                    split = next((held[text] for text in texts_of(_parsed(line, where)) if text in held), None)
                    if split is not None:
                        raise NodeError(f"{where} is also a row of the {split} split.")

    def _begin(self, run: RunDirectory) -> None:
        """Begin, or go on where an earlier attempt was interrupted."""
        self.curve = ProgramCurve(run.curve)
        self.curve.read()
        self._shown = len(self.curve.rows)
        if self.recorder.file is None:
            return
        try:
            kept = read_manifest(self.recorder.directory)
            self.before, self.resumed_from = float(kept["seconds"]), [*kept["resumed_from"], int(kept["step"])]
            self.recorder.note(f"{self.who} continues after step {kept['step']} of {self.steps}.")
        except (DamagedCheckpoint, OSError, KeyError):  # it begins, or its worker was killed
            self.before, self.resumed_from = 0.0, []
        self._begin_file()

    def _begin_file(self) -> None:
        if self.recorder.file is not None:
            about = {"key": self.request.key, "address": self.request.address, "steps": self.steps}
            self.recorder.file.begin({**about, "settings": self.request.settings}, self.curve.rows)

    def _read_curve(self, end: bool = False) -> None:
        """Pass on the steps that were taken since.

        :param end: the program has ended, and cannot be stopped any more
        :raises Stopped: when the run is asked to stop
        """
        if self.curve.read():
            self._begin_file()
        elif self.recorder.file is not None:
            for row in self.curve.rows[self._shown :]:
                self.recorder.file.add(row)
        self._shown = len(self.curve.rows)
        if not end:
            last = self.curve.rows[-1] if self.curve.rows else {"step": 0}
            self.recorder.report({"step": last["step"], "steps": self.steps} | _shown(last))

    def _keep(self, seconds: float) -> None:
        """Note how far an interrupted run came."""
        self.curve.read()
        if self.recorder.file is not None and self.curve.rows:
            step = self.curve.rows[-1]["step"]
            about = {"key": self.request.key, "step": step, "steps": self.steps}
            more = {"seconds": self.before + seconds, "resumed_from": self.resumed_from}
            write_manifest(self.recorder.directory, about | more)

    def _outcome(self, run: RunDirectory, ended: Ended, tokens: Tokens, bases: Bases) -> Result:
        """Return what a program's exit code and files mean."""
        if ended.code == _INTERRUPTED:
            self._keep(self.seconds - self.before)
            return Result("interrupted", f"{self.who} ended with exit code 75: it wants to continue later.")
        if ended.code == _OUT_OF_MEMORY:
            return Result("out-of-memory", f"{self.who} ended with exit code 76: out of memory.", {}, self._log(run))
        if ended.code == _KILLED:
            why = "was killed by SIGKILL; the system may have run out of memory"
            return Result("failed", f"{self.who} {why}: {run.last_line()}", {}, self._log(run))
        try:
            said = _result_of(run.output, ended.code, run.last_line(), self.who)
            figures = self._figures(ended, said)
            traces = check_curve(self.curve.rows, self.settings, self._planned_steps(), self.who)
            if said["outcome"] == "diverged" or not is_finite(self.curve.rows):
                write_lines(self.out / "curve.jsonl.gz", self.curve.rows)
                why = f"Training diverged: {self.who} reports it."
                return Result("diverged", why, figures, ["curve.jsonl.gz"])
            checked = self._checked(run, tokens, bases)
        except NodeError as error:
            text = str(error)
            message = text if text.startswith(self.who) else f"{self.who}: {text}"
            return Result("failed", message, {}, self._log(run))
        if self.curve.wrong:
            traces.append(f"{self.who}: {self.curve.wrong}.")
        traces += [f"{self.who} used {uuid}, which it was not given." for uuid in sorted(self.gpu_use.others)]
        traces = [*traces, *checked.traces]
        write_lines(self.out / "curve.jsonl.gz", self.curve.rows)
        figures |= checked.figures | ({"failed_checks": traces} if traces else {})
        return Result("done", "", figures, ["curve.jsonl.gz", *_ADAPTER, PROGRAM])

    def _planned_steps(self) -> int:
        """Return the steps that the program should take: of another objective, its own data decide how many."""
        own_data = self.request.settings["trainer"]["objective"] != "sft" and self.settings["max_steps"] <= 0
        return max((row["step"] for row in self.curve.rows), default=0) if own_data else self.steps

    def _checked(self, run: RunDirectory, tokens: Tokens, bases: Bases) -> Checked:
        left = run.output / "adapter"
        _check_files(run.output, left, self.who)
        return check_adapter(self.request, tokens, self.steps, left, self.out, bases, self.curve.rows)

    def _figures(self, ended: Ended, said: dict[str, Any]) -> dict[str, Any]:
        rows, section = self.curve.rows, self.request.settings["trainer"]
        figures: dict[str, Any] = {
            "seconds": self.seconds,
            "steps": len(rows),
            "trainer": {"name": self.program["name"], "command": self.program["line"]},
            "process_peak_bytes": ended.peak_bytes,
            "reads": "restricted" if sees_nothing_held_out(self.request) else "not restricted",
            "objective": section["objective"],
        }
        if self.gpu_use.peak_bytes:
            figures["process_gpu_peak_bytes"] = self.gpu_use.peak_bytes
        if rows:
            last = [row["loss"] for row in rows[-10:]]
            figures["final_loss"] = sum(last) / len(last)
            if all("tokens" in row for row in rows):
                figures["tokens"] = max(row["tokens"] for row in rows)
                figures["tokens_per_second"] = figures["tokens"] / self.seconds
        if said["figures"]:
            figures["reported"] = said["figures"]
        notes = list(self.recorder.notes)
        if ended.survivors:
            notes.append(f"{self.who} left {ended.survivors} processes running, which were ended.")
        resumed = sorted({*self.resumed_from, *self.curve.resumed_from} - {0})
        more = {"resumed_from": resumed, "seconds_before": self.before, "notes": notes}
        return figures | {name: value for name, value in more.items() if value}

    def _log(self, run: RunDirectory) -> list[str]:
        """Keep what the program printed."""
        if not run.log.is_file():
            return []
        shutil.copyfile(run.log, self.out / "log.txt")
        return ["log.txt"]


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {"loss": row["loss"]} if "loss" in row else {}


def _write_rows(tokens: Tokens, request: Request, file: Path) -> None:
    """Write what a program trains on: of each example its tokens, which of them are in the loss, and its text."""
    tokenizer = load_tokenizer(request.paths["model"], request.paths["trust_remote_code"])
    lines = read_lines(Path(request.inputs["train"]["examples.jsonl.gz"]))
    with file.open("w", encoding="utf-8") as stream:
        for number, line in enumerate(lines):
            ids, supervised = (part.tolist() for part in tokens.example(number))
            completion = tokenizer.decode(ids[int(tokens.prompts[number]) :], skip_special_tokens=True)
            row = {"input_ids": ids, "completion_mask": supervised, "prompt": line["prompt"], "completion": completion}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line) if line.strip() else {}
    except ValueError as error:
        raise NodeError(f"{where} is not JSON, so it cannot be compared with the held-out rows: {error}.") from error


def _result_of(output: Path, code: int, last_line: str, who: str) -> dict[str, Any]:
    """Return what a program says of its run.

    :raises NodeError: when it failed, or says nothing that can be understood
    """
    if code != 0:
        how = f"ended with exit code {code}" if code > 0 else f"was killed by signal {-code}"
        raise NodeError(f"{who} {how}: {last_line}")
    file = output / _RESULT
    if not _is_plain(file):
        raise NodeError(f"{who} ended with exit code 0 but left no result.json: {last_line}")
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
        said = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(said, dict) or said.get("outcome") not in ("done", "diverged"):
            raise ValueError('its outcome is neither "done" nor "diverged"')
        figures = said.get("figures", {})
        if not isinstance(figures, dict) or not all(map(_is_figure, figures.values())):
            raise ValueError("its figures are not numbers under names")
    except (OSError, ValueError) as error:
        raise NodeError(f"{who} left a result.json that cannot be used: {error}") from error
    return {"outcome": said["outcome"], "figures": figures}


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_plain(file: Path) -> bool:
    try:
        return stat.S_ISREG(file.lstat().st_mode)
    except OSError:
        return False


def _check_files(output: Path, left: Path, who: str) -> None:
    """Refuse an adapter that is not there, is pickled, or is a link to something else.

    :raises NodeError: when it is
    """
    link = next((entry for entry in (left, *output.rglob("*")) if entry.is_symlink()), None)
    if link is not None:
        raise NodeError(f"{who} left {link.relative_to(output)}, which is a link; only plain files are taken.")
    missing = next((name for name in _ADAPTER if not _is_plain(left / name)), None)
    if missing is None:
        return
    pickled = next((file.name for file in left.glob("*") if file.suffix in (".bin", ".pt", ".pth", ".pkl")), None)
    if pickled is not None:
        raise NodeError(f"{who} left pickled weights ({pickled}), which are never loaded; save them as safetensors.")
    raise NodeError(f"{who} left no output/adapter/{missing}.")
