"""What workers of a cluster finished while no apply listened: taken in before the next plan is made."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from lorafile.apply.applier import Applier
from lorafile.apply.executors.base import ExecutorCallbacks, Group
from lorafile.apply.executors.content import FileStore
from lorafile.apply.executors.spool import Area
from lorafile.apply.executors.wire import Checkpointed, Delivered, Files
from lorafile.engine.request import Request
from lorafile.engine.worker.channel import NodeEnd, NodeStart
from lorafile.errors import LoraError
from lorafile.files.digests import file_digest
from lorafile.files.run_directory import CHECKPOINT
from lorafile.plan.clusters.config import Cluster
from lorafile.plan.plan import Plan
from lorafile.state import Attempt, WritableState


def area_of(cluster: Cluster, state: Path) -> Area:
    """Return where a state's workers and the applying process meet.

    :raises LoraError: where no directory is named that both see
    """
    if not cluster.storage:
        raise LoraError(
            "A Slurm cluster needs a directory shared by this machine and the nodes. Set storage in lora.toml, for "
            'example storage = "/scratch/me/lora".'
        )
    storage = Path(cluster.storage).expanduser()
    if not storage.is_absolute():
        raise LoraError(f'storage = "{cluster.storage}" in lora.toml must be an absolute path.')
    return Area.of(storage, state)


def has_left(area: Area) -> bool:
    """Return whether something waits to be taken in."""
    return any(area.away.glob("*.json"))


def collect(plan: Plan, state: WritableState, area: Area) -> list[Attempt]:
    """Record what waits and belongs to a plan; return what was recorded."""
    if not has_left(area):
        return []
    store, letters = FileStore(area.storage), area.take_away()
    delivered = {letter.end.key: letter for letter in letters.values() if isinstance(letter, Delivered)}
    for letter in letters.values():
        if isinstance(letter, Checkpointed) and letter.key not in delivered:
            _restore(letter, state, store)
    staging = state.directory / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    wanted = {change.key for change in plan.work}
    collector = _Collector(delivered, store, staging)
    applied = Applier(plan.with_work(wanted & set(delivered)), state, collector, [], declares=False).run()
    recorded = {attempt.key for attempt in applied.attempts}
    for key in recorded | (set(plan.graph.nodes) - wanted):
        area.forget(key)
        area.forget(f"{key}-checkpoint")
    return applied.attempts


def _restore(letter: Checkpointed, state: WritableState, store: FileStore) -> None:
    """Put a checkpoint where the next attempt looks for it; the file that names the others comes last."""
    if not all(store.has(digest) for digest, _ in letter.files.values()):
        return
    run = state.running(Path(letter.key).name)
    run.mkdir(parents=True, exist_ok=True)
    for name in sorted(letter.files, key=lambda name: name == CHECKPOINT):
        shutil.copyfile(store.path(letter.files[name][0]), run / Path(name).name)


@dataclass
class _Collector:
    """An executor for which everything is done already: it reports what waits, each node after what it reads."""

    delivered: dict[str, Delivered]
    store: FileStore
    staging: Path
    _reported: set[str] = field(default_factory=set)

    def run(self, groups: list[Group], callbacks: ExecutorCallbacks) -> None:
        """Report the nodes of the groups until none is left that reads what is recorded."""
        while True:
            ready = [request for group in groups for request in callbacks.requests(group) if not request.awaits]
            fitting = [request for request in ready if request.key not in self._reported and self._fits(request)]
            if not fitting:
                return
            for request in fitting:
                letter = self.delivered[request.key]
                self._reported.add(request.key)
                callbacks.record([NodeStart(request.key), self._end(letter)])

    def _fits(self, request: Request) -> bool:
        """Return whether what waits read the very bytes that the node would read now, and is whole."""
        letter = self.delivered.get(request.key)
        if letter is None or not all(self.store.has(digest) for digest, _ in letter.files.values()):
            return False
        now = {role: {name: file_digest(Path(path)) for name, path in files.items()}
               for role, files in request.inputs.items()}  # fmt: skip
        return now == letter.reads

    def _end(self, letter: Delivered) -> NodeEnd:
        directory = self.staging / letter.end.key
        directory.mkdir(parents=True, exist_ok=True)
        _copy(letter.files, self.store, directory)
        return NodeEnd(**{**vars(letter.end), "directory": str(directory)})


def _copy(files: Files, store: FileStore, directory: Path) -> None:
    for name, (digest, _) in files.items():
        shutil.copyfile(store.path(digest), directory / Path(name).name)
