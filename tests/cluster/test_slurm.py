"""A study on two Slurm nodes, and what is killed, frozen, requeued or cancelled under it."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'lorafile[slurm]'")
pytest.importorskip("torch")

from cluster_fixture import (
    Apply,
    attempts,
    checked,
    parent,
    results,
    seen_running,
    when,
    worker_processes,
)

from lorafile.environment import environment
from lorafile.plan.clusters.config import find_cluster

HERE = Path(__file__).parent
pytestmark = pytest.mark.timeout(900)  # on a loaded machine; else each test takes about a minute


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """Two nodes; the directory of their files."""
    if os.geteuid() or not all(shutil.which(program) for program in ("slurmctld", "slurmd", "munged", "sbatch")):
        pytest.skip("Slurm is not installed here, or this is not root: apt-get install slurm-wlm munge")
    where = Path(tempfile.mkdtemp(prefix="lora-slurm-"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    before = {name: os.environ.get(name) for name in ("SLURM_CONF", "OMP_NUM_THREADS", "TMPDIR")}
    agents = where / "agents"
    agents.mkdir()
    os.environ.update(SLURM_CONF=str(where / "slurm.conf"), OMP_NUM_THREADS="1", TMPDIR=str(agents))
    try:
        start = [str(HERE / "start_slurm.sh"), str(where), str(port)]
        started = subprocess.run(start, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60)
        if started.returncode:
            pytest.fail(f"Slurm does not start: {started.stderr}")
        yield where
    finally:
        subprocess.run([str(HERE / "stop_slurm.sh"), str(where)], check=True)
        shutil.rmtree(where, ignore_errors=True)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def lost(spec: Path) -> list[str]:
    return [attempt.message for attempt in attempts(spec, "slurm") if attempt.outcome == "interrupted"]


def test_a_study_on_two_nodes_and_one_killed_worker(
    cluster: Path, spec: Path, same_as_local: Callable[[Path, str], None], counts: Callable[..., None]
) -> None:
    apply = Apply(spec, "slurm", "--cluster", "lab")
    event = apply.until_trains()
    worker = worker_processes(cluster)[-1]
    os.kill(worker, signal.SIGSTOP)  # while it is looked at
    assert seen_running(spec, "slurm", event)
    os.kill(worker, signal.SIGKILL)
    assert apply.end() == 0, apply.errors
    assert lost(spec) == ["The worker process was killed by SIGKILL."]
    same_as_local(spec, "slurm")
    counts("slurm", applies=2, nodes=len(results(spec, "slurm")), killed_workers=1)


def test_a_check_says_what_a_worker_has_and_adds_it_for_plans(cluster: Path, spec: Path) -> None:
    assert checked("lab", spec, "--write")["environment"]["device"] == environment()["device"]
    assert '[[cluster.lab.device]]\nname = "cpu"' in (spec.parent / "lora.toml").read_text(encoding="utf-8")
    assert find_cluster("lab", spec).device[0].name == "cpu"


def scontrol(*words: str) -> str:
    return subprocess.run(["scontrol", *words], capture_output=True, text=True).stdout


def _worker(cluster: Path, spec: Path) -> int:
    return worker_processes(cluster)[-1]


def _agent(cluster: Path, spec: Path) -> int:
    return parent(parent(_worker(cluster, spec)))


def _job(cluster: Path, spec: Path) -> str:
    environment = Path(f"/proc/{_agent(cluster, spec)}/environ").read_text(encoding="utf-8").split("\0")
    return next(line.partition("=")[2] for line in environment if line.startswith("SLURM_JOB_ID="))


def freeze_worker(cluster: Path, spec: Path) -> None:
    os.kill(_worker(cluster, spec), signal.SIGSTOP)


def kill_agent(cluster: Path, spec: Path) -> None:
    os.kill(_agent(cluster, spec), signal.SIGKILL)


def freeze_agent(cluster: Path, spec: Path) -> None:
    os.kill(_agent(cluster, spec), signal.SIGSTOP)


def end_agent(cluster: Path, spec: Path) -> None:
    """As Slurm does it before a job's time is over, or before it takes its node for another."""
    os.kill(_agent(cluster, spec), signal.SIGTERM)


def warn_agent(cluster: Path, spec: Path) -> None:
    os.kill(_agent(cluster, spec), signal.SIGUSR2)


def cancel_job(cluster: Path, spec: Path) -> None:
    subprocess.run(["scancel", "--signal=KILL", "--full", _job(cluster, spec)], check=True)


def kill_daemon(cluster: Path, spec: Path) -> None:
    """The node is down for Slurm, which starts its jobs nowhere else; the job's processes live on."""
    environment = Path(f"/proc/{_agent(cluster, spec)}/environ").read_text(encoding="utf-8").split("\0")
    node = next(line.partition("=")[2] for line in environment if line.startswith("SLURMD_NODENAME="))
    os.kill(int((cluster / f"slurmd-{node}.pid").read_text(encoding="utf-8")), signal.SIGKILL)


def start_daemons(cluster: Path) -> None:
    for node in ("n1", "n2"):
        pid = (cluster / f"slurmd-{node}.pid").read_text(encoding="utf-8").strip()
        if not Path(f"/proc/{pid}").exists():
            subprocess.run(["slurmd", "-N", node], check=True)


def requeue_job(cluster: Path, spec: Path) -> None:
    scontrol("requeue", _job(cluster, spec))


FAULTS = {
    "a worker is frozen": (freeze_worker, "did not respond for 30 s and was stopped."),
    "an agent is killed": (kill_agent, "The worker process"),
    "an agent is frozen": (freeze_agent, "did not respond for 30 s."),
    "SIGTERM": (end_agent, "was stopped by SIGTERM."),
    "SIGUSR2": (warn_agent, "was stopped by SIGUSR2."),
    "a job is cancelled": (cancel_job, "The worker process"),
    "a job is requeued": (requeue_job, "The worker process"),
    "a node's daemon is killed": (kill_daemon, "is gone with its Slurm job"),
}
MAY_COST_NOTHING = ("a job is requeued", "a node's daemon is killed")  # the worker may end its work before it is lost


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_lost_is_done_by_others(
    cluster: Path,
    spec: Path,
    fault: str,
    same_as_local: Callable[[Path, str], None],
    full: bool,
    counts: Callable[..., None],
) -> None:
    if not full:
        pytest.skip("the whole table of faults is for --full")
    harm, message = FAULTS[fault]
    apply = Apply(spec, "slurm", "--cluster", "lab")
    apply.until_trains()
    harm(cluster, spec)
    assert apply.end() == 0, apply.errors
    told = lost(spec)
    assert told or fault in MAY_COST_NOTHING
    assert all(message in each for each in told), told
    start_daemons(cluster)
    same_as_local(spec, "slurm")
    counts("slurm", applies=2, nodes=len(results(spec, "slurm")), faults=1)


def test_sigterm_leaves_a_checkpoint_from_which_another_node_goes_on(
    cluster: Path,
    spec: Path,
    same_as_local: Callable[[Path, str], None],
    full: bool,
    counts: Callable[..., None],
) -> None:
    """Six preemptions with progress between them: more than a machine may go away without any."""
    if not full:
        pytest.skip("the whole table of faults is for --full")
    text = spec.read_text(encoding="utf-8").replace("max_steps = 150", "max_steps = 4000")
    spec.write_text(text.replace("lora.r = [2, 4]", "lora.r = [2]").replace("[1, 2]", "[1]"), encoding="utf-8")
    apply = Apply(spec, "slurm", "--cluster", "lab", "--workers", "1")
    step = 0
    for _ in range(6):
        step = apply.until_trains(step + 50)["step"]
        end_agent(cluster, spec)
    assert apply.end() == 0, apply.errors
    (trained,) = [one for one in attempts(spec, "slurm") if one.kind == "train" and one.outcome == "done"]
    assert len(trained.figures["resumed_from"]) == 6
    assert len(lost(spec)) == 6
    counts("slurm", applies=1, preemptions=6)


def test_what_workers_finish_without_an_apply_is_taken_in_by_the_next(
    cluster: Path,
    spec: Path,
    same_as_local: Callable[[Path, str], None],
    full: bool,
    counts: Callable[..., None],
) -> None:
    if not full:
        pytest.skip("the whole table of faults is for --full")
    apply = Apply(spec, "slurm", "--cluster", "lab")
    apply.until_trains()
    apply.process.kill()
    apply.process.communicate()
    away = next((spec.parent / "storage" / "states").iterdir()) / "away"
    when(lambda: list(away.glob("*.json")))
    again = Apply(spec, "slurm", "--cluster", "lab")
    assert again.end() == 0, again.errors
    same_as_local(spec, "slurm")
    assert not list(away.glob("*.json"))
    counts("slurm", applies=3, nodes=len(results(spec, "slurm")), killed_drivers=1)


def test_a_detached_apply_leaves_and_a_later_one_takes_over(
    cluster: Path,
    spec: Path,
    same_as_local: Callable[[Path, str], None],
    full: bool,
    counts: Callable[..., None],
) -> None:
    if not full:
        pytest.skip("the whole table of faults is for --full")
    apply = Apply(spec, "slurm", "--cluster", "lab", "--detach")
    assert apply.end() == 0, apply.errors
    trained = [attempt for attempt in attempts(spec, "slurm") if attempt.kind == "train"]
    assert len(trained) < 4
    jobs = len(list((spec.parent / "storage" / "states").glob("*/workers/*")))
    away = next((spec.parent / "storage" / "states").iterdir()) / "away"
    when(lambda: list(away.glob("*.json")))
    again = Apply(spec, "slurm", "--cluster", "lab")
    assert again.end() == 0, again.errors
    assert lost(spec) == []
    assert len(list((spec.parent / "storage" / "states").glob("*/workers/*"))) == jobs, "no other job was needed"
    same_as_local(spec, "slurm")
    counts("slurm", applies=3, nodes=len(results(spec, "slurm")), detached=1)
