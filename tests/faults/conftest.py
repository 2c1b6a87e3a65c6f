"""The study that is disturbed, done once without disturbance."""

import fcntl
import json
import os
import random
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from faults.shim import Shim
from faults.study import EVERY_KIND, STUDY, Bench

pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)


def in_peace(factory: pytest.TempPathFactory, name: str, text: str) -> Bench:
    """Apply a study in peace, once for all processes that run tests."""
    base = factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    home.mkdir(exist_ok=True)
    bench = Bench(home / "study.toml", home / ".lora")
    with (home / "guard").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not (home / "seconds").exists():
            bench.spec.write_text(text, encoding="utf-8")
            began = time.monotonic()
            code, said = bench.apply()
            assert code == 0, said
            (home / "seconds").write_text(json.dumps(time.monotonic() - began), encoding="utf-8")
    return replace(bench, expected=bench.results(), seconds=json.loads((home / "seconds").read_text(encoding="utf-8")))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rows_file: Path) -> Bench:
    return in_peace(tmp_path_factory, "undisturbed", STUDY.format(model=tiny_model, data=rows_file))


@pytest.fixture(scope="session")
def every_kind(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rows_file: Path) -> Bench:
    """A study with nodes of every kind."""
    return in_peace(tmp_path_factory, "every-kind", EVERY_KIND.format(model=tiny_model, data=rows_file))


def taken(bench: Bench, to: Path) -> Bench:
    """Copy a study and its state."""
    shutil.copytree(bench.spec.parent, to, dirs_exist_ok=True)
    return replace(bench, spec=to / "study.toml", state=to / ".lora")


@pytest.fixture
def done(undisturbed: Bench, tmp_path: Path) -> Bench:
    """The study, all of it finished."""
    return taken(undisturbed, tmp_path)


@pytest.fixture
def bench(done: Bench) -> Bench:
    """The study, with a state that is not there yet."""
    shutil.rmtree(done.state)
    return done


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Shim.build(tmp_path_factory.mktemp("shim")).library


@pytest.fixture
def shim(library: Path, tmp_path: Path) -> Shim:
    return Shim(library, tmp_path)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Chance, told when a test fails; another by LORA_TEST_SEED."""
    seed = f"{os.environ.get('LORA_TEST_SEED', '0')} {request.node.name}"
    print(f"seed: {seed}")
    return random.Random(seed)
