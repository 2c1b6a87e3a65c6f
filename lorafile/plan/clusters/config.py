"""`lora.toml`: the clusters of a person or a team. Nothing of it is in a spec or a key, and it holds no secrets."""

from pathlib import Path
from typing import Annotated, Any, Literal

import tomli
from pydantic import Field, ValidationError

from lorafile.errors import ArgumentError, LoraError, Problem, SpecError
from lorafile.files.atomic import write_text
from lorafile.files.user_cache import config_directory
from lorafile.specs.error_messages import Problems
from lorafile.specs.positions import positions
from lorafile.specs.values import PRICE, Duration, Name, Positive, Settings, Size, Text
from lorafile.units import did_you_mean

FILE, OWN_FILE = "lora.toml", "clusters.toml"
Executor = Literal["local", "ray", "slurm"]


class DeviceTable(Settings, defer_build=True):
    """Devices of one kind that a cluster has; what a plan is made for. `lora clusters check` says what stands here."""

    name: Text = Field(
        description="The GPU's name as reported by its driver, such as `NVIDIA H100 80GB HBM3`, or `cpu`."
    )
    memory: Size | None = Field(default=None, description="Its memory, such as `80GB`. Unset: looked up by name.")
    count: Positive = Field(default=1, description="The number of these devices.")
    price: Annotated[str, Field(pattern=PRICE)] | None = Field(
        default=None, description="Price of one device per hour, such as `$2.50/h`."
    )
    gpus_per_worker: Positive = Field(
        default=1, description="GPUs per worker, for bases that need several (`model.device_map`)."
    )


class SlurmTable(Settings, defer_build=True):
    """What a Slurm job asks for, by the names of `sbatch`; a job is a worker."""

    partition: Text | None = Field(default=None, description="The partition.")
    account: Text | None = Field(default=None, description="The account to charge.")
    qos: Text | None = Field(default=None, description="The quality of service.")
    time: Text | None = Field(default=None, description="Time limit of a job, such as `04:00:00`.")
    gres: Text | None = Field(default=None, description="Generic resources: `gpu:h100:1`.")
    cpus_per_task: Positive | None = Field(default=None, description="Cores per job.")
    mem: Text | None = Field(default=None, description="Memory per job, such as `64G`.")
    setup: list[Text] = Field(
        default=[], description="Shell lines to run before the worker starts, such as `module load cuda`."
    )
    leave: Duration = Field(default="30min", description="How long a worker waits for a silent driver.")
    extra: dict[Text, str | int] = Field(default={}, description="Additional `sbatch` options, without the dashes.")


class RayTable(Settings, defer_build=True):
    """Where Ray runs, and what an actor asks for; an actor is a worker."""

    address: Text | None = Field(
        default=None, description="The cluster's address, `host:6379`. Unset: `RAY_ADDRESS`, or that of the node."
    )
    num_gpus: Annotated[float, Field(ge=0)] | None = Field(default=None, description="GPUs per actor.")
    num_cpus: Annotated[float, Field(ge=0)] | None = Field(default=None, description="Cores per actor.")
    resources: dict[Text, float] = Field(default={}, description="Custom resources per actor.")


class Cluster(Settings, defer_build=True):
    """Machines that a study may run on."""

    executor: Executor = Field(description="What starts, places and stops workers.")
    state: Text | None = Field(
        default=None, description="Where to store results: a directory, or `s3://bucket/prefix`."
    )
    storage: Text | None = Field(
        default=None, description="A directory shared by driver and workers; not needed on Ray."
    )
    workers: Positive | None = Field(default=None, description="Number of concurrent workers. Unset: one per device.")
    device: list[DeviceTable] = Field(default=[], description="The cluster's devices, which plans are made for.")
    slurm: SlurmTable = Field(default=SlurmTable(), description='Settings for `executor = "slurm"`.')
    ray: RayTable = Field(default=RayTable(), description='Settings for `executor = "ray"`.')


class _File(Settings, defer_build=True):
    cluster: dict[Name, Cluster] = Field(default={}, description="Clusters by name.")


def find_cluster(name: str, spec: Path) -> Cluster:
    """Return the cluster of a name: of `lora.toml` next to the spec, of the user's own file, or a bare executor.

    :raises LoraError: when there is none of this name, or its file is wrong
    """
    known = clusters(spec)
    if name in known:
        return known[name]
    if name in ("local", "ray", "slurm"):
        return Cluster.model_validate({"executor": name})
    others = [*known, "local", "ray", "slurm"]
    local, own = files(spec)
    hint = did_you_mean(name, others, f"defined are: {', '.join(others)}.")
    raise ArgumentError("cluster", f'no cluster is named "{name}" in {local} or {own}; {hint}')


def clusters(spec: Path) -> dict[str, Cluster]:
    """Return name -> cluster, of both files; that next to the spec counts first.

    :raises SpecError: with every mistake of a file, located
    """
    local, own = files(spec)
    return {**_read(own), **_read(local)}


def files(spec: Path) -> tuple[Path, Path]:
    """Return where clusters are described: next to the spec, and in the user's configuration directory."""
    return spec.parent / FILE, config_directory() / OWN_FILE


def file_without_devices(name: str, spec: Path) -> Path:
    """Return the file that describes a cluster and lists no device of it.

    :raises LoraError: when it lists some, or no file describes the cluster
    """
    file = next((file for file in files(spec) if name in _read(file)), None)
    if file is None:
        raise LoraError(f"No lora.toml defines {name}. First add [cluster.{name}] with its executor.")
    if _read(file)[name].device:
        raise LoraError(f"[cluster.{name}] in {file} already lists devices; nothing was changed.")
    return file


def add_device(file: Path, table: str) -> None:
    """Add a device table to a file."""
    write_text(file, f"{file.read_text(encoding='utf-8').rstrip()}\n\n{table}\n")


def _read(file: Path) -> dict[str, Cluster]:
    if not file.is_file():
        return {}
    try:
        text = file.read_text(encoding="utf-8-sig")
        raw: dict[str, Any] = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise SpecError([Problem(str(file), error.lineno, error.colno, "", f"not valid TOML: {error.msg}")]) from error
    except (OSError, ValueError) as error:
        raise SpecError([Problem(str(file), 1, 1, "", f"cannot be read: {error}")]) from error
    try:
        return dict(_File.model_validate(raw).cluster)
    except ValidationError as error:
        problems = Problems(str(file), positions(text), root=_File)
        problems.add_validation(error, raw)
        raise SpecError(problems.list()) from error
