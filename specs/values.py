"""Kinds of values that settings take."""

import json
import re
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MULTIPLE_OF_RANK = r"^([1-9][0-9]{0,5}(\.[0-9]{1,6})?|0?\.[0-9]{0,5}[1-9])?r$"
SPLIT_SLICE = r"^[^\[\]\s:]+(\[(-?[0-9]{1,12}%?)?:(-?[0-9]{1,12}%?)?\])?$"  # train, train[:80%], test[100:200]
NAME = r"^[^\s/:\x00-\x1f]([^/:\x00-\x1f]*[^\s/:\x00-\x1f])?$"
ONE_LINE = r"^[^\x00-\x1f]*$"
METRIC_FILE = r"^[^\x00-\x1f]*[\w-]\.py$"  # its name is the metric's name
MARGIN = r"^[0-9]{1,9}(\.[0-9]{1,9})?(pt|%)$"
POINTS = r"^[0-9]{1,9}(\.[0-9]{1,9})?pt$"
_BYTES = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600}
_NUMBER, _OF_SIZE, _OF_TIME = r"^[0-9]{1,9}(\.[0-9]{1,6})?\s?", "|".join(_BYTES), "|".join(_SECONDS)
AMOUNT = f"{_NUMBER}({_OF_SIZE}|{_OF_TIME})$"
SIZE, DURATION = f"{_NUMBER}({_OF_SIZE})$", f"{_NUMBER}({_OF_TIME})$"
_CURRENCY = r"[A-Z]{3}|[A-Z]{0,2}[$€£¥₹₩₽₺₫₱₪฿]"
PRICE = (  # of an hour: 2.50/h, $2.50/h, 2.50 EUR/h
    rf"^(?P<before>{_CURRENCY})?\s*(?P<amount>[0-9]+(?:\.[0-9]+)?)\s*(?P<after>{_CURRENCY})?\s*(?:/\s*h(?:our)?)?$"
)
TRACKED_PROJECT = r"^[^/\\#?%:\x00-\x1f]+$"  # what wandb takes
_SEGMENT = r"\.?[^./\\~:\x00-\x1f][^/\\:\x00-\x1f]*"
RELATIVE_DIRECTORY = rf"^(\./)?{_SEGMENT}(/{_SEGMENT})*/?$"
INNER_FILE = rf"^{_SEGMENT}(/{_SEGMENT})*$"
TRAINER_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"  # it becomes part of a setting and of an environment variable
ENVIRONMENT_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
NITER = r"^pissa_niter_[0-9]{1,3}$"
PYTHON_FILE = rf"^({_SEGMENT}/)*{_SEGMENT}\.py$"
FUNCTION_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,79}$"
# What a message says instead of a pattern.
PATTERNS = {
    MULTIPLE_OF_RANK: 'a multiple of the rank such as "2r"',
    SPLIT_SLICE: 'a slice such as "train[:80%]"',
    NAME: 'a name without "/", ":", line breaks, or spaces at its ends',
    ONE_LINE: "a single line of text",
    METRIC_FILE: 'a Python file such as "metrics/brevity.py"',
    MARGIN: 'a margin such as "1pt" (percentage points) or "1%" (of the baseline)',
    POINTS: 'a standard deviation such as "1.2pt" (percentage points)',
    AMOUNT: 'an amount with its unit such as "24GB" or "30ms"',
    SIZE: 'a size such as "24GB" or "7.5GiB"',
    DURATION: 'a time such as "30ms", "90s" or "2h"',
    r"^[^\x00-\x1f]*\.py$": 'a Python file such as "analyses/own.py"',
    PRICE: 'a price per hour such as "$2.50/h"',
    TRACKED_PROJECT: 'a name without "/", "\\", "#", "?", "%", ":" or line breaks',
    RELATIVE_DIRECTORY: 'a directory next to the spec such as "report" or "out/report" (elsewhere: lora report --out)',
    INNER_FILE: 'a file next to the spec, such as "train.py" or "configs/ds.json"',
    TRAINER_NAME: 'a name of letters, digits, "_" and "-"',
    ENVIRONMENT_NAME: 'the name of an environment variable such as "CUDA_HOME"',
    PYTHON_FILE: 'a Python file next to the spec, such as "init.py" or "code/init.py"',
    FUNCTION_NAME: 'the name of a function such as "my_init"',
    NITER: '"pissa_niter_" with a number such as "pissa_niter_16"',
}

Dimension = Literal["bytes", "seconds"]
Size = Annotated[str, Field(pattern=SIZE)]
Duration = Annotated[str, Field(pattern=DURATION)]
LayerWord = Literal["first-third", "middle-third", "last-third", "alternate"]
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1)]
Targets = Text | Texts
Positive = Annotated[int, Field(gt=0, lt=2**31)]
Natural = Annotated[int, Field(ge=0, lt=2**31)]
Steps = Annotated[int, Field(ge=-1, lt=2**31)]
Length = Annotated[int, Field(ge=2, lt=2**31)]
PositiveNumber = Annotated[float, Field(gt=0)]
Number = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Unit = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=NAME, max_length=200)]
SplitSize = Positive | Annotated[float, Field(gt=0, le=1)] | Annotated[str, Field(pattern=SPLIT_SLICE)]
Alpha = PositiveNumber | Annotated[str, Field(pattern=MULTIPLE_OF_RANK)]


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"a valid regular expression ({error})") from error
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]


def in_base_units(amount: str) -> tuple[Dimension, float]:
    """Return what an amount such as `24GB` or `30ms` measures, and how much of it in bytes or seconds.

    :raises ValueError: when it is none
    """
    match = re.fullmatch(r"([0-9.]+)\s?([A-Za-z]+)", amount)
    if match is None or match[2] not in (*_BYTES, *_SECONDS):
        raise ValueError(f"{amount!r} is not an amount with a unit")
    number, unit = float(match[1]), match[2]
    return ("bytes", number * _BYTES[unit]) if unit in _BYTES else ("seconds", number * _SECONDS[unit])


class Settings(BaseModel):
    """A closed table of settings: an unknown name is an error, and so is a number that is not one."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @cached_property
    def as_text(self) -> str:
        """Equal text for equal settings."""
        return json.dumps(self.model_dump(), sort_keys=True)
