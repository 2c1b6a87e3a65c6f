"""Where a plan's work would run: the machine that plans, or a cluster; what drift, fit, price and workers go by."""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lorafile.environment import LIBRARIES, environments, gpus
from lorafile.errors import LoraError
from lorafile.plan.clusters.config import Cluster, DeviceTable
from lorafile.specs.values import PRICE
from lorafile.units import Price

_UNITS = {"b": 1, "kb": 2**10, "kib": 2**10, "mb": 2**20, "mib": 2**20, "gb": 2**30, "gib": 2**30, "tb": 2**40}
_SIZE = re.compile(rf"([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?)\s*({'|'.join(_UNITS)})", re.IGNORECASE)


@dataclass(frozen=True)
class DeviceClass:
    """Devices of one kind.

    :ivar name: as a driver reports it, or `cpu`; `memory`: bytes of one, None where that is not known
    :ivar price: of an hour of one
    :ivar per_worker: how many a worker gets
    """

    name: str
    memory: int | None = None
    count: int = 1
    price: Price | None = None
    per_worker: int = 1

    @property
    def workers(self) -> int:
        """How many workers these devices have room for."""
        return max(1, self.count // self.per_worker)


@dataclass(frozen=True)
class Machines:
    """The devices of a machine or a cluster, those that profiles are made on first.

    :ivar cluster: the cluster's name; empty for the machine that plans
    :ivar gpus: its GPUs by kind; empty where a processor computes
    :ivar most_workers: how many workers there may be, where lora.toml says so
    """

    cluster: str = ""
    gpus: tuple[DeviceClass, ...] = ()
    most_workers: int | None = None

    @property
    def device(self) -> str:
        """What a profile is stored under: the name of the first kind of GPU, or `cpu`."""
        return self.gpus[0].name if self.gpus else "cpu"

    @cached_property
    def environments(self) -> list[dict[str, Any]]:
        """What results are compared with, one for each kind of device; of a cluster only its devices are known."""
        if not self.cluster:
            return environments()
        unknown: dict[str, Any] = dict.fromkeys(("driver", *LIBRARIES))
        kinds = self.gpus or (DeviceClass("cpu"),)
        return [unknown | {"device": kind.name, "device_memory": kind.memory, "remote": True} for kind in kinds]

    @property
    def profiling(self) -> int:
        """How many profiles may run at a time: one on each device of the first kind."""
        return self.gpus[0].workers if self.gpus else 1

    @property
    def devices(self) -> int:
        """For how many devices an hour is paid: the GPUs, or one machine."""
        return sum(kind.count for kind in self.gpus) or 1

    @property
    def hourly(self) -> Price | None:
        """What an hour of one device costs in the mean; None where a kind has no price, or their currencies differ."""
        prices = [kind.price for kind in self.gpus]
        known = [price for price in prices if price is not None]
        if not known or len(known) < len(prices) or len({price.currency for price in known}) > 1:
            return None
        total = sum(price * kind.count for price, kind in zip(known, self.gpus, strict=True))
        return Price(total / self.devices, known[0].currency, known[0].leads)


def this_machine() -> Machines:
    """Return the machine that plans, with the GPUs that this process may use."""
    there = gpus()
    kinds = {gpu["name"]: gpu["memory"] for gpu in reversed(there)}
    names = [gpu["name"] for gpu in there]
    return Machines(gpus=tuple(DeviceClass(name, kinds[name], names.count(name)) for name in dict.fromkeys(names)))


def of_cluster(name: str, cluster: Cluster) -> Machines:
    """Return the machines of a cluster; one that lists no devices is planned as if it had devices like those here.

    :raises LoraError: where a price means nothing
    """
    if cluster.executor == "local":
        return replace(this_machine(), most_workers=cluster.workers)
    if not cluster.device:
        return Machines(name, this_machine().gpus, cluster.workers)
    kinds = tuple(_device_class(table) for table in cluster.device if table.name != "cpu")
    return Machines(name, kinds, cluster.workers or (None if kinds else sum(table.count for table in cluster.device)))


def _device_class(table: DeviceTable) -> DeviceClass:
    memory = sold_memory(table.memory) if table.memory else None
    price = price_of_an_hour(table.price) if table.price else None
    return DeviceClass(table.name, memory, table.count, price, table.gpus_per_worker)


def sold_memory(text: str) -> int | None:
    """Return the bytes of a GPU of a size as it is sold, `24GB` or `24GiB`: cards come in units of 2^30 bytes."""
    match = _SIZE.fullmatch(text.strip())
    return int(float(match[1]) * _UNITS[match[2].lower()]) if match else None


def price_of_an_hour(text: str, setting: str = "price") -> Price:
    """Return what an hour of one device costs, from `2.50/h`, `$2.50/h` or `2.50 EUR/h`.

    :raises LoraError: when it is no price
    """
    match = re.fullmatch(PRICE, text.strip())
    if match is None or (match["before"] and match["after"]):
        raise LoraError(f"{setting}: \"{text}\" is not a price per hour; write, for example, '$2.50/h'")
    return Price(float(match["amount"]), match["before"] or match["after"] or "", bool(match["before"]))
