"""Which GPUs are ours, told by a stand-in for the driver's own library."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorafile import environment

GB = 2**30
CUT = [{"name": "A100 MIG 3g.20gb", "uuid": f"MIG-{letter}", "memory": 20 * GB} for letter in "de"]
GPUS = [
    {"name": "H100", "uuid": "GPU-aa", "memory": 80 * GB},
    {"name": "H100", "uuid": "GPU-bb", "memory": 80 * GB, "mig": []},
    {"name": "GB10", "uuid": "GPU-cc"},
]
MIXED = [*GPUS[:2], {"name": "A100", "uuid": "GPU-dd", "memory": 40 * GB, "mig": CUT}]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A library that lists GPUs, and a torch that could use them."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "fixtures" / "fake_nvml")
    monkeypatch.delitem(__import__("sys").modules, "pynvml", raising=False)
    monkeypatch.setattr(environment, "installed", lambda name: "2.13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    environment.gpus.cache_clear()
    yield
    environment.gpus.cache_clear()
    __import__("sys").modules.pop("pynvml", None)


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["GPU-aa", "GPU-bb", "GPU-cc"]),
        ("1", ["GPU-bb"]),
        ("GPU-cc, 0", ["GPU-cc", "GPU-aa"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),  # as Slurm writes it in a job without GPUs
        ("0,-1,1", ["GPU-aa"]),  # CUDA ends at the first that is none
        ("0,7,1", ["GPU-aa"]),
        ("0,0", ["GPU-aa"]),
        ("MIG-9f,1", ["MIG-9f", "GPU-bb"]),
    ],
)
def test_only_the_gpus_that_are_ours_are_used(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: list[str]
) -> None:
    monkeypatch.setenv("FAKE_GPUS", json.dumps(GPUS))
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu["uuid"] for gpu in environment.gpus()] == expected


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["0", "1", "MIG-d", "MIG-e"]),
        ("2", ["MIG-d"]),  # of a GPU that is cut, CUDA takes the first instance
        ("MIG-e", ["MIG-e"]),
        ("MIG-e,0", ["MIG-e", "0"]),
    ],
)
def test_instances_of_a_gpu_that_is_cut_are_gpus(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: list[str]
) -> None:
    monkeypatch.setenv("FAKE_GPUS", json.dumps(MIXED))
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu["visible"] for gpu in environment.gpus()] == expected
    for gpu in environment.gpus():
        if gpu["visible"].startswith("MIG"):
            assert (gpu["name"], gpu["memory"]) == ("A100 MIG 3g.20gb", 20 * GB)


@pytest.mark.usefixtures("driver")
def test_a_word_that_nobody_knows_is_a_gpu_of_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not a processor: what it computes would be recorded under `cpu`."""
    monkeypatch.setenv("FAKE_GPUS", json.dumps(GPUS))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-9f")
    assert environment.device_class() == "unknown GPU"
    assert environment.gpus()[0]["visible"] == "MIG-9f"


@pytest.mark.usefixtures("driver")
def test_memory_that_has_no_size_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GPUS", json.dumps(GPUS))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert environment.gpus()[0]["memory"] is None


@pytest.mark.usefixtures("driver")
def test_each_kind_of_gpu_has_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GPUS", json.dumps(MIXED))
    found = [(one["device"], one["device_memory"], one["driver"]) for one in environment.environments()]
    assert found == [("H100", 80 * GB, "570.1"), ("A100 MIG 3g.20gb", 20 * GB, "570.1")]


@pytest.mark.usefixtures("driver")
def test_without_a_driver_there_is_no_gpu() -> None:
    assert environment.gpus() == ()
    assert [one["device"] for one in environment.environments()] == ["cpu"]


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


@pytest.mark.parametrize(
    ("flags", "slow"),
    [
        ("flags : fpu sse4_2 avx avx2 fma", {"bfloat16", "float16"}),  # AMD Zen 3
        ("flags : avx2 avx512f avx512bw avx512vl", {"float16"}),  # Intel Skylake
        ("flags : avx512bw avx512_bf16 avx512_fp16 amx_bf16", set()),  # Intel Sapphire Rapids
        ("Features : fp asimd fphp asimdhp bf16", set()),  # Arm Neoverse V1
        ("model name : a processor that says nothing", set()),
    ],
)
def test_types_without_instructions_are_those_that_the_flags_lack(
    flags: str, slow: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_cpuinfo", lambda: ["processor : 0", flags])
    assert environment.slow_dtypes() == slow
