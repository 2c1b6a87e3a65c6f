"""`[trainer.NAME]`: a program that trains in the place of the built-in loop."""

import json
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from lorafile.specs.values import ENVIRONMENT_NAME, INNER_FILE, TRAINER_NAME, Name, Positive, Settings, Text

BUILTIN = "builtin"
Objective = Literal["sft", "preference", "reward"]
TrainerName = Annotated[str, Field(pattern=TRAINER_NAME, max_length=80)]
InnerFile = Annotated[str, Field(pattern=INNER_FILE)]
# Of this machine, or of how a run is carried out: these stand in no key.
_OF_THE_MACHINE = ("python", "environment", "stop_seconds")


def _no_shell_line(command: Any) -> Any:
    if isinstance(command, str):
        raise ValueError('a list of words such as ["python", "train.py"], because no shell is involved')
    return command


class TrainerTable(Settings):
    """A program that trains under the contract of docs/trainers.md; `train.trainer` names it.

    Its files, command, options, data and pinned libraries are in the keys of its runs; its name is not.
    """

    command: Annotated[list[Text], Field(min_length=1), BeforeValidator(_no_shell_line)] = Field(
        description="The program and its arguments, as a list; no shell is involved. One of them is a file next to the "
        "spec. `python` is the interpreter of `python`."
    )
    files: list[InnerFile] = Field(
        default=[],
        description="Other files that the program reads, relative to the spec. The Python modules next to the program "
        "that it imports are found without being listed.",
    )
    requirements: InnerFile | None = Field(
        default=None,
        description="A file of `name==version` lines: the libraries that the program's environment must have.",
    )
    options: dict[str, Any] = Field(
        default={}, description="Passed to the program unchanged. Can be swept: `trainer.NAME.options.beta`."
    )
    data: dict[Name, InnerFile] = Field(
        default={},
        description="Other files that it trains on, such as preference pairs. Texts that are also held-out examples "
        "are rejected.",
    )
    objective: Objective = Field(
        default="sft",
        description="What it minimizes, which decides how its losses are checked: `sft` is the mean loss per "
        "supervised token.",
    )
    processes: Positive = Field(default=1, description="Training processes, one per GPU. Only 1 is supported.")
    python: Text | None = Field(
        default=None,
        description="The interpreter that runs the program. The environment variable LORA_TRAINER_NAME_PYTHON takes "
        "precedence. Unset: lora's own. Changes no key.",
    )
    environment: list[Annotated[str, Field(pattern=ENVIRONMENT_NAME)]] = Field(
        default=[], description="Environment variables that the program also receives. Changes no key."
    )
    stop_seconds: Positive = Field(
        default=60,
        description="Seconds that the program has to write a checkpoint after SIGTERM, before it is killed. Changes no "
        "key.",
    )

    @cached_property
    def as_text(self) -> str:
        """Equal text for programs of equal results, as far as the spec tells."""
        return json.dumps(self.model_dump(exclude=set(_OF_THE_MACHINE)) | {"files": sorted(self.files)}, sort_keys=True)
