"""The table of architectures in docs/coverage.md: each row is what a study on such a model comes to.

`pytest --full --write-coverage tests/engine/model/test_architecture_coverage.py` writes it again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from architectures_fixture import ARCHITECTURES
from coverage_fixture import COLUMNS, Trial
from coverage_table_fixture import WORKS, read_table, write_row

from lorafile.engine.model.description import answer
from lorafile.specs.tables.settings import ModelTable

pytestmark = [pytest.mark.usefixtures("described_here")] + [
    pytest.mark.filterwarnings(f"ignore:{start}")
    for start in ("`is_gradient_checkpointing` is deprecated:FutureWarning", ":UserWarning", ":RuntimeWarning")
]


@pytest.fixture
def described_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let this process say what a checkpoint's classes are, which a plan asks another for; nothing is kept."""

    def ask(directory: Path, table: ModelTable) -> dict[str, Any]:
        return answer(str(directory), table.task_type, table.trust_remote_code)

    monkeypatch.setattr("lorafile.lock.description._ask", ask)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
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
