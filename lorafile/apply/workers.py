"""Who does the work of a plan on this machine: how many workers, what they need, and how many adapters in a pack."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafile.apply.work_groups import groups, is_spread
from lorafile.engine.metrics.registry import built_in
from lorafile.engine.metrics.tokenizers import LIBRARIES as TOKENIZER_LIBRARIES
from lorafile.environment import cores, gpus, installed, machine_memory, most_threads
from lorafile.errors import ArgumentError, LoraError, MissingExtra
from lorafile.plan.clusters.config import Cluster
from lorafile.plan.plan import Plan
from lorafile.specs.optimizers import DEFAULT_OPTIMIZER, OPTIMIZERS
from lorafile.specs.tables.methods import METHODS

if TYPE_CHECKING:
    from lorafile.apply.executors.loop import PoolExecutor

_SMALL_MODEL = 50_000_000  # parameters; below it a core does more alone than together with the others (benchmarks/)


def local_executor(plan: Plan, state: Path, workers: int | None, pack: str | int) -> "PoolExecutor":
    """Return the executor of this machine with as many workers as the device can use well.

    :raises MissingExtra: where torch is not installed
    """
    from lorafile.apply.executors.local import LocalPool
    from lorafile.apply.executors.loop import PoolExecutor

    if installed("torch") is None and plan.work:
        raise MissingExtra("lora apply", "torch")
    workers = workers or default_workers(plan)
    threads = max(1, min(cores() // workers, most_threads()))
    pool = LocalPool(state / "staging", workers, threads, most_threads(), gpus(), model_types(plan))
    return PoolExecutor(pool, pack_width(pack))


@dataclass(frozen=True)
class Placement:
    """Where the work of an apply runs, and how.

    :ivar cluster: None: this machine
    :ivar workers: at most; None: as many as the devices suggest
    :ivar pack: how many adapters are trained together, as `pack_width` reads it
    :ivar detach: give a Slurm cluster all there is to do, and leave it
    """

    cluster: Cluster | None = None
    workers: int | None = None
    pack: str | int = "auto"
    detach: bool = False

    @property
    def elsewhere(self) -> bool:
        """Whether workers run on other machines."""
        return self.cluster is not None and self.cluster.executor != "local"


@contextlib.contextmanager
def executors(placement: Placement, state: Path) -> Iterator[Callable[[Plan], "PoolExecutor"]]:
    """Yield what returns the executor of a plan; workers of a cluster go on from one plan to the next.

    :raises LoraError: when the cluster cannot be reached
    """
    cluster, workers, pack = placement.cluster, placement.workers, placement.pack
    if placement.detach and (cluster is None or cluster.executor != "slurm"):
        raise ArgumentError(
            "detach",
            "needs a Slurm cluster, whose jobs outlive this process (cluster, in lora.toml). On Ray, submit "
            "the apply itself: ray job submit --no-wait -- lora apply … --yes",
        )
    if cluster is None or cluster.executor == "local":
        most = workers or (cluster.workers if cluster else None)
        yield lambda plan: local_executor(plan, state, most, pack)
        return
    executor = cluster_executor(cluster, state, workers, pack)
    executor.detach = placement.detach
    try:
        yield lambda _: executor
    finally:
        if not executor.detached:
            executor.close()


def cluster_executor(cluster: Cluster, state: Path, workers: int | None, pack: str | int) -> "PoolExecutor":
    """Return the executor of a Ray or Slurm cluster.

    :raises LoraError: when it cannot be reached
    """
    from lorafile.apply.executors.loop import PoolExecutor

    staging, width = state / "staging", pack_width(pack)
    if cluster.executor == "ray":
        from lorafile.apply.executors.ray_pool import RayPool

        return PoolExecutor(RayPool(cluster, staging, workers), width)
    from lorafile.apply.collect import area_of
    from lorafile.apply.executors.slurm_pool import SlurmPool

    return PoolExecutor(SlurmPool(cluster, area_of(cluster, state), staging, workers), width)


def model_types(plan: Plan) -> tuple[str, ...]:
    """Return the kinds of models whose code workers need."""
    return tuple(sorted({str(model.settings.get("model_type")) for model in plan.graph.lock.models.values()}))


def pack_width(pack: str | int) -> int:
    """Return how many adapters are trained together at most; 0 where that is to be measured.

    :raises LoraError: for anything but `auto`, `off` and a whole number from 1
    """
    words = {"auto": 0, "off": 1}
    if str(pack) in words:
        return words[str(pack)]
    if not str(pack).isdecimal() or int(pack) < 1:
        raise LoraError(
            f'"{pack}" is not a valid way to pack adapters. Pass auto, off, or the number to train together.'
        )
    return int(pack)


def unused_workers(plan: Plan, workers: int | None) -> str:
    """Return what to say where more workers are asked for than the plan's bases leave room for; nothing elsewhere."""
    spread = [group for group in groups(plan) if group.spread]
    if not spread or not workers or workers == 1:
        return ""
    count = sum(not group.alone for group in spread)
    return (
        f"--workers {workers} does not speed up {count} of the runs: model.device_map spreads their base over all "
        f"{len(gpus())} GPUs, so they run one at a time, after the others."
    )


def default_workers(plan: Plan) -> int:
    """Return one worker for each GPU; on a CPU one for each core where models are small, else one with all cores.

    On a CPU there are no more than its memory holds of the largest piece of work.
    """
    machines = plan.machines
    if machines.cluster or machines.most_workers:
        return machines.most_workers or sum(kind.workers for kind in machines.gpus) or 1
    if all(is_spread(configuration) for configuration in plan.graph.spec.configurations):
        return 1
    if gpus():
        return len(gpus())
    small = all(model.parameters < _SMALL_MODEL for model in plan.graph.lock.models.values())
    peak = max((change.forecast.get("reserved_bytes", 0) for change in plan.work if change.forecast), default=0)
    return max(1, min(cores() if small else 1, machine_memory() // max(peak, 1)))


def check_libraries(plan: Plan) -> None:
    """Check, before anything is paid for, that what trains and scores is installed.

    :raises LoraError: naming the first method, optimizer, metric or tokenizer whose library is not
    """
    for change in plan.work:
        task = plan.graph.nodes[change.key].settings.get("task", {})
        if not plan.machines.cluster:
            _check_method(plan.graph.nodes[change.key].settings)
            _check_optimizer(plan.graph.nodes[change.key].settings)
        if task.get("output") == "lm_eval" and find_spec("lm_eval") is None:
            raise MissingExtra("evaluate.lm_eval_tasks", "lm-eval", "lm-eval")
        for name in plan.graph.nodes[change.key].settings.get("metrics", ()) if change.kind == "score" else ():
            library = built_in(name).library
            if library and find_spec(library) is None:
                raise MissingExtra(f"The metric {name}", library.replace("_", "-"), "metrics")
            _check_tokenizer(plan.graph.nodes[change.key].settings.get("options", {}).get(name, {}).get("tokenize", ""))


def _check_method(settings: dict[str, Any]) -> None:
    name = (settings.get("adapter") or {}).get("method", "")
    package = METHODS[name].package if name in METHODS else ""
    if package and "trainer" not in settings and installed(package) is None:
        raise MissingExtra(f'method = "{name}"', package, "methods")


def _check_optimizer(settings: dict[str, Any]) -> None:
    name = (settings.get("training") or {}).get("optim", DEFAULT_OPTIMIZER)
    if "trainer" not in settings and not OPTIMIZERS[name].installed:
        raise MissingExtra(f'train.optim = "{name}"', OPTIMIZERS[name].package, OPTIMIZERS[name].extra)


def _check_tokenizer(name: str) -> None:
    library, package = TOKENIZER_LIBRARIES.get(name, ("", ""))
    if library and find_spec(library) is None:
        raise LoraError(
            f'evaluate.tokenize = "{name}" needs {library}, which is not installed here. Install it with: '
            f"pip install '{package}'"
        )
