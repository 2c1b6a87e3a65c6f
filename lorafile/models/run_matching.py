"""Which of a study's configurations an imported run is, what differs, and what its files do not tell."""

import contextlib
import json
import math
from dataclasses import dataclass, field
from typing import Any

from lorafile.errors import ArgumentError, LoraError, NodeError
from lorafile.graph.graph import Graph
from lorafile.graph.target_modules import adapted_modules
from lorafile.lock.lockfile import ModelLock, identity, lock_model
from lorafile.models.checkpoint import ABOUT, check_fits, lora_shapes
from lorafile.models.trainer_output import TrainerRun, rate_fits
from lorafile.specs import Configuration
from lorafile.specs.error_messages import suggestion
from lorafile.specs.optimizers import DEFAULT_OPTIMIZER
from lorafile.specs.snapshot import snapshot
from lorafile.specs.tables.settings import ModelTable
from lorafile.specs.tables.train import PROTOCOLS
from lorafile.specs.target_modules import target_names

# Settings of an adapter that say how it was trained, and not what it computes: --configuration may overrule these.
_OF_TRAINING = ("lora_dropout", "dropout", "module_dropout", "init_lora_weights", "init_weights", "loftq_config")
_OF_RATE = ("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps")


@dataclass
class Match:
    """A configuration as a candidate.

    :ivar wrong: settings in which the adapter is another one; nothing overrules these
    :ivar differs: settings of training that differ; `--configuration` overrules these
    :ivar unverified: settings of which the run's files say nothing
    """

    configuration: Configuration
    wrong: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)


def choose(run: TrainerRun, graph: Graph, named: str | None) -> Match:
    """Return the configuration that a run is of: the one that is named, or the only one that nothing speaks against.

    :raises LoraError: when there is none, more than one, or the named one has another adapter
    """
    trained = _trained(graph)
    source = run.checkpoint.directory
    if named is not None:
        configuration = next((c for c in trained if named in (c.name, *c.aliases)), None)
        if configuration is None:
            names = [c.name for c in trained]
            hint = suggestion(named, names) or "."
            raise ArgumentError("configuration", f'the study trains no "{named}"{hint} It has: {", ".join(names)}.')
        match = compare(run, configuration, graph)
        if match.wrong:
            raise LoraError(f"{source} is not {configuration.name}: {_listed(match.wrong)}.")
        return match
    matches = [compare(run, configuration, graph) for configuration in trained]
    good = [match for match in matches if not match.wrong and not match.differs]
    if len(good) == 1:
        return good[0]
    if good:
        several = ", ".join(match.configuration.name for match in good)
        raise ArgumentError(
            "configuration",
            f"{source} matches several configurations ({several}), which its files do not tell apart. Pass one.",
        )
    if not matches:
        raise LoraError(f"{graph.spec.file} trains nothing, so {source} matches none of its runs.")
    nearest = min(matches, key=lambda match: (len(match.wrong), len(match.differs)))
    hint = "" if nearest.wrong else f" If it is that one, pass --configuration {nearest.configuration.name}"
    problems = _listed([*nearest.wrong, *nearest.differs])
    raise LoraError(
        f"{source} matches no configuration of {graph.spec.file}; the closest is "
        f"{nearest.configuration.name}: {problems}.{hint}"
    )


def choose_seed(run: TrainerRun, seeds: list[int], given: int | None) -> tuple[int, str]:
    """Return a run's seed, and what speaks against it, if anything.

    :raises LoraError: when its files do not say it, or say one that the study has not
    """
    listed = ", ".join(map(str, seeds))
    seed = run.settings.get("seed")
    if given is not None:
        if given not in seeds:
            raise ArgumentError("seed", f"the study has no seed {given}; it has: {listed}.")
        return given, "" if seed in (given, None) else f"seed {seed} there, {given} here"
    if seed in seeds:
        return int(seed), ""
    why = "does not state its seed" if seed is None else f"has seed {seed}, which the study does not have"
    raise ArgumentError("seed", f"{run.checkpoint.directory} {why}. Pass its seed, one of {listed}.")


def _trained(graph: Graph) -> list[Configuration]:
    """Return what a study trains: configurations, and candidates of tuned ones; of two of one key the first."""
    names = [c.name for c in graph.spec.configurations if c.train is not None and not c.open]
    by_key: dict[str | None, Configuration] = {}
    for name in (*names, *graph.spec.owners):
        by_key.setdefault(graph.replicates[name][0].train, graph.spec.named[name])
    return list(by_key.values())


def compare(run: TrainerRun, configuration: Configuration, graph: Graph) -> Match:
    """Compare a run with one configuration."""
    match = Match(configuration)
    model = graph.lock.models[identity(configuration.model)]
    sections = graph.sections[configuration.name]
    if run.checkpoint.kind == "model":
        _compare_model(match, run, model)
    else:
        _compare_adapter(match, run, sections["adapter"], model)
    if match.wrong:
        return match
    _compare_training(match, run, sections["training"])
    match.unverified.append("the data and their order")
    if configuration.train is not None and configuration.train.start:
        match.unverified.append(f'that it started from "{configuration.train.start}"')
    return match


def _compare_model(match: Match, run: TrainerRun, model: ModelLock) -> None:
    if match.configuration.method != "full":
        match.wrong.append(f"a whole model there, method {match.configuration.method} here")
        return
    table = ModelTable(path=str(run.checkpoint.directory.resolve()))
    if lock_model(table, run.checkpoint.directory).modules != model.modules:
        match.wrong.append(f"its layers do not match {match.configuration.model.path}")


def _compare_adapter(match: Match, run: TrainerRun, declared: dict[str, Any], model: ModelLock) -> None:
    settings = run.checkpoint.settings
    method = str(settings.get("peft_type", "")).lower()
    if method != declared["method"]:
        match.wrong.append(f"method {method} there, {declared['method']} here")
        return
    try:
        check_fits(run.checkpoint, model, match.configuration.model.path)
    except NodeError as error:
        match.wrong.append(str(error).rstrip("."))
        return
    defaults = _defaults(method)
    for name in sorted({*settings, *declared} - {*ABOUT, "peft_type", "method"}):
        there, here = (_meant(name, values.get(name), defaults, model) for values in (settings, declared))
        if there != here:
            problems = match.differs if name in _OF_TRAINING else match.wrong
            problems.append(f"{name} {_short(there)} there, {_short(here)} here")
    if method == "lora" and not match.wrong and not settings.get("target_parameters"):
        there = {name for name in lora_shapes(run.checkpoint) if any(part.isdigit() for part in name.split("."))}
        here = set(adapted_modules(declared, model.modules))
        if len(there) != len(here):
            match.wrong.append(f"{len(there)} modules are adapted there, {len(here)} here")


def _meant(name: str, value: Any, defaults: dict[str, Any], model: ModelLock) -> Any:
    """Return a setting in one way of writing; off, and PEFT's default, are None."""
    names = value if isinstance(value, list) else [value]
    if name == "target_modules" and all(isinstance(item, str) for item in names):
        with contextlib.suppress(NodeError):  # it names what is not there, and stays as it is written
            return target_names(value, model.modules)
    if name == "lora_alpha" or isinstance(value, float):
        return value
    if value in (None, [], {}, False) or (name not in ("r", "lora_dropout") and value == defaults.get(name)):
        return None
    return sorted(value, key=str) if isinstance(value, list) else value


def _defaults(method: str) -> dict[str, Any]:
    """Return PEFT's defaults of a method's settings, from the shipped snapshot."""
    config = f"{method.replace('_', '')}config"
    table = next((rows for name, rows in snapshot().items() if name.lower() == config and isinstance(rows, dict)), {})
    return {name: row["default"] for name, row in table.items()}


def _compare_training(match: Match, run: TrainerRun, training: dict[str, Any]) -> None:
    settings = run.settings
    fits = rate_fits(run, training)
    unused = {"num_train_epochs"} if training.get("max_steps", -1) > 0 else {"max_steps"}
    unused |= {*PROTOCOLS, *(_OF_RATE if fits else ())}  # no trainer draws examples in our order
    optimizer = {"optim": DEFAULT_OPTIMIZER} if "optim" in settings else {}
    for name, here in (optimizer | training).items():
        if name in unused:
            continue
        if name == "num_train_epochs" and name not in settings and "epochs_up_to" in settings:
            there, here = settings["epochs_up_to"], math.ceil(here)
        elif name in settings:
            there = settings[name]
        else:
            match.unverified.append(name)
            continue
        if not _same(there, here):
            match.differs.append(f"{name} {_short(there)} there, {_short(here)} here")
    if fits is False and not any(text.split()[0] in _OF_RATE for text in match.differs):
        row = next(row for row in run.curve if row.get("learning_rate"))
        match.differs.append(
            f"learning_rate: {row['learning_rate']:g} was logged at step {row['step']}, not this schedule's"
        )


def _same(there: Any, here: Any) -> bool:
    if isinstance(there, (int, float)) and isinstance(here, (int, float)):
        return math.isclose(there, here, rel_tol=1e-6, abs_tol=1e-12)
    return bool(there == here)


def _short(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, (float, str)):
        return value if isinstance(value, str) else f"{value:g}"
    return "+".join(map(str, value)) if isinstance(value, list) else json.dumps(value)


def _listed(parts: list[str]) -> str:
    return "; ".join(parts[:6]) + (f"; and {len(parts) - 6} more" if len(parts) > 6 else "")
