"""Sweeps to configurations: products, zipped lists, points by hand; each with a name made of its values."""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

from pydantic import ValidationError

from lorafile.specs.positions import Path
from lorafile.specs.tables.data import DataTable
from lorafile.specs.tables.lora import INNER, inner_settings
from lorafile.specs.tables.methods import METHODS, method_defaults
from lorafile.specs.tables.quantizations import quantization_settings
from lorafile.specs.tables.settings import ModelTable, SpecTables, section_table
from lorafile.specs.tables.train import FullTable, TrainTable
from lorafile.specs.tables.trainer import TrainerTable
from lorafile.specs.values import Settings

# The least that a spec has to say: what is added to a table that is typed alone.
REQUIRED: dict[str, dict[str, Any]] = {"study": {"name": "-"}, "model": {"path": "-"}, "data": {"path": "-"}}
_CONFIGURED = ("model", "data", "method", *METHODS, "full", "none", "quantization", "train", "trainer")
_TEXT = json.JSONEncoder(sort_keys=True)
_CACHED = 4096  # tables that are typed once for all configurations that have them
_PATTERNS = tuple(f"{method}.{name}" for method in METHODS for name in ("rank_pattern", "alpha_pattern"))
_ONE_VALUE = (
    *("quantization", *_PATTERNS, "lora.trainable_token_indices", "lora.init_lora_weights"),
    *("data.columns", "data.labels"),
    *("train.learning_rates", "train.lr_scheduler_kwargs", "full.lr_scheduler_kwargs"),
)
_UNORDERED = (
    *("layers_to_transform", "target_modules", "exclude_modules", "feedforward_modules", "modules_to_save"),
    *("trainable_token_indices", "token_indices"),
)


@dataclass(frozen=True)
class Axis:
    """A setting that is tuned, with the values to try.

    :ivar setting: the setting that its candidates vary; `train.learning_rate` for `[full]`, too
    :ivar section: the table that declares it
    :ivar path: its position in the spec; the same for all configurations that share the candidates
    :ivar added: values past the ends of the declared ones, added by the plan
    """

    setting: str
    section: str
    values: tuple[Any, ...]
    extend: bool
    path: Path
    added: tuple[Any, ...] = ()

    @property
    def tried(self) -> tuple[Any, ...]:
        """Every value: ascending where they are numbers, as listed otherwise."""
        everything = (*self.values, *self.added)
        return tuple(sorted(everything)) if self.numeric else everything

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers, which have an order and can be continued."""
        return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in self.values)

    @property
    def name(self) -> str:
        """The setting without its table: `learning_rate`."""
        return self.setting.rpartition(".")[2]

    def added_beyond(self, above: bool) -> int:
        """Return how many values the plan added at one end."""
        listed = sorted(self.values)
        return sum(value > listed[-1] if above else value < listed[0] for value in self.added)


class Configuration(NamedTuple):
    """One value for every factor, resolved as far as the spec alone can: what does not apply is None.

    A tuple, because a study may have tens of thousands.
    """

    name: str
    sweep: str
    varied: dict[str, Any]  # dotted setting -> its value here
    method: str
    model: ModelTable
    data: DataTable
    quantization: dict[str, Any] | None
    adapter: dict[str, Any] | None  # settings of the method's own PEFT config
    train: TrainTable | None
    aliases: tuple[str, ...] = ()
    shots: int = 0  # solved examples in an untuned model's prompts
    alpha_of_rank: float | None = None  # alpha over rank, where the spec writes it as "2r"
    matched: "Configuration | None" = None  # its rank follows this one's parameters
    tuned: "Tuned | None" = None  # its candidates, of which one is chosen on validation
    trainer: TrainerTable | None = None  # the program that trains it; None: the built-in loop

    def identity(self) -> str:
        """Return equal text for configurations whose settings are equal, whatever their names."""
        match = self.matched and [self.matched.identity(), self.alpha_of_rank]
        tuned = [[candidate.identity() for candidate in self.tuned.candidates]] if self.tuned else []
        own = _TEXT.encode([self.method, self.quantization, self.adapter, self.shots, match, *tuned])
        program = [self.trainer.as_text] if self.trainer else []
        training = f"{self.train.as_text}\n{self.train.start}" if self.train else ""
        return "\n".join((self.model.as_text, self.data.as_text, training, own, *program))

    @property
    def open(self) -> bool:
        """Whether it is tuned, and its candidate not chosen yet."""
        return self.tuned is not None and not self.tuned.chosen


@dataclass(frozen=True)
class Tuned:
    """The candidates of a tuned configuration, and the one that was chosen.

    :ivar varied: the settings that the configuration varies itself, without the tuned ones
    :ivar raw: the spec's own tables, from which further candidates are resolved
    :ivar chosen: the name of the candidate that was chosen; empty until then
    """

    axes: tuple[Axis, ...]
    candidates: "tuple[Configuration, ...]"
    varied: dict[str, Any]
    raw: "RawTables" = field(repr=False, compare=False)
    chosen: str = ""

    def values(self, candidate: "Configuration") -> dict[str, Any]:
        """Return setting -> its value in a candidate."""
        return {axis.setting: candidate.varied[axis.setting] for axis in self.axes}

    def tried(self, setting: str) -> tuple[Any, ...]:
        """Return the values of a setting that are tried; none where it is not tuned."""
        return next((axis.tried for axis in self.axes if axis.setting == setting), ())

    @property
    def settings(self) -> str:
        """What is tuned, in words: `learning_rate and lora_dropout`."""
        return " and ".join(axis.name for axis in self.axes)


class RawTables(dict[str, Any]):
    """A spec's own tables as it writes them; what no point of a sweep changes is typed once.

    :ivar configured: those that make up a configuration
    """

    def __init__(self, raw: dict[str, Any]) -> None:
        super().__init__(raw)
        self.configured = _with_full_rate({key: raw[key] for key in _CONFIGURED if key in raw})
        self._once: dict[str, Any] = {}

    def typed(self, key: str, table: Any) -> Any:
        """Return a table as configurations have it."""
        if table is not self.configured.get(key):
            return _typed(key, CacheKey(repr(table), table))
        if key not in self._once:
            self._once[key] = _typed(key, CacheKey(repr(table), table))
        return self._once[key]


def resolve(name: str, sweep: str, raw: RawTables, varied: dict[str, Any]) -> Configuration:
    """Return the configuration of a spec's own tables with some settings replaced.

    :param varied: dotted setting -> value; these win over everything else
    """
    tables = raw.configured
    for setting, value in varied.items():
        tables = with_setting(tables, setting, value)
    typed = {key: raw.typed(key, table) for key, table in tables.items()}
    method = typed.get("method", SpecTables.model_fields["method"].default)
    own: Any = typed[method] if method in tables else _defaults(method)
    train = _training_settings(method, tables, varied) if method != "none" else None
    return Configuration(
        name=name,
        sweep=sweep,
        varied=varied,
        method=method,
        model=typed["model"],
        data=typed["data"],
        quantization=typed.get("quantization"),
        adapter=adapter_settings(method, own) if method in METHODS else None,
        train=train,
        shots=own.shots if method == "none" else 0,
        alpha_of_rank=_alpha_of_rank(method, own) if method in METHODS else None,
        trainer=typed.get("trainer", {}).get(train.trainer) if train else None,
    )


def _defaults(method: str) -> Settings | None:
    """Return what a spec leaves out when it has no table of a method; `head` has no settings."""
    if method in METHODS:
        return method_defaults(method)
    own: Settings | None = None if method == "head" else SpecTables.model_fields[method].default
    return own


@dataclass(frozen=True)
class CacheKey:
    """A value as a spec writes it. Its text tells 1 from 1.0 and from true, as the tables do."""

    text: str
    value: Any = field(compare=False)


@lru_cache(maxsize=_CACHED)
def _typed(key: str, written: CacheKey) -> Any:
    """Return one table of a spec as its configurations have it; those that share it get the same object.

    :raises ValidationError: as the whole spec would
    """
    if table := section_table(key):
        with contextlib.suppress(ValidationError):  # which is raised below, with the table's name
            return table.model_validate(written.value)
    typed = getattr(SpecTables.model_validate({**REQUIRED, key: written.value}), key)
    return quantization_settings(typed) if key == "quantization" else typed


def _training_settings(method: str, tables: dict[str, Any], varied: dict[str, Any]) -> TrainTable:
    swept = {key.removeprefix("train."): value for key, value in varied.items() if key.startswith("train.")}
    layers = (tables.get("train", {}), tables.get("full", {}) if method == "full" else None, swept)
    return _merged_training(CacheKey(repr(layers), layers), method in METHODS and METHODS[method].second_matrix)


@lru_cache(maxsize=_CACHED)
def _merged_training(layers: CacheKey, second_matrix: bool) -> TrainTable:
    """Return `[train]`, then the method's own table, then what a sweep says; LoRA+ only where there are B matrices."""
    train, full, swept = layers.value
    own = {} if full is None else FullTable.model_validate(full).model_dump()
    settings: dict[str, Any] = {}
    for layer in (TrainTable.model_validate(train).model_dump(), own, swept):
        given = {key: value for key, value in layer.items() if value is not None}
        if "warmup_ratio" in given:  # the old name, in the layer where it stands
            given["warmup_steps"] = given.pop("warmup_ratio")
        settings |= given
    merged = TrainTable.model_validate(settings)
    return merged if second_matrix else merged.model_copy(update={"loraplus_lr_ratio": None})


def _alpha_of_rank(method: str, table: Settings) -> float | None:
    name = METHODS[method].alpha
    alpha = getattr(table, name) if name else None
    return float(alpha.removesuffix("r") or 1) if isinstance(alpha, str) else None


def _with_full_rate(tables: dict[str, Any]) -> dict[str, Any]:
    """Let `[train] learning_rate` speak for a study that is all full fine-tuning, before the default of `[full]`."""
    rate = tables.get("train", {}).get("learning_rate")
    if tables.get("method") != "full" or rate is None or "learning_rate" in tables.get("full", {}):
        return tables
    return with_setting(tables, "full.learning_rate", rate)


def with_setting(tables: dict[str, Any], setting: str, value: Any) -> dict[str, Any]:
    """Return the tables with one dotted setting replaced; nothing is changed in place."""
    head, _, rest = setting.partition(".")
    if not rest:
        return {**tables, head: value}
    inner = tables.get(head)
    return {**tables, head: with_setting(inner if isinstance(inner, dict) else {}, rest, value)}


def adapter_settings(name: str, table: Settings) -> dict[str, Any]:
    """Return an adapter's settings with alpha as a number, and lists whose order means nothing in one order."""
    method, settings = METHODS[name], table.model_dump()
    if method.alpha:
        alpha = settings[method.alpha]
        if isinstance(alpha, str):
            alpha = float(alpha.removesuffix("r") or 1) * settings[method.rank]
        settings[method.alpha] = as_integer(alpha)
    for setting in INNER:  # what an initialisation has of its own, where it is the one
        if setting in settings:
            chosen = settings["init_lora_weights"] == setting.removesuffix("_config")
            settings[setting] = inner_settings(setting, settings[setting]) if chosen else None
    if settings.get("prompt_tuning_init", "TEXT") != "TEXT":
        settings["prompt_tuning_init_text"] = None
    if isinstance(settings.get("layers_to_transform"), int):
        settings["layers_to_transform"] = [settings["layers_to_transform"]]
    if isinstance(settings.get("trainable_token_indices"), dict):
        rows = settings["trainable_token_indices"]
        settings["trainable_token_indices"] = {name: sorted(set(tokens)) for name, tokens in rows.items()}
    for setting in _UNORDERED:
        if isinstance(settings.get(setting), list):
            settings[setting] = sorted(set(settings[setting]))
    return settings


def as_integer(number: float) -> float:
    """Return a number as an integer where it is one that JSON can hold, so that 32 and 32.0 are one setting."""
    return int(number) if float(number).is_integer() and abs(number) < 2**53 else float(number)


def expand_lists(lists: dict[str, list[Any]], zipped: list[str]) -> list[dict[str, Any]]:
    """Return every point of a block: the product of its lists, the zipped ones varying as one."""
    axes: list[list[dict[str, Any]]] = []
    together = [setting for setting in lists if setting in zipped]
    for setting, values in lists.items():
        if setting not in zipped:
            axes.append([{setting: value} for value in values])
        elif setting == together[0]:
            rows = zip(*(lists[key] for key in together), strict=True)
            axes.append([dict(zip(together, row, strict=True)) for row in rows])
    return [{key: value for part in combination for key, value in part.items()} for combination in product(*axes)]


def flatten(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as dotted settings; tables of free names stay one value."""
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        path = f"{prefix}{key}"
        is_table = isinstance(value, dict) and path not in _ONE_VALUE
        flat |= flatten(value, f"{path}.") if is_table else {path: value}
    return flat


def inner_tables(table: dict[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the index and table of each entry of a raw array of tables; what is not a table is an error of its type."""
    rows = table.get(key)
    for index, row in enumerate(rows if isinstance(rows, list) else []):
        if isinstance(row, dict):
            yield index, row


def point_name(varied: dict[str, Any]) -> str:
    """Return `r=16,learning_rate=0.0001`: the settings' short names where they are unique."""
    labels = _labels(tuple(varied))
    return ",".join([f"{label}={value_name(value)}" for label, value in zip(labels, varied.values(), strict=True)])


@lru_cache(maxsize=_CACHED)
def _labels(settings: tuple[str, ...]) -> tuple[str, ...]:
    short = [setting.rsplit(".", 1)[-1] for setting in settings]
    return tuple(part if short.count(part) == 1 else whole for part, whole in zip(short, settings, strict=True))


def value_name(value: Any) -> str:
    """Return a value as it stands in a name: without spaces, slashes, commas or colons."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, list):
        whole_numbers = len(value) > 2 and all(isinstance(item, int) for item in value)
        if whole_numbers and value == list(range(value[0], value[-1] + 1)):
            return f"{value[0]}-{value[-1]}"
        return "+".join(value_name(item) for item in value) or "empty"
    if isinstance(value, dict) and value.keys() == {"file", "function"}:
        return _name_part(f"{value['file'].removesuffix('.py')}.{value['function']}")
    if isinstance(value, dict):
        return "+".join(f"{key}={value_name(item)}" for key, item in value.items()) or "empty"
    return _name_part(str(value))


@lru_cache(maxsize=_CACHED)
def _name_part(text: str) -> str:
    return re.sub(r"[\s/,:\x00-\x1f]+", "-", text) or "empty"


def deduplicate(configurations: list[Configuration]) -> list[Configuration]:
    """Return each configuration once; the first to name it gives its name, the others are aliases."""
    united: dict[str, Configuration] = {}
    for configuration in configurations:
        identity = configuration.identity()
        first = united.get(identity)
        if first is None:
            united[identity] = configuration
        elif configuration.name != first.name:
            united[identity] = first._replace(aliases=(*first.aliases, configuration.name))
    return list(united.values())
