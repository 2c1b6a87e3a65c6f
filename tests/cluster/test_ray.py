"""A study on two Ray nodes that cannot see the driver's files, and what is killed or frozen under it."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install 'lorafile[ray]'")
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

HERE = Path(__file__).parent
pytestmark = pytest.mark.timeout(900)  # on a loaded machine; else each test takes about a minute


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A head and two nodes; the directory of their files, whose name has to be short for Ray's sockets."""
    if os.geteuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("the nodes of the test need a mount namespace of their own, and that needs root")
    where = Path(tempfile.mkdtemp(prefix="lr-", dir="/tmp"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = {"PYTHON": sys.executable, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    ours |= {"RAY_ADDRESS": f"127.0.0.1:{port}", "OMP_NUM_THREADS": "1"}
    hidden = str(tmp_path_factory.getbasetemp().resolve())
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        start = [str(HERE / "start_ray.sh"), str(where), hidden, str(port)]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        started = subprocess.run(start, capture_output=True, text=True, env=environment, timeout=180)
        if started.returncode:
            logs = "".join(log.read_text(encoding="utf-8") for log in where.glob("*.log"))
            pytest.fail(f"the Ray cluster does not start: {started.stderr}{logs}")
        yield where
    finally:
        subprocess.run([str(HERE / "stop_ray.sh"), str(where)], check=True)
        shutil.rmtree(where, ignore_errors=True)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def test_a_study_on_two_nodes_that_see_none_of_its_files_and_one_killed_worker(
    cluster: Path,
    spec: Path,
    same_as_local: Callable[[Path, str], None],
    counts: Callable[..., None],
) -> None:
    apply = Apply(spec, "ray", "--cluster", "ray")
    event = apply.until_trains()
    worker = worker_processes(cluster)[-1]
    os.kill(worker, signal.SIGSTOP)  # while it is looked at
    assert seen_running(spec, "ray", event)
    os.kill(worker, signal.SIGKILL)
    assert apply.end() == 0, apply.errors
    lost = [attempt for attempt in attempts(spec, "ray") if attempt.outcome == "interrupted"]
    assert [attempt.message for attempt in lost] == ["The worker process was killed by SIGKILL."]
    same_as_local(spec, "ray")
    counts("ray", applies=2, nodes=len(results(spec, "ray")), killed_workers=1)


def test_a_check_says_what_a_worker_has_and_nothing_of_the_current_directory_is_imported_there(
    cluster: Path, spec: Path
) -> None:
    here = environment()
    current = cluster / "current"
    (current / "lorafile").mkdir(parents=True)
    for each in ("lorafile/__init__.py", "torch.py", "peft.py"):
        (current / each).write_text('raise ImportError("a file of the current directory")', encoding="utf-8")
    there = checked("ray", spec, cwd=current)["environment"]
    assert {name: there[name] for name in ("device", "torch", "peft")} == {
        name: here[name] for name in ("device", "torch", "peft")
    }


def _worker(cluster: Path) -> int:
    return worker_processes(cluster)[-1]


def _agent(cluster: Path) -> int:
    return parent(parent(_worker(cluster)))


def _raylet(cluster: Path) -> int:
    return parent(_agent(cluster))


FAULTS = {
    "a worker is frozen": (_worker, signal.SIGSTOP, "The worker process did not respond for 30 s and was stopped."),
    "an actor is killed": (_agent, signal.SIGKILL, "The worker process is gone with its actor"),
    "an actor is frozen": (_agent, signal.SIGSTOP, "did not respond for 30 s"),
    "a node is killed": (_raylet, signal.SIGKILL, "The worker process is gone with its actor"),
}


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
    find, number, message = FAULTS[fault]
    apply = Apply(spec, "ray", "--cluster", "ray", "--workers", "2")
    apply.until_trains()
    os.kill(find(cluster), number)
    assert apply.end() == 0, apply.errors
    lost = [attempt.message for attempt in attempts(spec, "ray") if attempt.outcome == "interrupted"]
    assert lost and all(message in each for each in lost), lost
    same_as_local(spec, "ray")
    counts("ray", applies=2, nodes=len(results(spec, "ray")), faults=1)


def test_a_killed_driver_leaves_a_state_that_the_next_apply_completes(
    cluster: Path,
    spec: Path,
    same_as_local: Callable[[Path, str], None],
    full: bool,
    counts: Callable[..., None],
) -> None:
    if not full:
        pytest.skip("the whole table of faults is for --full")
    apply = Apply(spec, "ray", "--cluster", "ray")
    apply.until_trains()
    apply.process.kill()
    apply.process.communicate()
    again = Apply(spec, "ray", "--cluster", "ray")
    assert again.end() == 0, again.errors
    same_as_local(spec, "ray")
    when(lambda: len(worker_processes(cluster)) == 0)
    counts("ray", applies=3, nodes=len(results(spec, "ray")), killed_drivers=1)


def test_no_cluster_is_a_sentence(spec: Path) -> None:
    apply = Apply(spec, "ray", "--cluster", "ray", RAY_ADDRESS="ray://127.0.0.1:10001")
    assert apply.end() == 1
    assert "is a Ray Client address, which is not supported" in apply.errors
    with socket.socket() as closed:  # bound, and nobody listens: Ray itself would try for minutes
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        apply = Apply(spec, "ray", "--cluster", "ray", RAY_ADDRESS=address)
        assert apply.end() == 1
    assert f"No Ray cluster can be reached at {address}: Connection refused." in apply.errors
