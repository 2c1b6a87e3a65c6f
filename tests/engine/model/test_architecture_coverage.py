"""The table of architectures in docs/coverage.md: each row is what a study on such a model comes to.

`pytest --full --write-coverage tests/engine/model/test_architecture_coverage.py` writes it anew.
"""

import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from architectures_fixture import ARCHITECTURES
from coverage_fixture import COLUMNS, Trial
from coverage_table_fixture import ROOT, WORKS, read_table, write_row

from lorafile.engine.model.description import answer
from lorafile.specs.tables.settings import ModelTable

pytestmark = [pytest.mark.usefixtures("described_here")] + [
    pytest.mark.filterwarnings(f"ignore:{start}")
    for start in ("`is_gradient_checkpointing` is deprecated:FutureWarning", ":UserWarning", ":RuntimeWarning")
]
SAMPLE = 8  # rows, other ones for each commit


@pytest.fixture
def described_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let this process say what a checkpoint's classes are, which a plan asks another for; nothing is kept."""

    def ask(directory: Path, table: ModelTable) -> dict[str, Any]:
        return answer(str(directory), table.task_type, table.trust_remote_code)

    monkeypatch.setattr("lorafile.lock.description._ask", ask)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        names = sorted(ARCHITECTURES)
        full = metafunc.config.getoption("--full")
        metafunc.parametrize("name", names if full else random.Random(_commit()).sample(names, SAMPLE))


def _commit() -> str:
    """Return the hash of the commit that is checked out; of a copy without git, nothing."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def test_a_row_is_what_the_table_says(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, counts: Callable[..., None]
) -> None:
    trial = Trial(name, tmp_path)
    cells = {column: trial.cell(column) for column in COLUMNS}
    works = sum(cell == WORKS for cell in cells.values())
    counts("architectures", tried=1, cells_that_work=works, cells_refused_at_plan=len(cells) - works)
    if request.config.getoption("--write-coverage"):
        write_row(name, cells)
    assert read_table()[name] == cells
