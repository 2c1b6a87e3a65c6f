"""Located messages for the errors that pydantic and the checks of a spec find."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import Any

from pydantic import BaseModel, ValidationError

from lorafile.errors import Problem
from lorafile.specs.optimizers import ALIASES as OPTIMIZERS
from lorafile.specs.positions import Path, Position, locate
from lorafile.specs.tables.methods import METHODS, refusal, stays_out
from lorafile.specs.tables.quantizations import TABLES
from lorafile.specs.tables.settings import SpecTables, field_at, table_at
from lorafile.specs.tables.tracking import secret_refusal
from lorafile.specs.values import PATTERNS
from lorafile.units import closest, did_you_mean

# Where a setting belongs that stands in the wrong table; [full] repeats names of [train], which come first.
_HOMES = (
    *("study", "model", "data", "lora", "train", "none", "evaluate", "profile", "inspect", "truncate", "merge"),
    *("report", "quantization", *METHODS),
)
_TOP = ("method", "quantization")
# pydantic's type of an error -> what it expected.
_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a table",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_attributes_type": "a table",
    "model_type": "a table",
    "string_type": "a text",
    "too_short": "a list of at least one",
    "string_too_short": "a text that is not empty",
    "string_too_long": "a text of at most {max_length} characters",
    "less_than_equal": "at most {le:g}",
    "greater_than_equal": "at least {ge:g}",
}
MAX_PROBLEMS = 1000  # of one spec; a user who fixes a hundred has seen enough
_LONGEST_NAME = 80
_MANY = 30  # values that are not all listed where one of them is close
# What papers and other tools call a method, and is a setting here.
_OF_SETTINGS = {
    "dora": 'method = "lora" with lora.use_dora = true',
    "rslora": 'method = "lora" with lora.use_rslora = true',
    "qlora": 'method = "lora" with quantization = "nf4"',
    "loraplus": 'method = "lora" with train.loraplus_lr_ratio = 16',
    "lora+": 'method = "lora" with train.loraplus_lr_ratio = 16',
    "lorafa": 'method = "lora" with train.optim = "lorafa"',
    "lora_fa": 'method = "lora" with train.optim = "lorafa"',
    **{name: f'method = "lora" with lora.init_lora_weights = "{name}"' for name in ("pissa", "olora", "loftq", "eva")},
    "velora": 'method = "lora" with lora.velora_config',
    "bdlora": 'method = "lora" with lora.use_bdlora',
}


@dataclass
class Problems:
    """Collects every problem of one spec, or of another document of tables, with its position.

    :ivar root: the document's table
    """

    file: str
    positions: dict[Path, Position] = field(default_factory=dict)
    by_place: dict[tuple[Path, str], Problem] = field(default_factory=dict)
    root: type[BaseModel] = SpecTables

    def add(self, path: Path, message: str) -> None:
        """Add a problem at a path of the document."""
        if len(self.by_place) > MAX_PROBLEMS:
            return
        line, column = locate(self.positions, path)
        self.by_place.setdefault((path, message), Problem(self.file, line, column, dotted(path), message))

    def add_validation(self, error: ValidationError, raw: Any, prefix: Path = (), below: Path = ()) -> list[Path]:
        """Add every error of a validation, one message for all branches of a union; return their paths.

        :param prefix: where the validated value stands in the document
        :param below: where it stands among the tables of a spec; what is wrong elsewhere is left out
        """
        by_path: dict[Path, list[Any]] = {}
        for row in error.errors():
            path = _real_path(row, raw)
            if path[: len(below)] == below:
                by_path.setdefault(path, []).append(row)
        by_path = dict(islice(by_path.items(), MAX_PROBLEMS))
        # Inside a list or a table that a union allows, the mistake is the inner one.
        inner = [path for path in by_path if not any(other[: len(path)] == path != other for other in by_path)]
        unknown = [path for path in inner if by_path[path][0]["type"] == "extra_forbidden"]
        for path in inner:
            near = [name for *table, name in unknown if tuple(table) == path[:-1]]
            missing = by_path[path][0]["type"] == "missing"
            if missing and any(_means(str(name), str(path[-1])) for name in near):
                continue  # it is there, misspelled: one mistake, reported once
            self.add((*prefix, *path[len(below) :]), _sentence(by_path[path], path, self.root))
        return inner

    def list(self) -> list[Problem]:
        """Return the problems in the order in which they were added."""
        return list(self.by_place.values())


def _means(name: str, setting: str) -> bool:
    """Return whether an unknown name is a setting misspelled, or called as other tools call it."""
    return _ALIASES.get(name) == setting or bool(suggestion(name, [setting]))


def dotted(path: Path) -> str:
    """Return a path as users write it: `sweep[0].lora.r[2]`."""
    text = ""
    for part in path:
        part = part[:_LONGEST_NAME] + "…" if isinstance(part, str) and len(part) > _LONGEST_NAME else part
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def suggestion(word: str, allowed: Iterable[str]) -> str:
    """Return `; did you mean "…"?` for a near name, or nothing."""
    hint = did_you_mean(word, allowed) if len(word) <= _LONGEST_NAME else ""
    return hint and f"; {hint}"


# What other tools, and people, call a setting.
_ALIASES = {
    "rank": "r",
    "ranks": "r",
    "type": "kind",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "modules": "target_modules",
    "layers": "layers_to_transform",
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "steps": "max_steps",
    "batch_size": "per_device_train_batch_size",
    "micro_batch_size": "per_device_train_batch_size",
    "scheduler": "lr_scheduler_type",
    "optimizer": "optim",
    "name_or_path": "path",
    "model_name_or_path": "path",
    "base_model": "path",
    "dataset": "path",
    "val_set_size": "split",
    "test_size": "split",
    "lora_target_linear": "target_modules",
    "gradient_clipping": "max_grad_norm",
    "eval_strategy": "eval_steps",
    "evaluation_strategy": "eval_steps",
}
# What other tools have, and Lorafile has no setting for, with the reason.
_NO_SETTINGS = {
    "output_dir": "results are kept in the state (--state)",
    "overwrite_output_dir": "results are kept in the state (--state)",
    "inference_mode": "it is set where an adapter is trained or used",
    "peft_type": 'the method is named by `method = "lora"`',
    "logging_steps": "the loss of every step is recorded",
    "logging_strategy": "the loss of every step is recorded",
    "save_strategy": "finished runs are always saved; train.save_steps is for checkpoints of unfinished ones",
    "report_to": "[tracking] sends runs elsewhere",
    "run_name": "runs are named by their configuration and seed",
    "do_train": "`lora apply` runs what the spec declares",
    "do_eval": "`lora apply` runs what the spec declares",
    "remove_unused_columns": "columns that the format does not read are ignored",
    "dataloader_num_workers": "rows are tokenized once, before training",
}
# What other tools, and people, call a value: it is proposed where it is allowed.
_VALUES = {
    "4bit": "nf4",
    "4-bit": "nf4",
    "int4": "nf4",
    "load_in_4bit": "nf4",
    "qlora": "nf4",
    "8bit": "int8",
    "8-bit": "int8",
    "load_in_8bit": "int8",
    "llm.int8": "int8",
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "fp32": "float32",
    "float": "float32",
    "base": "none",
    "untuned": "none",
    "full_finetuning": "full",
    "full-fine-tuning": "full",
    "sft": "lora",
    "em": "exact_match",
    "loss": "log_loss",
    "nll": "log_loss",
    "rouge": "rougeL",
    **OPTIMIZERS,
}


@cache
def setting_tables(tables: tuple[str, ...] = _HOMES) -> dict[str, str]:
    """Return setting -> the table that it belongs in."""
    homes: dict[str, str] = {}
    for name in tables:
        table = table_at((name,))
        for setting in table.model_fields if table else ():
            homes.setdefault(setting, name)
    return homes


def unknown_setting(path: Path, branch: type[BaseModel] | None = None, root: type[BaseModel] = SpecTables) -> str:
    """Return the message for an unknown setting: the table it belongs in, a similar name, or the allowed ones.

    :param branch: the table of a union that was meant
    """
    name, place = str(path[-1]), path[:-1]
    unknown = "unknown setting" if place else "unknown setting or table"
    refused = refusal(path) or secret_refusal(path)
    if refused:
        return refused
    table, top = branch or table_at(place, root), table_at((), root)
    allowed = list(table.model_fields) if table else []
    if root is not SpecTables:
        return f"{unknown}{suggestion(name, allowed) or '; allowed: ' + ', '.join(allowed)}"
    if place and top and name in top.model_fields:
        at_top = f"write it at the top of the file, before the first [{place[0]}]"
        return (
            f"is not a setting of {dotted(place)} but a top-level one; {at_top if name in _TOP else f'write [{name}]'}"
        )
    if name in _NO_SETTINGS:
        return f"{unknown}; {_NO_SETTINGS[name]}"
    if _ALIASES.get(name) in allowed:
        return f'{unknown}; did you mean "{_ALIASES[name]}"?'
    home = setting_tables().get(name)
    if home and (home,) != place[:1]:
        return f"{unknown}; it belongs in [{home}]"
    elsewhere = {setting: f"{home}.{setting}" for setting, home in setting_tables().items()}
    close = closest(name, elsewhere, cutoff=0.8)
    near = "" if close and not closest(name, allowed, cutoff=0.8) else suggestion(name, allowed)
    hint = near or (f'; did you mean "{elsewhere[close]}"?' if close else "")
    return f"{unknown}{hint or ('; allowed: ' + ', '.join(allowed) if allowed else '; none is allowed here')}"


def _real_path(row: Any, raw: Any) -> Path:
    """Return an error's path without the names that pydantic adds for the branches of a union."""
    path: list[str | int] = []
    here = raw
    for number, part in enumerate(row["loc"], 1):
        in_list = isinstance(here, list) and isinstance(part, int) and part < len(here)
        if in_list or (isinstance(here, dict) and part in here):
            here = here[part]
            path.append(part)
        elif number == len(row["loc"]) and row["type"] in ("missing", "extra_forbidden"):
            path.append(part)
    return tuple(path)


def _sentence(rows: list[Any], path: Path, root: type[BaseModel]) -> str:
    kinds = {row["type"] for row in rows}
    field = field_at(path, root)
    meaning = (field.description or "").split(". ")[0].rstrip(".") if field else ""
    if "extra_forbidden" in kinds:
        return unknown_setting(path, next((TABLES[part] for part in rows[0]["loc"] if part in TABLES), None), root)
    if kinds == {"missing"}:
        table = table_at(path, root)
        needed = [name for name, info in table.model_fields.items() if info.is_required()] if table else []
        how = f"; write [{dotted(path)}] with {', '.join(needed)}" if needed else f": {meaning}" if meaning else ""
        return f"is required{how}"
    if path[-1:] == ("method",) and (reason := stays_out(str(rows[0]["input"]))):
        return f'PEFT\'s "{rows[0]["input"]}" is not offered: {reason}'
    if path[-1:] == ("method",) and (setting := _OF_SETTINGS.get(str(rows[0]["input"]).lower())):
        return f'should be a method of PEFT; "{rows[0]["input"]}" is a setting of one: {setting}'
    if path in (("sweep",), ("analysis",), ("claim",), ("reference",), ("stage",)):
        blocks = f"blocks that start with [[{path[0]}]], in double brackets"
        return f"should be written as {blocks}, not {show(rows[0]['input'])}"
    fitting = [row for row in rows if not row["type"].endswith(("_type", "literal_error", "pattern_mismatch"))] or rows
    parts = list(dict.fromkeys(_expectation(row) for row in fitting))
    if "a number" in parts and "a whole number" in parts:
        parts.remove("a whole number")
    words = [word for row in fitting if row["type"] == "literal_error" for word in _choices(row)]
    got = rows[0]["input"]
    close = _near_value(got, words) if isinstance(got, str) else ""
    if close and len(words) > _MANY:
        return f"should be one of {len(words)} names, not {show(got)}{close}"
    hint = f" ({meaning})" if len(fitting) < len(rows) and meaning else ""
    return f"should be {' or '.join(parts)}, not {show(got)}{close}{hint}"


def _near_value(got: str, words: list[str]) -> str:
    meant = _VALUES.get(got.strip().lower())
    return f'; did you mean "{meant}"?' if meant in words else suggestion(got, words)


def _choices(row: Any) -> list[str]:
    expected = str(row["ctx"]["expected"]).replace(" or ", ", ")
    return [word.strip().strip("'") for word in expected.split(",")]


def _expectation(row: Any) -> str:
    kind, context = row["type"], row.get("ctx", {})
    if kind == "literal_error":
        return "one of " + ", ".join(f'"{word}"' for word in _choices(row))
    if kind == "string_pattern_mismatch":
        return PATTERNS[context["pattern"]]
    if kind in _EXPECTED:
        return _EXPECTED[kind].format(**context)
    return str(row["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")


def show(value: Any) -> str:
    """Return a value as a message shows it: as TOML writes it, and not endlessly."""
    if isinstance(value, dict):
        return "a table"
    text = repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "…"
