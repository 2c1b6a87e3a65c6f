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


class DeviceTable(Settings):
    """Devices of one kind that a cluster has; what a plan is made for. `lora clusters check` says what stands here."""

    name: Text = Field(description="The GPU's name as its driver reports it, `NVIDIA H100 80GB HBM3`, or `cpu`.")
    memory: Size | None = Field(default=None, description="Its memory, `80GB`; unset: what is known of the name.")
    count: Positive = Field(default=1, description="How many of them there are.")
    price: Annotated[str, Field(pattern=PRICE)] | None = Field(
        default=None, description="What an hour of one costs: `$2.50/h`."
    )
    gpus_per_worker: Positive = Field(
        default=1, description="How many a worker gets, for bases that need several (`model.device_map`)."
    )


class SlurmTable(Settings):
    """What a Slurm job asks for, by the names of `sbatch`; a job is a worker."""

    partition: Text | None = Field(default=None, description="The partition.")
    account: Text | None = Field(default=None, description="The account that is charged.")
    qos: Text | None = Field(default=None, description="The quality of service.")
    time: Text | None = Field(default=None, description="Time limit of a job: `04:00:00`.")
    gres: Text | None = Field(default=None, description="Generic resources: `gpu:h100:1`.")
    cpus_per_task: Positive | None = Field(default=None, description="Cores of a job.")
    mem: Text | None = Field(default=None, description="Memory of a job: `64G`.")
    setup: list[Text] = Field(default=[], description="Shell lines before the worker starts: `module load cuda`.")
    leave: Duration = Field(default="30min", description="How long a worker waits for a driver that says nothing.")
    extra: dict[Text, str | int] = Field(default={}, description="Further options of `sbatch`, without the dashes.")


class RayTable(Settings):
    """Where Ray runs, and what an actor asks for; an actor is a worker."""

    address: Text | None = Field(default=None, description="`host:6379`; unset: `RAY_ADDRESS`, or the node's own.")
    num_gpus: Annotated[float, Field(ge=0)] | None = Field(default=None, description="GPUs of an actor.")
    num_cpus: Annotated[float, Field(ge=0)] | None = Field(default=None, description="Cores of an actor.")
    resources: dict[Text, float] = Field(default={}, description="Custom resources of an actor.")


class Cluster(Settings):
    """Machines that a study may run on."""

    executor: Executor = Field(description="What places, starts and kills workers.")
    state: Text | None = Field(default=None, description="Where results go: a directory, or `s3://bucket/prefix`.")
    storage: Text | None = Field(
        default=None, description="A directory that driver and workers share; not needed on Ray."
    )
    workers: Positive | None = Field(default=None, description="Workers at a time; unset: one for each device.")
    device: list[DeviceTable] = Field(default=[], description="What it has: what plans are made for.")
    slurm: SlurmTable = Field(default=SlurmTable(), description='Of `executor = "slurm"`.')
    ray: RayTable = Field(default=RayTable(), description='Of `executor = "ray"`.')


class _File(Settings):
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
    hint = did_you_mean(name, others, f"there are {', '.join(others)}.")
    raise ArgumentError("cluster", f'no cluster is called "{name}" in {local} or {own}; {hint}')


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
        raise LoraError(f"No lora.toml describes {name}: add [cluster.{name}] with its executor first.")
    if _read(file)[name].device:
        raise LoraError(f"[cluster.{name}] of {file} lists devices already; nothing was changed.")
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
