"""A finished study, and a bundle of one of its runs."""

from pathlib import Path

import pytest
from bundle_fixture import RUN, lora
from state_fixture import finish, write_study


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = write_study(tmp_path_factory.mktemp("whole"))
    finish(file)
    return file


@pytest.fixture(scope="module")
def bundle(spec: Path) -> Path:
    """One run, with all that it was made from."""
    file = spec.parent / "run.tar"
    done = lora(spec.parent / ".lora", "export", f"{RUN}:train", "--bundle", str(file))
    assert done.exit_code == 0, done.output
    return file
