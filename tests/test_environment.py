"""Which GPUs are ours, told by a stand-in for the driver's own tool."""

from pathlib import Path

import pytest

from lorafile.engine import environment

LISTED = "0, GPU-aa, H100, 81559, 570.1\n1, GPU-bb, H100, 81559, 570.1\n2, GPU-cc, GB10, [N/A], 580.2\n"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of the driver's name that lists three GPUs, and a torch that could use them."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        f"#!/bin/sh\nprintf '{LISTED}'\n".replace("\n1,", "\\n1,").replace("\n2,", "\\n2,"), encoding="utf-8"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(environment, "installed", lambda name: "2.13.0")
    environment.gpus.cache_clear()
    yield
    environment.gpus.cache_clear()


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("visible", "indexes"), [(None, ["0", "1", "2"]), ("1", ["1"]), ("GPU-cc,0", ["2", "0"]), ("", []), ("-1", [])]
)
def test_only_the_gpus_that_are_ours_are_used(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, indexes: list[str]
) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu["index"] for gpu in environment.gpus()] == indexes


@pytest.mark.usefixtures("driver")
def test_memory_that_has_no_size_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert environment.gpus()[0]["memory"] is None


def test_a_cpu_build_of_torch_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "installed", lambda name: "2.13.0+cpu")
    environment.gpus.cache_clear()
    assert environment.gpus() == ()
    environment.gpus.cache_clear()


def test_a_process_uses_the_cores_that_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", lambda *_, **__: "max 100000\n")
        assert environment.cores() == environment.most_threads() == 6
    with monkeypatch.context() as patch:  # as `docker run --cpus 2.5` has it
        patch.setattr(Path, "read_text", lambda *_, **__: "250000 100000\n")
        assert environment.cores() == environment.most_threads() == 2
    monkeypatch.setattr(environment, "_quota", lambda: 6)
    for wanted, threads in (("4", 4), ("2,1", 2), ("100", 6), ("0", 6), ("many", 6)):
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
        assert (environment.cores(), environment.most_threads()) == (6, threads)
