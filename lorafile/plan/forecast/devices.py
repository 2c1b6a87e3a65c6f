"""What a plan is compared with: the device that is here, a size of memory, or a GPU by its name."""

import re
from dataclasses import dataclass

from lorafile.environment import machine_memory, slow_dtypes
from lorafile.errors import ArgumentError, LoraError
from lorafile.plan.clusters.machines import Machines, sold_memory, this_machine

DRIVER = 512 * 2**20  # what CUDA does not give of what the driver reports: 0.3 of an RTX 3090, 0.9 GiB of an A100 80GB
CONTEXT = 600 * 2**20  # a CUDA context and its kernels
_GUESSED_FLOPS, _CPU_FLOPS = 1.7e14, 5e10  # of a GPU of which only the memory is known; of a processor

# GPU -> MiB that its driver reports, and dense bfloat16 products (float16 where it has no bfloat16) in 10^12 a second,
# accumulated in float32: from NVIDIA's data sheets.
_KNOWN: dict[str, tuple[int, float]] = {
    "T4": (15360, 65),
    "V100 16GB": (16384, 125),
    "V100 32GB": (32768, 125),
    "A10": (23028, 125),
    "A10G": (23028, 70),
    "A30": (24576, 165),
    "A40": (46068, 150),
    "A100 40GB": (40960, 312),
    "A100 80GB": (81920, 312),
    "L4": (23034, 121),
    "L40S": (46068, 362),
    "H100": (81559, 989),
    "H100 PCIe": (81559, 756),
    "H200": (143771, 989),
    "B200": (183359, 2250),
    "RTX A6000": (49140, 155),
    "RTX 6000 Ada": (49140, 364),
    "RTX 3060": (12288, 25),
    "RTX 3080": (10240, 60),
    "RTX 3090": (24576, 71),
    "RTX 4060": (8188, 30),
    "RTX 4070": (12282, 58),
    "RTX 4080": (16376, 97),
    "RTX 4090": (24564, 165),
    "RTX 5090": (32607, 210),
}


@dataclass(frozen=True)
class Device:
    """What a plan is compared with.

    :ivar memory: in bytes, as its driver reports it
    :ivar overhead: bytes of it that no tensor gets: the driver's and a CUDA context's
    :ivar flops: operations a second at its best, in the type that adapters are usually trained over
    :ivar here: it is this machine's, so that what was measured on it counts
    :ivar slow: data types that it has no instructions for, as far as that is known
    """

    name: str
    memory: int
    flops: float
    gpu: bool = True
    here: bool = True
    overhead: int = DRIVER + CONTEXT
    slow: frozenset[str] = frozenset()

    @property
    def usable(self) -> int:
        """Bytes that a run may hold."""
        return max(0, self.memory - self.overhead)


def device(gpu: str | None = None, spread: bool = False, machines: Machines | None = None) -> Device:
    """Return the device that is asked for (`24GB`, `RTX 4090`), or the smallest of where the work would run.

    :param spread: a base lies on all GPUs of a worker at once
    :param machines: where the work would run; this machine where that is left out
    :raises LoraError: when the text is neither a size nor a known name, or a cluster's GPU has no known memory
    """
    if gpu is not None:
        return _asked(gpu.strip())
    machines = machines or this_machine()
    kinds = [(kind, memory) for kind in machines.gpus if (memory := kind.memory or _listed_memory(kind.name))]
    if not kinds and machines.cluster and machines.gpus:
        raise LoraError(
            f'[cluster.{machines.cluster}] of lora.toml: the memory of "{machines.device}" is unknown. Set memory in '
            "its device table."
        )
    if not kinds:
        name = f"a machine of {machines.cluster}" if machines.cluster else "this machine"
        slow = frozenset() if machines.cluster else slow_dtypes()
        return Device(name, machine_memory(), _CPU_FLOPS, gpu=False, overhead=0, slow=slow)
    smallest, memory = min(kinds, key=lambda pair: pair[1])  # any may get a run
    listed = _known(smallest.name)
    flops = _KNOWN[listed][1] * 1e12 if listed else _GUESSED_FLOPS
    together = smallest.per_worker if machines.cluster else machines.devices
    if spread and together > 1:  # the layers of one model follow each other, whatever device they lie on
        every = memory * together if machines.cluster else sum((kind.memory or 0) * kind.count for kind, _ in kinds)
        return Device(f"{together} × {smallest.name}", every, flops, overhead=together * (DRIVER + CONTEXT))
    return Device(smallest.name, memory, flops)


def _listed_memory(name: str) -> int | None:
    listed = _known(name)
    return _KNOWN[listed][0] * 2**20 if listed else None


def _asked(text: str) -> Device:
    size = sold_memory(text)
    if size is not None:
        return Device(f"a GPU of {text}", size, _GUESSED_FLOPS, here=False)
    listed = _known(text)
    if listed is None:
        raise ArgumentError(
            "gpu", f'"{text}" is neither a memory size (24GB) nor a known GPU name: {", ".join(_KNOWN)}.'
        )
    memory, flops = _KNOWN[listed]
    return Device(f"one {listed}", memory * 2**20, flops * 1e12, here=False)


def _known(text: str) -> str | None:
    """Return the known GPU that a name stands for: `4090`, `nvidia rtx 4090`, `NVIDIA A100-SXM4-80GB`.

    Of several the one with the most words wins; where memory decides and is not said, the one that comes first.
    """
    words = set(re.findall(r"[a-z]+\d+[a-z]*|\d+gb|\d{4}|[a-z]+", text.lower()))
    fitting = []
    for name in _KNOWN:
        wanted = set(name.lower().split())
        needed = {word for word in wanted if not re.fullmatch(r"\d+gb|rtx", word)}
        sizes = {word for word in wanted if word.endswith("gb")}
        said = {word for word in words if re.fullmatch(r"\d+gb", word)}
        if needed <= words and (not sizes or not said or sizes & said):
            fitting.append((len(needed), name))
    best = max((count for count, _ in fitting), default=0)
    return next((name for count, name in fitting if count == best), None)
