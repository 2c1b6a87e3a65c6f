"""A local apply of the study that the clusters do, made once, and the comparison with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster_fixture import Apply, done_once, remove_seconds, results, work_left, write_study

STEPS = 150  # of a run: long enough for it to be killed


@pytest.fixture
def spec(tmp_path: Path, tiny_model: Path, rows_file: Path) -> Path:
    """The study, and a Slurm cluster of two workers called `lab`."""
    (tmp_path / "lora.toml").write_text(
        f'[cluster.lab]\nexecutor = "slurm"\nstorage = "{tmp_path / "storage"}"\nworkers = 2\n'
        '[cluster.lab.slurm]\ntime = "00:30:00"\ncpus_per_task = 2\n',
        encoding="utf-8",
    )
    return write_study(tmp_path, tiny_model, rows_file, STEPS)


@pytest.fixture(scope="session")
def local_results(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rows_file: Path) -> dict[str, Any]:
    """What an apply on this machine comes to."""
    spec = write_study(tmp_path_factory.mktemp("local"), tiny_model, rows_file, STEPS)
    assert Apply(spec, "local", "--workers", "1").end() == 0
    return results(spec, "local")


@pytest.fixture
def same_as_local(local_results: dict[str, Any]) -> Callable[[Path, str], None]:
    """Compare keys, outcomes and scores with a local apply's, and look for what was done twice, or is left."""

    def compare(spec: Path, state: str) -> None:
        mine = results(spec, state)
        assert mine.keys() == local_results.keys()
        for key, (outcome, figures) in mine.items():
            expected, scores = local_results[key]
            assert (outcome, remove_seconds(figures)) == (expected, remove_seconds(scores))
        assert done_once(spec, state)
        assert work_left(spec, state) == 0

    return compare
