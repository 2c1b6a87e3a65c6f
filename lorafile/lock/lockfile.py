"""The lock file: the models and data of a study by content, committed next to the spec."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from lorafile.engine.data.sources import find_model
from lorafile.errors import LoraError, NodeError
from lorafile.files.atomic import write_text
from lorafile.files.digests import file_digest, json_digest
from lorafile.files.jsonl import read_json
from lorafile.files.tasks import task
from lorafile.files.user_cache import LARGE, cached_digest, cached_digest_of
from lorafile.lock.content import tensors_digest, tokenizer_digest
from lorafile.lock.data import DataLock, commit_of, lock_data, same_columns
from lorafile.lock.description import check_type, describe_model
from lorafile.lock.unlocked import config_directory, describe_unlocked, has_weights, named_dtype, no_weights
from lorafile.lock.weights import Header, headers
from lorafile.specs import Spec
from lorafile.specs.tables.data import DataTable
from lorafile.specs.tables.settings import ModelTable

_Table = TypeVar("_Table", ModelTable, DataTable)
VERSION = 3
_TOKENIZER = (
    *("tokenizer", "vocab", "merges", "special_tokens_map", "added_tokens", "chat_template", "spiece"),
    "sentencepiece",
)
SIZES = (
    *("hidden_size", "n_embd", "num_attention_heads", "n_head", "num_key_value_heads", "num_hidden_layers"),
    *("n_layer", "intermediate_size", "head_dim", "vocab_size"),
)
_LARGEST = 2**31
_DESCRIBED = (
    *("modules", "tensors", "experts", "reserved", "head"),
    *("chat_template", "end_token", "date", "transformers"),
)
_READING = ("encoding", "delimiter", "column_names", "field", "where")  # settings that say how files are read
_DERIVED = (
    "settings",
    "characters",
    "percentiles",
    "bytes",
    "label",
    "labels",
    "lengths",
    "answers",
    "unanswerable",
    "kinds",
    "shared_clusters",
    "layout",
    "content",
    "second_answer",
    "disagreeing",
)  # follow from the others
_SHOWN = 12  # characters of a revision
_CONFIG_NOISE = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache")


@dataclass(frozen=True)
class ModelLock:
    """A model by content.

    :ivar weights: digest over the weight files; `config`, `tokenizer`: over those files
    :ivar settings: config.json
    :ivar parameters: how many, without a head that is drawn for each run; `bytes` on disk
    :ivar date: what its chat template prints as today's, where it prints that
    :ivar transformers: the version whose classes told the rest, which `engine.model.description` describes; None in
        a lock of before 0.18, which was read from the names in the weight files
    :ivar content: `weights`, `config` and `tokenizer` once more, over what training reads of them: tensors however they
        are stored, a config without the token that ends an answer, a tokenizer without white space and chat template;
        empty in a lock of before version 3
    """

    revision: str | None
    weights: str
    config: str
    tokenizer: str
    dtype: str
    parameters: int
    bytes: int
    settings: dict[str, Any]
    modules: dict[str, list[int]]
    tensors: dict[str, list[int]] = field(default_factory=dict)
    experts: dict[str, list[int]] = field(default_factory=dict)
    reserved: list[str] = field(default_factory=list)
    head: dict[str, list[int]] = field(default_factory=dict)
    chat_template: bool = False
    end_token: int | None = None
    date: str | None = None
    transformers: str | None = None
    content: dict[str, str] = field(default_factory=dict)

    @cached_property
    def resolved(self) -> dict[tuple[str, str], list[str]]:
        """Where targets of a spec were found in it: (setting, targets as written) -> names; filled by who asks."""
        return {}

    @property
    def is_locked(self) -> bool:
        """Whether its weights have been seen; a plan without them estimates, and its keys are none."""
        return bool(self.weights)

    @property
    def norms(self) -> list[str]:
        """Its norms: the modules of which the weight is a vector."""
        vectors = [name for name, shape in self.tensors.items() if len(shape) == 1]
        return [name.removesuffix(".weight") for name in vectors if name.endswith(".weight")]


@dataclass(frozen=True)
class Lock:
    """Every model and data set that a study names, by `path@revision`.

    :ivar equal: digest of a model's files -> that of files with the same content, which results in state were made
        with; it is not part of the file
    :ivar as_written: settings that cannot matter stay in keys as a spec has them, as those of earlier versions did; it
        is not part of the file
    """

    models: dict[str, ModelLock]
    data: dict[str, DataLock]
    equal: dict[str, str] = field(default_factory=dict, compare=False)
    as_written: bool = field(default=False, compare=False)

    def text(self) -> str:
        """Return the lock as it is committed."""
        data = {name: entry.as_json() for name, entry in self.data.items()}
        content = {"version": VERSION, "models": {name: asdict(entry) for name, entry in self.models.items()}}
        return json.dumps({**content, "data": data}, indent=1, sort_keys=True) + "\n"


def lock_file(spec: Spec) -> Path:
    """Return where a spec's lock stands."""
    return spec.file.with_suffix(".lock")


def read_lock(spec: Spec) -> Lock | None:
    """Return the lock next to a spec, or None where there is none.

    :raises LoraError: when it is damaged or newer than this version
    """
    file = lock_file(spec)
    try:
        content = read_json(file)
        if content.pop("version") > VERSION:
            remedy = f"Update, or recreate it with: lora lock {spec.file}"
            raise LoraError(f"{file} was written by a newer lorafile. {remedy}")
        TypeAdapter(Lock).validate_json(json.dumps(content), strict=True)
        models = {name: ModelLock(**row) for name, row in content["models"].items()}
        return Lock(models, {name: DataLock(**row) for name, row in content["data"].items()})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        damage = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            damage = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise LoraError(f"{file} is damaged ({damage}). Recreate it with: lora lock {spec.file}") from error


def write_lock(spec: Spec, lock: Lock) -> None:
    """Write the lock next to a spec."""
    write_text(lock_file(spec), lock.text())


def resolve(
    spec: Spec, stored: Lock | None, fresh: bool = False, rehash: bool = False, without_weights: bool = False
) -> tuple[Lock, list[str]]:
    """Return the lock of a spec as its models and data are now, and what has changed since the stored one.

    Local files are read; a hub name is taken from the stored lock unless a fresh look is asked for.

    :param rehash: read weights although their digests are known
    :param without_weights: a model whose weights are not here gets an entry from its config.json, `is_locked` false
    """
    models: dict[str, ModelLock] = {}
    data: dict[str, DataLock] = {}
    changed: list[str] = []
    base, old = spec.file.parent, stored or Lock({}, {})
    for name, model in _by_identity(c.model for c in spec.configurations).items():
        locked = old.models.get(name)
        keep = locked is not None and not fresh and is_on_hub(model.path, base)
        with spec.located("model.path"):
            unlocked = unlocked_model(model, base) if without_weights and not keep else None
            models[name] = locked if locked and keep else unlocked or lock_model(model, base, locked, fresh, rehash)
        moved = locked is not None and unlocked is None and locked != models[name]
        changed += [_moved_model(name, locked, models[name])] if locked is not None and moved else []
    references = [spec.reference] if spec.reference else []
    for name, table in _by_identity([*(c.data for c in spec.configurations), *references]).items():
        was = old.data.get(name)
        keep = was is not None and not fresh and is_on_hub(table.path, base) and same_columns(table, was)
        with spec.located("evaluate.reference" if table in references else "data.path"):
            data[name] = was if was and keep else lock_data(table, base, None if fresh else was)
        moved = was is not None and (was.digests, was.revision) != (data[name].digests, data[name].revision)
        reused = "Identical prepared data is reused; the rest is recomputed"
        changed += [f"The data {name} do not match the lock. {reused}"] if moved else []
    advice = f"; accept with: lora lock {spec.file}"
    return Lock(models, data), [sentence + advice for sentence in changed]


def _moved_model(name: str, locked: ModelLock, now: ModelLock) -> str:
    if locked.content and locked.content == now.content:
        return f"The files of the model {name} differ from the lock, but their content for training is the same"
    return f"The model {name} does not match the lock. Its results will be recomputed"


def _by_identity(tables: Iterable[_Table]) -> dict[str, _Table]:
    """Return the first table of each name in the lock."""
    first: dict[str, _Table] = {}
    for table in tables:
        first.setdefault(identity(table), table)
    return first


def identity(table: ModelTable | DataTable) -> str:
    """Return the name of a model or data set in a lock."""
    revision = f"@{table.revision}" if table.revision else ""
    if isinstance(table, ModelTable):
        return table.path + revision + (" as SEQ_CLS" if table.task_type == "SEQ_CLS" else "")
    read = f" by {table.sample_by}" if table.sample_by != "auto" else ""
    settings = {name: value for name in _READING if (value := getattr(table, name))}
    read += f" with {json.dumps(settings, sort_keys=True)}" if settings else ""
    return table.path + (f"/{table.name}" if table.name else "") + revision + read


def shown_name(name: str) -> str:
    """Return a lock's name of a data set as messages have it: `rows.csv (column_names = ["text", "label"])`."""
    path, reads, settings = name.partition(" with {")
    if not reads:
        return name
    read = (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in json.loads("{" + settings).items())
    return f"{path} ({', '.join(read)})"


def lock_model(
    table: ModelTable, base: Path, locked: ModelLock | None = None, fresh: bool = False, rehash: bool = False
) -> ModelLock:
    """Return a model's lock entry from its files.

    :param locked: the entry so far: what it says of the layers stays where the files are the same
    :param fresh: look at the layers again all the same; the date that a chat template prints stays
    :param rehash: read the weights although their digests are known
    :raises NodeError: when it has no safetensors weights (pickled ones are never loaded), or cannot be trained
    """
    directory = find_model(table.path, table.revision, base)
    settings = _read_json(directory / "config.json")
    check_type(settings, table)
    weights = weight_files(directory)
    if not has_weights(directory):
        raise NodeError(no_weights(directory))
    _check_sizes(settings, directory / "config.json")
    tensors = {name: header for file in weights for name, header in headers(file).items()}
    if not tensors:
        raise NodeError(f"model.path: {directory} holds no weights: its .safetensors files are empty.")
    meaning = {key: value for key, value in settings.items() if key not in _CONFIG_NOISE}
    generation = directory / "generation_config.json"
    ends = _read_json(generation).get("eos_token_id") if generation.is_file() else None
    code = [(file.name, file_digest(file)) for file in directory.glob("*.py")]
    contents: dict[str, Any] = {
        "revision": commit_of(directory),
        "weights": json_digest(sorted(_weight_digests(table.path, weights, rehash))),
        "config": json_digest(
            sorted([("config", json.dumps(meaning, sort_keys=True)), ("eos", json.dumps(ends)), *code])
        ),
        "tokenizer": json_digest(sorted((file.name, file_digest(file)) for file in tokenizer_files(directory))),
        "dtype": _dtype(settings, tensors),
        "bytes": sum(file.stat().st_size for file in weights),
        "settings": settings,
    }
    if locked is not None and not fresh and all(getattr(locked, name) == value for name, value in contents.items()):
        return locked
    described = describe_model(directory, table, contents, tensors)
    shapes = [*described["modules"].values(), *described["experts"].values(), *described["tensors"].values()]
    today = (locked.date if locked else None) or date.today().isoformat()
    described["date"] = today if described["prints_date"] else None
    content = {
        "weights": _tensors_digest(table.path, contents, tensors, rehash),
        "config": json_digest(sorted([("config", json.dumps(meaning, sort_keys=True)), *code])),
        "tokenizer": tokenizer_digest(tokenizer_files(directory)),
    }
    description = {name: described[name] for name in _DESCRIBED}
    return ModelLock(**contents, parameters=sum(map(prod, shapes)), **description, content=content)


def _weight_digests(name: str, files: list[Path], rehash: bool) -> list[tuple[str, str]]:
    with task(f"Hashing the weights of {name}", sum(file.stat().st_size for file in files)) as hashing:
        return [(file.name, cached_digest(file, rehash, hashing.advance)) for file in files]


def _tensors_digest(name: str, contents: dict[str, Any], tensors: dict[str, Header], rehash: bool) -> str:
    """Return the digest over a model's tensors; of large weights whose bytes are known, the one that is kept."""

    def read() -> str:
        with task(f"Hashing the tensors of {name}", contents["bytes"]) as hashing:
            return tensors_digest(tensors, hashing.advance)

    large = contents["bytes"] >= LARGE and not rehash
    return cached_digest_of(f"tensors of {contents['weights']}", read) if large else read()


def unlocked_model(table: ModelTable, base: Path) -> ModelLock | None:
    """Return an entry from a model's config.json where its weights are not here; None where they are."""
    directory = config_directory(table, base, is_on_hub(table.path, base))
    if directory is None:
        return None
    settings = _read_json(directory / "config.json")
    check_type(settings, table)
    _check_sizes(settings, directory / "config.json")
    fields = describe_unlocked(directory, table, settings)
    tokenizer = tokenizer_files(directory)
    fields["tokenizer"] = json_digest(sorted((f.name, file_digest(f)) for f in tokenizer)) if tokenizer else ""
    described = fields.pop("described")
    return ModelLock(**fields, **{name: described[name] for name in _DESCRIBED if name != "date"})


def unlocked_warnings(spec: Spec, lock: Lock) -> list[str]:
    """Return a sentence for each model whose weights are not here."""
    remedy = f"Keys are unknown and nothing can be applied until the weights are here; then run: lora lock {spec.file}"
    sentences = []
    for name, model in lock.models.items():
        if not model.is_locked:
            sentence = f"The weights of {name} are missing: time and memory are estimated from its config.json. "
            missing = (
                ""
                if model.tokenizer
                else (
                    "Its tokenizer is missing too: it is unknown whether it has a chat template, and lengths are "
                    "estimated from characters. "
                )
            )
            sentences.append(sentence + _assumed_dtype(spec, name, model) + missing + remedy)
    return sentences


def _assumed_dtype(spec: Spec, name: str, model: ModelLock) -> str:
    """Say in which type a base is estimated, where neither the spec nor its config.json names one."""
    tables = [c.model for c in spec.configurations if identity(c.model) == name]
    if named_dtype(model.settings) == model.dtype or all(table.dtype != "auto" for table in tables):
        return ""
    return f"That file names no usable dtype, so {model.dtype} is assumed; if that is wrong, set model.dtype. "


def tokenizer_files(directory: Path) -> list[Path]:
    """Return a model's tokenizer files."""
    return sorted(file for file in directory.iterdir() if file.name.startswith(_TOKENIZER) and file.is_file())


def weight_files(directory: Path) -> list[Path]:
    """Return a model's weight files: what its index names, or every safetensors file."""
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        named = _read_json(index).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
            raise NodeError(f"{index} lists no weight files.")
        return sorted({directory / Path(name).name for name in named.values()})
    return sorted(file for file in directory.glob("*.safetensors") if file.is_file())


def _check_sizes(settings: dict[str, Any], file: Path) -> None:
    """Refuse sizes that no model has; a list has one for each layer."""
    for table in (settings, settings.get("text_config") or {}):
        for name in SIZES if isinstance(table, dict) else ():
            value = table.get(name)
            for size in value if isinstance(value, list) and value else [] if value is None else [value]:
                if type(size) is not int or not 0 < size < _LARGEST:
                    raise NodeError(f"{file}: {name} should be a size, not {json.dumps(value)[:80]}.")
        if not isinstance(table, dict):
            raise NodeError(f"{file}: text_config should be an object.")
    if not isinstance(settings.get("quantization_config") or {}, dict):
        raise NodeError(f"{file}: quantization_config should be an object.")


def _dtype(settings: dict[str, Any], tensors: dict[str, Header]) -> str:
    named = named_dtype(settings)
    stored = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
    return str(named) if named in stored.values() else stored.get(next(iter(tensors.values())).dtype, "float32")


def is_on_hub(path: str, base: Path) -> bool:
    """Return whether a name is neither built in nor a path here."""
    return not path.startswith("builtin:") and not (base / Path(path).expanduser()).exists()


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:
        raise NodeError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise NodeError(f"{file} does not contain a JSON object.")
    return content


def describe_changes(old: Lock | None, new: Lock) -> list[str]:
    """Return a sentence for each model and data set that differs between two locks, with what differs."""
    sentences = []
    for kind, before, after in (("model", old.models, new.models), ("data", old.data, new.data)) if old else ():
        for name in sorted(before.keys() & after.keys()):
            if before[name] != after[name]:
                verb, difference = "has" if kind == "model" else "have", _describe_difference(before[name], after[name])
                sentences.append(f"The {kind} {shown_name(name)} {verb} moved since the lock: {difference}.")
    return sentences


def _describe_difference(before: Any, after: Any) -> str:
    rows = zip(asdict(before).items(), asdict(after).values(), strict=True)
    differing = {name: (old, new) for (name, old), new in rows if old != new}
    words = [_describe_field(name, *pair) for name, pair in differing.items() if name not in _DERIVED]
    return ", ".join(words) or ", ".join(f"other {name}" for name in differing)


def _describe_field(name: str, old: Any, new: Any) -> str:
    if name in ("revision", "transformers", "date"):
        return f"{name} {str(old)[:_SHOWN]} → {str(new)[:_SHOWN]}"
    if name == "rows":
        splits = [split for split in {**old, **new} if old.get(split) != new.get(split)]
        return ", ".join(f"{split} {old.get(split, 0)} → {new.get(split, 0)} rows" for split in splits)
    return f"other {name}"
