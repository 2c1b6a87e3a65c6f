"""Every mistake of a spec at once: those that it shows by itself, and those that its models and data show."""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import tomli

from lorafile.engine.data.sources import find_data, find_model
from lorafile.errors import LoraError, ModelError, SpecError
from lorafile.graph.build import build
from lorafile.graph.builder import GraphBuilder
from lorafile.graph.graph import Graph
from lorafile.graph.prepare import add_splits
from lorafile.graph.starts import sources
from lorafile.lock.data import lock_data
from lorafile.lock.description import can_describe
from lorafile.lock.lockfile import Lock, identity, is_on_hub, lock_model, read_lock
from lorafile.specs import Spec, load
from lorafile.specs.error_messages import Problems
from lorafile.specs.load import setting_of
from lorafile.specs.positions import positions
from lorafile.specs.tables.settings import ModelTable

_HUB = re.compile(r"\w[\w.-]*/[\w.-]+|[\w-]+")  # a name that the hub may have


def check(file: Path) -> tuple[Spec | None, list[str], list[str]]:
    """Return a spec, every mistake of it, and what was not looked at; the spec is None where it cannot be read.

    Models and data that are here are looked at; of those on the hub only what the lock knows.
    """
    try:
        spec = load(file)
    except SpecError as error:
        return None, [*str(error).splitlines(), *_missing_paths(file)], []
    mistakes: dict[str, None] = {}
    lock, unseen = _look(spec, mistakes)
    if not mistakes and not unseen:
        _check_graph(spec, lock, mistakes)
    else:
        _check_splits(spec, lock, mistakes)
    return spec, list(mistakes), unseen


def _look(spec: Spec, mistakes: dict[str, None]) -> tuple[Lock, list[str]]:
    """Return what can be known of the models and data of a spec, and the names of the others."""
    stored, base = Lock({}, {}), spec.file.parent
    try:
        stored = read_lock(spec) or stored
    except LoraError as error:
        mistakes[str(error)] = None
    lock, unseen = Lock({}, {}), []
    references = [spec.reference] if spec.reference else []
    models = {identity(c.model): c.model for c in reversed(spec.configurations)}
    data = {identity(table): table for table in [*references, *(c.data for c in reversed(spec.configurations))]}
    for name, model in models.items():
        locked = stored.models.get(name)
        if _may_be_on_hub(model.path, base) or not can_describe():
            unseen += [] if locked else [f"the model {name}"]
            lock.models.update({name: locked} if locked else {})
        else:
            with _collected(spec, mistakes, "model.path"):
                lock.models[name] = lock_model(model, base, locked)
    for name, table in data.items():
        rows = stored.data.get(name)
        if _may_be_on_hub(table.path, base):
            unseen += [] if rows else [f"the data {name}"]
            lock.data.update({name: rows} if rows else {})
        else:
            with _collected(spec, mistakes, "data.path"):
                lock.data[name] = lock_data(table, base, rows)
    return lock, unseen


def _may_be_on_hub(path: str, base: Path) -> bool:
    named_file = Path(path).suffix in (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".arrow")
    return is_on_hub(path, base) and _HUB.fullmatch(path) is not None and not named_file


def _check_graph(spec: Spec, lock: Lock, mistakes: dict[str, None]) -> None:
    """Build the nodes; where that fails, those of each configuration, so that each can say what is wrong with it."""
    try:
        build(spec, lock)
    except LoraError:
        for configuration in spec.configurations:
            with _collected(spec, mistakes):
                started_from = sources(spec, [configuration]).values()
                build(replace(spec, configurations=(*started_from, configuration)), lock)
        if not mistakes:
            with _collected(spec, mistakes):
                build(spec, lock)


def _check_splits(spec: Spec, lock: Lock, mistakes: dict[str, None]) -> None:
    """Check what data are read for, where a model is not known: the model that ships stands in for it."""
    missing = [c.model for c in spec.configurations if identity(c.model) not in lock.models]
    if missing and not can_describe():
        return
    stand_in = lock_model(ModelTable(path="builtin:facts-llama"), spec.file.parent) if missing else None
    models = lock.models | {identity(model): stand_in for model in missing if stand_in}
    builder = GraphBuilder(Graph(spec, replace(lock, models=models)))
    for configuration in spec.configurations:
        if identity(configuration.data) in lock.data and not configuration.shots:
            with _collected(spec, mistakes):
                add_splits(builder, configuration)


@contextlib.contextmanager
def _collected(spec: Spec, mistakes: dict[str, None], setting: str = "") -> Iterator[None]:
    """Keep what goes wrong as a line with its place in the spec.

    :param setting: what it is about, where the message does not say
    """
    try:
        with spec.located():
            try:
                yield
            except SpecError:
                raise
            except LoraError as error:
                raise ModelError(_about(setting, str(error))) from error
    except SpecError as error:
        mistakes.update(dict.fromkeys(str(error).splitlines()))


def _about(setting: str, message: str) -> str:
    """Return a message that begins with the setting that it is about."""
    return message if setting_of(message) or not setting else f"{setting}: {message}"


def _missing_paths(file: Path) -> list[str]:
    """Return which paths of a spec that has other mistakes lead to nothing here."""
    try:
        text = file.read_text(encoding="utf-8")
        raw, places = tomli.loads(text), positions(text)
    except (OSError, ValueError, RecursionError):
        return []
    finders: dict[str, Callable[[str, str | None, Path], Path]] = {"model": find_model, "data": find_data}
    problems = Problems(str(file), places)
    for table, find in finders.items():
        path = raw[table].get("path") if isinstance(raw.get(table), dict) else None
        if isinstance(path, str) and path and not _may_be_on_hub(path, file.parent):
            try:
                find(path, None, file.parent)
            except LoraError as error:
                problems.add((table, "path"), str(error).removeprefix(f"{setting_of(str(error))}: "))
    return [str(problem) for problem in problems.list()]
