"""The pool of a Slurm cluster: a job for each worker, submitted by submitit; files in a directory that nodes share."""

import contextlib
import getpass
import itertools
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorafile.apply.executors.base import Phase, WorkerHandle
from lorafile.apply.executors.content import ContentIndex, FileStore, digests_of
from lorafile.apply.executors.process import read_tail
from lorafile.apply.executors.remote import Gone, RemoteWorker
from lorafile.apply.executors.spool import BEAT_SECONDS, Area, LineReader, Spool, in_hand, write_whole
from lorafile.apply.executors.wire import WireError, decode
from lorafile.engine.worker.channel import Work
from lorafile.errors import LoraError, MissingExtra
from lorafile.plan.clusters.config import Cluster
from lorafile.specs.values import in_base_units

QUEUE_SECONDS = 30.0  # between two questions to Slurm, for all jobs at once
_LISTED_SECONDS = 60.0  # a job that was submitted less long ago may not be listed yet
_ALIVE = ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "RESIZING", "SUSPENDED", "STAGE_OUT", "SIGNALING")
_JOB_NAME = "lorafile"
_SIGNAL = "B:TERM@90"  # before a job's time is over: a run needs some seconds to write a checkpoint


@dataclass
class JobStates:
    """What Slurm says of this user's jobs; asked for now and then, without waiting for the answer.

    :ivar states: job -> state, as `squeue` has it
    :ivar answered_at: when the question was asked whose answer this is
    """

    states: dict[str, str] = field(default_factory=dict)
    answered_at: float = 0.0
    _question: "subprocess.Popen[str] | None" = None
    _asked_at: float = 0.0

    def look(self) -> None:
        """Take an answer in, where there is one; ask, where it is time to."""
        if self._question is not None and self._question.poll() is not None:
            out = self._question.communicate()[0]
            if self._question.returncode == 0:  # else its controller is away for a moment
                pairs = [line.split() for line in out.splitlines()]
                self.states = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
                self.answered_at = self._asked_at
            self._question = None
        if self._question is None and time.monotonic() - self._asked_at > QUEUE_SECONDS:
            self._asked_at = time.monotonic()
            about = [f"--name={_JOB_NAME}", f"--user={getpass.getuser()}"]
            command = ["squeue", "--noheader", "--states=all", *about, "--format=%A %T"]
            self._question = subprocess.Popen(  # noqa: S603
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )

    def end_of(self, job: str, submitted_at: float) -> str:
        """Return how a job has ended, as far as that is known; nothing while it waits or runs."""
        if self.answered_at < submitted_at + _LISTED_SECONDS and job not in self.states:
            return ""
        state = self.states.get(job, "no longer known")
        return "" if state in _ALIVE else state


class SpoolTransport:
    """How the job of a worker is reached."""

    def __init__(self, pool: "SlurmPool", spool: Spool, job: str) -> None:
        self.pool, self.spool, self.job = pool, spool, job
        self.reader, self._submitted_at, self._heard = LineReader(spool.events), time.monotonic(), False

    def send(self, text: str) -> None:
        """Append an order; files that it names are put into the shared directory before."""
        letter = decode(text)
        if isinstance(letter, Work):
            self.supply(sorted(digests_of(letter)))
        self.spool.append(self.spool.orders, text)

    def receive(self) -> list[str] | None:
        """Return what the worker said; None where it said nothing.

        :raises Gone: when its job has ended
        :raises LoraError: when it ended before the worker began
        """
        if lines := self.reader.read():
            self._heard = True
            return lines
        if end := self.pool.jobs.end_of(self.job, self._submitted_at):
            if not self._heard and end in ("FAILED", "COMPLETED"):
                raise LoraError(
                    f"The Slurm job {self.job} ended ({end}) before its worker started. {last_line(self.log())} "
                    f"Check slurm.setup and the other settings of the cluster in lora.toml. Its log is in "
                    f"{self.spool.root}."
                )
            raise Gone(f"is gone with its Slurm job {self.job} ({end})")
        return None

    def fetch(self, digest: str, _size: int, target: Path) -> bool:
        """Copy a file from the shared directory, once it is seen there."""
        store = self.pool.store
        if not store.path(digest).exists():
            return False
        if not store.has(digest):
            raise Gone("left a file that does not match its digest")
        shutil.copyfile(store.path(digest), target)
        return True

    def supply(self, digests: list[str]) -> None:
        """Put files into the shared directory."""
        for digest in digests:
            if not self.pool.store.path(digest).exists():
                self.pool.store.put(self.pool.index.path_of(digest), digest)

    def release(self, name: str) -> None:
        """Forget what is recorded."""
        self.pool.area.forget(name)
        self.pool.area.forget(f"{name}-checkpoint")

    def log(self) -> str:
        """Return the end of what the job printed."""
        return "".join(read_tail(file) for file in sorted(self.spool.root.glob("*.out")))

    def close(self) -> None:
        """Give the worker up, then cancel its job, which the word may not reach."""
        self.spool.close()
        cancel(self.job)


def last_line(log: str) -> str:
    """Return the last line of a log as a sentence."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f"Its last line: {lines[-1][:200]}" if lines else "It printed nothing."


def cancel(job: str) -> None:
    """Cancel a job, without waiting for it."""
    with contextlib.suppress(OSError):
        subprocess.Popen(["scancel", job], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603, S607


@dataclass
class SlurmPool:
    """Workers of a Slurm cluster, each a job.

    :ivar workers: at most; None: as many as the cluster's tables say
    """

    cluster: Cluster
    area: Area
    staging: Path
    workers: int | None = None
    keeps_workers = True
    index: ContentIndex = field(default_factory=ContentIndex)
    jobs: JobStates = field(default_factory=JobStates)
    _beats: Any = field(default_factory=itertools.count)
    _beat_at: float = 0.0

    def __post_init__(self) -> None:
        check_slurm()
        self.area.make()
        self.store = FileStore(self.area.storage)
        self._session = uuid.uuid4().hex

    def limit(self, _phase: Phase) -> int:
        """Return how many workers there are at most.

        :raises LoraError: when neither lora.toml nor --workers says how many
        """
        devices = sum(device.count // device.gpus_per_worker for device in self.cluster.device)
        most = self.workers or self.cluster.workers or devices
        if not most:
            raise LoraError("The number of concurrent jobs is unknown. Set workers in lora.toml, or pass --workers.")
        return most

    def start(self, _phase: Phase, _workers: Sequence[WorkerHandle], _urgency: Callable[[], int]) -> RemoteWorker:
        """Submit a job; when and where it starts is Slurm's.

        :raises LoraError: when Slurm refuses it
        """
        name = f"slurm-{uuid.uuid4().hex[:8]}"
        spool = Spool(self.area.workers / name)
        spool.root.mkdir(parents=True)
        job = self._submit(spool)
        write_whole(spool.job_file, job)
        transport = SpoolTransport(self, spool, job)
        return RemoteWorker(f"Slurm job {job}", transport, self.index, self.staging / name, None)

    def wait(self, _workers: Sequence[WorkerHandle], seconds: float) -> None:
        """Wait a moment; let the workers know that an apply listens; ask Slurm now and then."""
        if time.monotonic() - self._beat_at > BEAT_SECONDS:
            self._beat_at = time.monotonic()
            write_whole(self.area.root / "driver", f"{self._session} {next(self._beats)}")
        self.jobs.look()
        time.sleep(min(seconds, 0.2))

    def adopt(self) -> list[tuple[WorkerHandle, list[Work]]]:
        """Return the workers that an earlier apply has left, with the work that they have in hand.

        One that has ended, or whose spool another version of lorafile wrote, is given up.
        """
        adopted: list[tuple[WorkerHandle, list[Work]]] = []
        for root in sorted(self.area.workers.iterdir()):
            spool = Spool(root)
            if spool.closed:
                continue
            try:
                job = spool.job_file.read_text(encoding="utf-8")
                transport = SpoolTransport(self, spool, job)
                left = in_hand(LineReader(spool.orders).read(), transport.reader.read())
            except (OSError, WireError):  # it was killed before it had submitted a job
                spool.close()
                continue
            if left.gone or not left.works:
                transport.close()
                continue
            transport.reader.put_back(left.said)
            worker = RemoteWorker(f"Slurm job {job}", transport, self.index, self.staging / root.name, None)
            worker.adopt(left.works, self.staging.parent / "running", spool.claimed)
            adopted.append((worker, left.works))
        return adopted

    def _submit(self, spool: Spool) -> str:
        import submitit

        executor = submitit.SlurmExecutor(folder=spool.root)
        table = self.cluster.slurm
        executor.update_parameters(
            job_name=_JOB_NAME, use_srun=False, stderr_to_stdout=True, setup=table.setup or None,
            time=None, wckey=None, additional_parameters=self._options(),
        )  # fmt: skip
        arguments = [str(self.area.storage), str(self.area.root), str(spool.root), str(in_base_units(table.leave)[1])]
        module = "lorafile.apply.executors.slurm_job"
        command = shlex.join([sys.executable, "-P", "-m", module, *arguments])
        try:
            # A plain command: what submitit's other ways submit is pickled.
            return str(executor._submit_command(f"exec {command}").job_id)
        except Exception as error:  # FailedJobError with what sbatch said
            raise LoraError(
                f"Slurm rejected the job: {last_line(str(error))} See [cluster.NAME.slurm] in lora.toml."
            ) from None

    def _options(self) -> dict[str, Any]:
        """Return the options of `sbatch`: a job that was lost is never started again by Slurm, but by the loop."""
        table = self.cluster.slurm
        given = table.model_dump(exclude_none=True, exclude={"setup", "leave", "extra"})
        named = {name.replace("_", "-"): value for name, value in given.items()}
        return named | {"signal": _SIGNAL} | table.extra | {"no-requeue": True}


def check_slurm() -> None:
    """Look for what is needed to submit a job.

    :raises MissingExtra: where submitit is not installed
    :raises LoraError: where there is no Slurm
    """
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise MissingExtra("lora apply --cluster", "submitit", "slurm") from None
    for program in ("sbatch", "squeue", "scancel"):
        if shutil.which(program) is None:
            raise LoraError(
                f"{program} is not on this machine. Run lora where you submit jobs, such as on a login node."
            )
