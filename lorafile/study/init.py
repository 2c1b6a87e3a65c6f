"""`lora init`: a first spec that runs, on the built-in task or on the user's own model and data."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lorafile.analysis.compare.outcomes import margin_of
from lorafile.engine.data.columns import read_columns
from lorafile.engine.data.hub import cached_snapshot
from lorafile.engine.data.second_answer import FIELDS, second_answer
from lorafile.engine.data.sources import BUILTIN
from lorafile.errors import LoraError, ModelError
from lorafile.files.jsonl import read_json
from lorafile.lock.description import can_describe
from lorafile.lock.lockfile import ModelLock, lock_model, weight_files
from lorafile.specs import parse
from lorafile.specs.catalogue import entry_name
from lorafile.specs.catalogue import preset as preset_text
from lorafile.specs.snapshot import is_encoder
from lorafile.specs.tables.settings import ModelTable
from lorafile.specs.target_modules import shortest_names
from lorafile.study.data_format import DataFormat, detect_of_path, looks_local, toml_string
from lorafile.study.preset_placement import placed_preset
from lorafile.units import listing

BUILTIN_MODEL, BUILTIN_DATA = "builtin:facts-llama", "builtin:facts"
FIRST = """\
# A first study: the untuned model, LoRA at three ranks, and full fine-tuning, each with three seeds.
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
too_long = "drop" # examples longer than max_length (512 tokens) are excluded; the report counts them

[lora]
lora_alpha = "2r" # alpha / r stays 2, so that only the rank varies
target_modules = "all-linear" # or "attention", "mlp", or a list of names

[train]
num_train_epochs = 3
learning_rate = 2e-4

[full]
learning_rate = 2e-5 # the best rate for full fine-tuning is about a tenth of LoRA's

[verdict]
margin = "1%" # the largest difference that does not matter; equivalence is claimed within it

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


class FirstSpec(NamedTuple):
    """A first spec, and what was guessed for it."""

    text: str
    guesses: tuple[str, ...]  # sentences


def first_spec(preset: str | None = None, model: str | None = None, data: str | None = None) -> FirstSpec:
    """Return a first spec as TOML, and a sentence for each guess.

    :param preset: a preset's name; absent: a small study of ranks, the untuned and the fully tuned model
    :param model: a hub id or a directory; absent: the built-in one
    :param data: a hub id, a file or a directory; absent: the built-in task
    :raises LoraError: for an unknown preset, and for data that are missing, empty, or of no usable column
    """
    if data and entry_name(data) and Path(data).exists():
        data = f"./{data}"  # its name alone is that of a well-known set
    text = preset_text(preset) if preset else FIRST
    if preset is None and (model or BUILTIN_MODEL) == BUILTIN_MODEL:
        for ordinary, small in _BUILTIN_TRAINING:
            text = text.replace(ordinary, small)
    directory = _model_directory(model) if model else None
    config = _config(directory) if directory else {}
    classifies = is_encoder(config)
    described = _described(directory, classifies)
    layout = detect_of_path(data, classifies, bool(described and described.chat_template)) if data else DataFormat()
    if model:
        if classifies and data is None:
            raise ModelError(f"--model {model} is an encoder, which classifies. Pass data with classes to --data.")
        text = _replace_path(text, BUILTIN_MODEL, model, _task(layout) if classifies else ())
        if not model.startswith(BUILTIN):
            text = _with_names(placed_preset(text, preset or "", described), described)
        if classifies and not str(config.get("architectures")).endswith("ForSequenceClassification']"):
            text = _with_trained_head(text)
    if data:
        text = _replace_path(text, BUILTIN_DATA, data, layout.lines())
    if "text" in (layout.format, layout.detected):  # which is cut into pieces, and never too long
        text = re.sub(r"^too_long = .*\n", "", text, flags=re.MULTILINE)
    short = layout.short_answers or (preset is None and data in (None, BUILTIN_DATA))
    chosen = layout.metrics or (("exact_match", "log_loss") if short else ())
    if chosen and "[evaluate]" not in text:
        table = f"[evaluate]\nmetrics = {json.dumps(chosen)} # the first one decides\n\n"
        text = text.replace("[[sweep]]", f"{table}[[sweep]]", 1)
    if model or data:
        text = text.replace("# Change these two for your own study.\n", "")
    metric = parse(text, Path("study.toml")).primary
    if margin_of("1pt", metric, 0.0) is not None:
        text = text.replace('margin = "1%"', 'margin = "1pt"', 1)
    return FirstSpec(text, tuple(_guesses(layout, data, metric)) if data else ())


def _replace_path(text: str, old: str, new: str, more: tuple[str, ...] = ()) -> str:
    lines = "\n".join((f"path = {toml_string(new)}", *more))
    return re.sub(rf'^path = "{re.escape(old)}".*$', lambda _: lines, text, count=1, flags=re.MULTILINE)


def _model_directory(model: str) -> Path | None:
    """Return where a model is on this machine; None for a hub name that is not in the cache, and what is built in.

    :raises LoraError: when a path holds no model
    """
    path = Path(model).expanduser()
    if path.exists():
        if not (path / "config.json").is_file():
            raise LoraError(f"--model {model}: has no config.json, so it is not a transformers model.")
        return path
    if looks_local(model):
        raise LoraError(f"--model {model}: there is no such directory.")
    cached = None if model.startswith(BUILTIN) else cached_snapshot(model, "model")
    return cached if cached and (cached / "config.json").is_file() and weight_files(cached) else None


def _config(directory: Path) -> dict[str, Any]:
    """Return a model's config.json; of one that is damaged nothing, because `lora plan` says what is wrong with it."""
    try:
        config = read_json(directory / "config.json")
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _guesses(layout: DataFormat, data: str, metric: str) -> Iterator[str]:
    """Yield what was guessed of data, and why."""
    if layout.like:
        yield f'{data} has the files of {layout.like} in the catalogue. Its settings are used: like = "{layout.like}".'
    elif not layout.names and not Path(data).expanduser().exists():
        yield f"{data} is not on this machine, so its columns are unknown. Show them with: lora data show"
    if not layout.names:
        return
    form = [f'format = "{layout.detected}"'] if layout.detected and not (layout.format or layout.template) else []
    read = "; ".join([*form, *layout.lines()])
    template = " ".join(layout.template.values())
    kind, names = layout.format or layout.detected, list(layout.names)
    used = read_columns(kind, template, layout.columns, names)
    unread = [name for name in names if name not in used]
    left = f" Not read: {listing(unread, 20)}." if unread else ""
    if other := None if template else second_answer(kind, layout.columns, names):
        left += f" If {other[1]} is the answer, set data.columns.{FIELDS[kind]} = {toml_string(other[1])}."
    yield f"{data} has the columns {listing(layout.names, 20)}. Detected: {read}.{left}"
    if layout.metrics:
        yield f"Primary metric: {metric}, the usual one for such data."
    elif layout.answer_length is not None:
        why = "short enough to match word for word" if layout.short_answers else "too long to match word for word"
        letters = f"{layout.answer_length:g} character{'' if layout.answer_length == 1 else 's'}"
        yield f"Primary metric: {metric}, because answers have {letters} (median), {why}."


def _with_names(text: str, model: ModelLock | None) -> str:
    """Return a spec that says what "all-linear" means in a model."""
    if model is None or not model.modules:
        return text
    names = ", ".join(shortest_names(set(model.modules), [*model.modules, *model.reserved]))
    line = f'target_modules = "all-linear" # in this model: {names}'
    return re.sub(r'^target_modules = "all-linear".*$', lambda _: line, text, count=1, flags=re.MULTILINE)


def _described(directory: Path | None, classifies: bool) -> ModelLock | None:
    """Return what a lock would say of a model, where the libraries that know it are here."""
    if directory is None or not can_describe():
        return None
    return lock_model(ModelTable(path=str(directory), task_type="SEQ_CLS" if classifies else "CAUSAL_LM"), Path())


def _task(layout: DataFormat) -> tuple[str, ...]:
    """Return what an encoder does with its data, as lines of `[model]`."""
    if layout.numbers:
        return ('task_type = "SEQ_CLS"', "num_labels = 1 # labels are numbers: a regression")
    return ('task_type = "SEQ_CLS" # an encoder with a classification head',)


def _with_trained_head(text: str) -> str:
    """Return a spec that compares with a trained head on a frozen encoder: a new head says nothing before training."""
    text = re.sub(r'name = "untuned"( #.*)?', 'name = "head" # a trained head on the frozen encoder', text)
    text = text.replace('method = ["none"', 'method = ["head"')
    return text.replace("the untuned model", "only a trained head")
