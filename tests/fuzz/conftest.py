"""The command line, a box to run it in, and the seed of what is drawn at random."""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fuzz.oracle import Box, Oracle, Server

SAMPLED = 12  # one of so many cases of a test is tried without --full
SEED = int(os.environ.get("LORA_FUZZ_SEED", "20261121"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave a sample of the cases of each test, unless all are asked for."""
    if config.getoption("--full"):
        return
    met: Counter[str] = Counter()
    here, left = Path(__file__).parent, []
    for item in items:
        if here in item.path.parents and getattr(item, "callspec", None):
            name = item.nodeid.partition("[")[0]
            met[name] += 1
            if met[name] % SAMPLED != 1:
                left.append(item)
    items[:] = [item for item in items if item not in left]
    config.hook.pytest_deselected(items=left)


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The command line; with the libraries of tokenizers imported where a module says so by `TOKENIZERS`."""
    server = Server(tmp_path_factory.mktemp("server"), getattr(request.module, "TOKENIZERS", False))
    yield server
    server.close()


@pytest.fixture
def lora(
    request: pytest.FixtureRequest, server: Server, tmp_path: Path, counts: Callable[..., None]
) -> Iterator[Oracle]:
    """The oracle of one test; what it tried is counted under the name of the test's module."""
    oracle = Oracle(server, Box(tmp_path / "box"))
    yield oracle
    kind = request.module.__name__.rpartition(".test_fuzz_")[2].replace("_", " ")
    counts(f"bad input, {kind} (seed {SEED})", **oracle.numbers)


@pytest.fixture
def draw(request: pytest.FixtureRequest) -> random.Random:
    """What is drawn at random by a test, the same each time; LORA_FUZZ_SEED takes other draws."""
    return random.Random(f"{SEED} {request.node.nodeid}")
