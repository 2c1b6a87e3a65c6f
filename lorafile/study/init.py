"""`lora init`: a first spec that runs, on the built-in task or on the user's own model and data."""

import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

from lorafile.engine.data.hub import DATA_SUFFIXES
from lorafile.engine.data.readers import read_rows
from lorafile.engine.data.sources import data_files
from lorafile.errors import LoraError
from lorafile.specs import parse
from lorafile.specs.catalogue import preset as preset_text
from lorafile.study.guess_format import DataGuess, guess

BUILTIN_MODEL, BUILTIN_DATA = "builtin:facts-llama", "builtin:facts"
FIRST = """\
# A first study: the untuned model, LoRA at three ranks, and full fine-tuning, each under three seeds.
#   lora plan     shows what would run        lora apply    runs what is missing
#   lora report   draws the conclusions       lora schema   knows every setting
[study]
name = "first-study"
question = "Is LoRA as good as full fine-tuning here, and how much rank does it need?"
seeds = [42, 1337, 2024]

[model]
path = "builtin:facts-llama"

[data]
path = "builtin:facts"
too_long = "drop" # an example of more than max_length (512) tokens is left out, and the report counts them

[lora]
lora_alpha = "2r" # alpha / r stays 2, so that only the rank varies
target_modules = "all-linear" # or "attention", "mlp", or a list of names

[train]
num_train_epochs = 3
learning_rate = 2e-4

[full]
learning_rate = 2e-5 # about a tenth of LoRA's is where full fine-tuning is best

[[sweep]]
name = "rank"
lora.r = [4, 8, 16]

[[sweep]]
name = "baselines"
method = ["none", "full"]
"""
# The built-in model is a thousand times smaller than the smallest that such rates are for.
_BUILTIN_TRAINING = (
    (
        "num_train_epochs = 3\nlearning_rate = 2e-4",
        "num_train_epochs = 6\nlearning_rate = 3e-3\nper_device_train_batch_size = 32",
    ),
    ("learning_rate = 2e-5 ", "learning_rate = 2e-3 "),
)


def first_spec(preset: str | None = None, model: str | None = None, data: str | None = None) -> str:
    """Return the TOML text of a first spec.

    :param preset: a preset's name; absent: a small study of ranks beside the untuned and the fully tuned model
    :param model: a hub id or a directory, `data`: a hub id, a file or a directory; absent: the built-in ones
    :raises LoraError: for an unknown preset, and for data that are missing, empty, or of no usable column
    """
    text = preset_text(preset) if preset else FIRST
    found = _look(data) if data else DataGuess()
    if preset is None and (model or BUILTIN_MODEL) == BUILTIN_MODEL:
        for ordinary, small in _BUILTIN_TRAINING:
            text = text.replace(ordinary, small)
    if model:
        _check_model(model)
        text = _replace_path(text, BUILTIN_MODEL, model)
    if data:
        text = _replace_path(text, BUILTIN_DATA, data, found.lines())
    short = found.short_answers or (preset is None and data in (None, BUILTIN_DATA))
    chosen = found.metrics or (("exact_match", "log_loss") if short else ())
    if chosen and "[evaluate]" not in text:
        table = f"[evaluate]\nmetrics = {json.dumps(chosen)} # the first one decides\n\n"
        text = text.replace("[[sweep]]", f"{table}[[sweep]]", 1)
    if model or data:
        text = text.replace("# Change these two for a study of your own.\n", "")
    parse(text, Path("study.toml"))
    return text


def toml_string(text: str) -> str:
    """Return a text as a TOML basic string.

    :raises LoraError: where TOML cannot hold it: file names that are no text
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise LoraError(f"{text!a} is not a name that a spec can hold: it is not UTF-8. Rename it.") from error
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _replace_path(text: str, old: str, new: str, more: tuple[str, ...] = ()) -> str:
    lines = "\n".join((f"path = {toml_string(new)}", *more))
    return re.sub(rf'^path = "{re.escape(old)}".*$', lambda _: lines, text, count=1, flags=re.MULTILINE)


def _check_model(model: str) -> None:
    if not model:
        return
    where = Path(model).expanduser()
    if where.exists() and not (where / "config.json").is_file():
        raise LoraError(f"--model {model}: there is no config.json in it, so it is not a transformers model.")
    if not where.exists() and _looks_local(model):
        raise LoraError(f"--model {model}: there is no such directory.")


def _looks_local(name: str) -> bool:
    """Return whether a name can only be meant for this machine: a hub id is `owner/name`, or `name` alone."""
    return not name.startswith("builtin:") and (name.startswith((".", "/", "~")) or name.count("/") > 1)


def _look(data: str) -> DataGuess:
    """Return what the first rows of local data tell; a hub name is not asked."""
    where = Path(data).expanduser()
    try:
        if not where.exists():
            if _looks_local(data) or data.endswith(DATA_SUFFIXES):
                raise LoraError(f"--data {data}: there is no such file or directory.")
            return DataGuess()
        if where.is_file() and where.suffix not in DATA_SUFFIXES:
            raise LoraError(f"--data {data}: should be one of {', '.join(DATA_SUFFIXES)}, or a directory of these.")
        files = data_files(where)
        rows: list[dict[str, Any]] = list(islice(read_rows(files.get("train") or next(iter(files.values()))), 50))
    except OSError as error:
        raise LoraError(f"--data {data}: cannot be read: {error.strerror or error}.") from error
    if not rows:
        raise LoraError(f"--data {data}: is empty; it has no rows.")
    return guess(rows, data)
