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
    done_once,
    remove_seconds,
    results,
    work_left,
    worker_processes,
    write_study,
)

HERE = Path(__file__).parent
STEPS = 150  # of a run: long enough to be killed


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


@pytest.fixture
def spec(tmp_path: Path, tiny_model: Path, rows_file: Path) -> Path:
    (tmp_path / "lora.toml").write_text(
        f'[cluster.lab]\nexecutor = "slurm"\nstorage = "{tmp_path / "storage"}"\nworkers = 2\n'
        '[cluster.lab.slurm]\ntime = "00:30:00"\ncpus_per_task = 2\n',
        encoding="utf-8",
    )
    return write_study(tmp_path, tiny_model, rows_file, STEPS)


def same_as_local(spec: Path, state: str) -> None:
    """Compare keys, outcomes and scores with a local apply's, and look for what was done twice, or is left."""
    local = Apply(spec, "local", "--workers", "1")
    assert local.end() == 0
    mine, other = results(spec, state), results(spec, "local")
    assert mine.keys() == other.keys()
    for key, (outcome, figures) in mine.items():
        assert (outcome, remove_seconds(figures)) == (other[key][0], remove_seconds(other[key][1]))
    assert done_once(spec, state)
    assert work_left(spec, state) == 0


def lost(spec: Path) -> list[str]:
    return [attempt.message for attempt in attempts(spec, "slurm") if attempt.outcome == "interrupted"]


def test_a_study_on_two_nodes_and_one_killed_worker(cluster: Path, spec: Path, counts: Callable[..., None]) -> None:
    apply = Apply(spec, "slurm", "--cluster", "lab")
    apply.until_trains()
    os.kill(worker_processes(cluster)[-1], signal.SIGKILL)
    assert apply.end() == 0, apply.errors
    assert lost(spec) == ["The worker process was killed by SIGKILL."]
    same_as_local(spec, "slurm")
    counts("slurm", applies=2, nodes=len(results(spec, "slurm")), killed_workers=1)
