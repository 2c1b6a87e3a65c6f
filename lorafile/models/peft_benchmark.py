"""Published results of PEFT's own benchmark, MetaMathQA → GSM8K, as `[[reference]]` tables of a spec."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorafile.errors import LoraError
from lorafile.files.jsonl import read_json
from lorafile.specs.tables.analysis import PublishedTable

_ROWS = 1319  # of GSM8K's test split, which the benchmark tests on


class _File(BaseModel):
    """The parts of a result file that are read, by its own names."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _TrainConfig(_File):
    seed: int


class _RunInfo(_File):
    created_at: str = Field(min_length=10)
    experiment_name: str = Field(min_length=1)
    train_config: _TrainConfig
    peft_config: dict[str, Any] | None


class _TrainInfo(_File):
    status: str
    metrics: list[dict[str, Any]] = Field(min_length=1)
    accelerator_memory_max: int = Field(gt=0)
    file_size: int = Field(gt=0)
    num_trainable_params: int = Field(gt=0)
    train_time: float = Field(gt=0)


class _MetaInfo(_File):
    dataset_info: dict[str, Any]
    package_info: dict[str, Any]
    system_info: dict[str, Any]


class _Result(_File):
    run_info: _RunInfo
    train_info: _TrainInfo
    meta_info: _MetaInfo


def reference_tables(files: list[str]) -> str:
    """Return result files of PEFT's benchmark as the text of `[[reference]]` tables.

    :raises LoraError: when a file is no finished result of MetaMathQA → GSM8K
    """
    return "\n".join(_text(published_result(Path(file))) for file in files)


def published_result(file: Path) -> PublishedTable:
    """Return what a result file of PEFT's benchmark says, in base units.

    The peak memory is what its allocator had reserved at most, evaluation included.

    :raises LoraError: when it is no finished result of MetaMathQA → GSM8K
    """
    result = _read(file)
    run, trained = result.run_info, result.train_info
    config = run.peft_config or {}
    return PublishedTable(
        name=f"PEFT {run.experiment_name}",
        value=_accuracy(file, result),
        metric="exact_match",
        n=_ROWS,
        source=_source(result),
        costs={
            "train_memory_reserved": f"{trained.accelerator_memory_max / 1e9:.2f}GB",
            "adapter_size": f"{trained.file_size / 1e6:.3f}MB",
            "trainable_parameters": trained.num_trainable_params,
            "train_time": f"{trained.train_time:.0f}s",
        },
        settings={"lora": {"r": config["r"]}} if config.get("peft_type") == "LORA" and "r" in config else {},
    )


def _read(file: Path) -> _Result:
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:
        raise LoraError(f"{file} is not a JSON file that can be read: {error}") from error
    try:
        return _Result.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole file"
        raise LoraError(
            f"{file} is not a result of PEFT's benchmark as method_comparison/MetaMathQA/results has them: {place}: "
            f"{first['msg'].lower()}. Name such a file."
        ) from error


def _accuracy(file: Path, result: _Result) -> float:
    """Return the share of correct answers to GSM8K's test rows."""
    if not {"metamath", "gsm8k"} <= result.meta_info.dataset_info.keys():
        names = ", ".join(result.meta_info.dataset_info) or "nothing"
        raise LoraError(f"{file} is about {names}, and not about MetaMathQA and GSM8K; only these results are read.")
    status, value = result.train_info.status, result.train_info.metrics[-1].get("test accuracy")
    if status != "success" or not isinstance(value, (int, float)) or isinstance(value, bool):
        raise LoraError(f'{file}: the run has no test accuracy (its status is "{status}"). Name a finished run.')
    if not 0 <= value <= 1 or abs(value * _ROWS - round(value * _ROWS)) > 1e-6:
        raise LoraError(f"{file}: a test accuracy of {value:g} is no share of GSM8K's {_ROWS:,} test rows.")
    return round(float(value), 6)


def _source(result: _Result) -> str:
    run, packages = result.run_info, result.meta_info.package_info
    commit = str(packages.get("peft-commit-hash") or "")[:12]
    peft = f"peft {packages.get('peft-version') or 'of unknown version'}" + (f" ({commit})" if commit else "")
    device = result.meta_info.system_info.get("accelerator") or "unknown device"
    seed = f"seed {run.train_config.seed}"
    return f"PEFT method_comparison/MetaMathQA, {run.created_at[:10]}, {peft}, {seed}, {device}"


def _text(table: PublishedTable) -> str:
    """Return a reference as it stands in a spec."""
    set_here = table.model_dump(include=table.model_fields_set)
    lines = [f"{name} = {_value(value)}" for name, value in set_here.items() if value not in ({}, None)]
    return "\n".join(["[[reference]]", *lines, ""])


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_value(part)}" for name, part in value.items()) + " }"
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value, ensure_ascii=False).replace("\x7f", "\\u007f")
