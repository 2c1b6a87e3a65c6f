"""The configurations that a spec declares: the points of its sweeps, resolved, matched, and united."""

from dataclasses import replace
from math import prod
from typing import Any

from pydantic import ValidationError

from lorafile.specs.checks.sweeps import FACTOR_SECTIONS, MAX_POINTS
from lorafile.specs.configurations import (
    Axis,
    Configuration,
    RawTables,
    deduplicate,
    expand_lists,
    flatten,
    point_name,
    resolve,
)
from lorafile.specs.error_messages import Problems, show
from lorafile.specs.positions import Path as Place
from lorafile.specs.sweeps.optimization import Contradiction, training_contradiction, unread_setting
from lorafile.specs.sweeps.tuning import AxesByPlace, axes_of, combinations, with_tuning
from lorafile.specs.tables.lora import REWRITING
from lorafile.specs.tables.methods import METHODS, Method
from lorafile.specs.tables.quantizations import quantization_kind
from lorafile.specs.tables.settings import SpecTables, SweepTable
from lorafile.specs.tables.train import START
from lorafile.specs.tables.trainer import BUILTIN

MAX_CONFIGURATIONS = 30_000
Report = tuple[Problems, Place]  # where a problem goes, and the place in the document that it is reported at


def expand_sweeps(
    raw: dict[str, Any], tables: SpecTables, tuned: AxesByPlace, problems: Problems
) -> list[Configuration]:
    """Return the configurations that the sweeps declare, or the only one; add every problem in them.

    :param raw: the document, with a first candidate wherever a setting is tuned
    """
    raw = RawTables(raw)
    configurations: list[Configuration] = []
    places: dict[str, Place] = {}
    excludes = any(block.exclude for block in tables.sweep)
    written = flatten(tables.in_full(FACTOR_SECTIONS)) if excludes else {}
    count = 0
    for index, block in enumerate(tables.sweep):
        lists = flatten(block.model_extra or {})  # dotted setting -> its candidates
        sweep = block.name or "-".join(setting.rsplit(".", 1)[-1] for setting in lists) or "configurations"
        exclusions = [flatten(exclusion) for exclusion in block.exclude]
        members: list[Configuration] = []
        for point, own_name, place in _block_points(block, lists, index):
            tuned_here = [".".join(map(str, axis.path[len(place) :])) for axis in tuned.get(place, [])]
            varied = {key: value for key, value in point.items() if key not in tuned_here}
            axes = axes_of(tuned, place, varied, raw)
            if exclusions and _excluded({**written, **varied}, axes, exclusions):
                continue
            count += prod(len(axis.values) for axis in axes)
            if count > MAX_CONFIGURATIONS:
                problems.add(
                    ("sweep",), f"defines more than {MAX_CONFIGURATIONS:,} configurations and candidates in total"
                )
                return []
            name = f"{sweep}/{own_name or point_name(varied) or tables.method}"
            places.setdefault(name, place)
            configuration = _configuration(name, sweep, raw, varied, axes, (problems, place))
            members += [configuration] if configuration else []
        if block.match == "parameters" and not problems.by_place:
            members = _with_matched_ranks(members, ("sweep", index), problems)
        configurations += members
    if not tables.sweep:
        configurations += _single_configuration(raw, tables, tuned, problems)
    elif not configurations and not problems.by_place:
        problems.add(("sweep",), "no configuration is left; `exclude` removes every point")
    united = deduplicate(configurations)
    _check_names(united, places, problems)
    return united


def _configuration(
    name: str, sweep: str, raw: RawTables, varied: dict[str, Any], axes: tuple[Axis, ...], report: Report
) -> Configuration | None:
    """Return the configuration of a point, with candidates where it is tuned; None if it has a problem."""
    problems, place = report
    axes = tuple(axis for axis in axes if _changes_something(axis, raw, varied, sweep))
    if not axes:
        return _resolved(name, sweep, raw, varied, report)
    count = prod(len(axis.values) for axis in axes)
    if count > MAX_POINTS:
        problems.add(
            place,
            f"{name} has {count:,} candidates, over {MAX_POINTS:,}; the candidates of tuned settings multiply",
        )
        return None
    candidates: list[Configuration] = []
    points = combinations(axes)
    for values in points:
        label = f"{name},{point_name(values)}"
        candidate = _resolved(label, sweep, raw, {**varied, **values}, (problems, axes[0].path))
        candidates += [candidate] if candidate else []
    return with_tuning(name, varied, axes, candidates, raw) if len(candidates) == len(points) else None


def _changes_something(axis: Axis, raw: RawTables, varied: dict[str, Any], sweep: str) -> bool:
    """Return whether a setting changes anything here: LoRA+'s ratio does not where there are no B matrices."""
    try:
        alike = {resolve("", sweep, raw, {**varied, axis.setting: value}).identity() for value in axis.values}
    except ValidationError:
        return True  # which is reported for the candidate
    return len(alike) > 1


def _resolved(name: str, sweep: str, raw: RawTables, varied: dict[str, Any], report: Report) -> Configuration | None:
    """Return one configuration; add a problem where the settings of this point contradict each other."""
    problems, place = report
    try:
        configuration = resolve(name, sweep, raw, varied)
    except ValidationError as error:
        row = error.errors()[0]
        setting = ".".join(str(part) for part in row["loc"])
        problems.add(place, f"{name}: {setting}: {'is required' if row['type'] == 'missing' else row['msg']}")
        return None
    if contradicts := contradiction(configuration):
        hint = _remedy(varied, place)
        problems.add(place, f"{name}: {contradicts[1]}; {hint}")
    return configuration


def _remedy(varied: dict[str, Any], place: Place) -> str:
    """Return how a point whose settings contradict each other is left out."""
    if place[2:3] == ("configurations",):
        return "remove the point from configurations"
    if len(place) != len(("sweep", 0)):
        return "remove the candidate"
    plain = [f"{name} = {show(value)}" for name, value in varied.items() if not isinstance(value, dict)]
    return f"exclude the point: exclude = [{{ {', '.join(plain)} }}]"


def _single_configuration(
    raw: RawTables, tables: SpecTables, tuned: AxesByPlace, problems: Problems
) -> list[Configuration]:
    """Return the configuration of a study without sweeps; add a problem where its settings contradict each other."""
    study_configuration = resolve(tables.method, tables.method, raw, {})
    configuration: Configuration | None = study_configuration
    if contradicts := _study_contradiction(study_configuration, tables.train.loraplus_lr_ratio):
        problems.add(*contradicts)
    else:
        axes = axes_of(tuned, (), {}, raw)
        configuration = _configuration(tables.method, tables.method, raw, {}, axes, (problems, ()))
    return [configuration] if configuration else []


def _with_matched_ranks(members: list[Configuration], sweep: Place, problems: Problems) -> list[Configuration]:
    """Return a sweep's configurations, each whose method has a rank matched to the parameters of the first LoRA."""
    first = next((configuration for configuration in members if configuration.method == "lora"), None)
    if first is None:
        problems.add((*sweep, "match"), '"parameters" needs a LoRA configuration in this sweep')
        return members
    matched = [name for name, method in METHODS.items() if method.matches]
    return [c if c is first or c.method not in matched else _match_to(c, first) for c in members]


def _match_to(configuration: Configuration, first: Configuration) -> Configuration:
    """Return a configuration, and its candidates, with the rank that gives it the first one's parameters."""
    tuned = configuration.tuned
    if tuned is not None:
        tuned = replace(tuned, candidates=tuple(candidate._replace(matched=first) for candidate in tuned.candidates))
    return configuration._replace(matched=first, tuned=tuned)


def _block_points(
    block: SweepTable, lists: dict[str, Any], index: int
) -> list[tuple[dict[str, Any], str | None, Place]]:
    rows: list[tuple[dict[str, Any], str | None, Place]] = []
    if lists:
        rows += [(point, None, ("sweep", index)) for point in expand_lists(lists, block.zip)]
    for number, table in enumerate(block.configurations):
        settings = {key: value for key, value in table.items() if key != "name"}
        rows.append((flatten(settings), table.get("name"), ("sweep", index, "configurations", number)))
    return rows


def _excluded(settings: dict[str, Any], axes: tuple[Axis, ...], exclusions: list[dict[str, Any]]) -> bool:
    """Return whether a point has every value of an exclusion: varied, written in the spec, or by default.

    What is tuned has no value by which a point could be left out.
    """
    fixed = settings.keys() - {axis.setting for axis in axes}
    return any(all(key in fixed and settings[key] == value for key, value in row.items()) for row in exclusions)


def _check_names(configurations: list[Configuration], places: dict[str, Place], problems: Problems) -> None:
    seen: dict[str, Configuration] = {}
    for configuration in sorted(configurations, key=lambda configuration: configuration.tuned is not None):
        for name in (configuration.name, *configuration.aliases):
            if seen.setdefault(name, configuration) is not configuration:
                message = f'two different configurations are named "{name}"; rename one of them'
                problems.add(places.get(name, ("sweep",)), message)
        for candidate in configuration.tuned.candidates if configuration.tuned else ():
            namesake = seen.setdefault(candidate.name, candidate)
            if namesake.identity() != candidate.identity():
                message = f'is also the name of a candidate of "{configuration.name}"; rename its sweep'
                problems.add(places.get(candidate.name, ("sweep",)), message)


def contradiction(c: Configuration) -> Contradiction:
    """Return where the settings of a configuration contradict each other, and why; None where they do not."""
    if c.method == "full" and c.quantization is not None:
        return ("quantization",), "a quantized base cannot be fine-tuned in full"
    method = METHODS.get(c.method)
    if method is not None and (unfit := _method_contradiction(c, method)):
        return unfit
    if c.varied.get("train.loraplus_lr_ratio") and not _trains_b(c):
        return ("train", "loraplus_lr_ratio"), _no_b_message(c)
    if c.method == "head" and c.model.task_type != "SEQ_CLS":
        return ("method",), '"head" trains only a classification head; set model.task_type = "SEQ_CLS"'
    if c.model.num_labels is not None and c.model.task_type != "SEQ_CLS":
        return (
            "model",
            "num_labels",
        ), 'applies to a classification head, and a text-generating model has none; set task_type = "SEQ_CLS"'
    if c.train and c.train.start and c.train.trainer != BUILTIN:
        return ("train", START), f"[trainer.{c.train.trainer}] gets no adapter to start from; omit one of the two"
    if c.train and c.train.start and "lora.init_lora_weights" in c.varied:
        return ("train", START), "the adapter is that of another configuration, so lora.init_lora_weights has no effect"
    if c.train and c.train.trainer != BUILTIN and (wrong := _trainer_contradiction(c)):
        return ("train", "trainer"), wrong
    if c.train and (wrong_training := training_contradiction(c, c.train)):
        return wrong_training
    settings = c.adapter or {}
    if settings.get("prompt_tuning_init") == "TEXT" and not settings["prompt_tuning_init_text"]:
        return ("prompt_tuning", "prompt_tuning_init"), '"TEXT" needs a prompt_tuning_init_text'
    return _variant_contradiction(c) or _initialization_contradiction(c) if c.method == "lora" else None


def _method_contradiction(c: Configuration, method: Method) -> Contradiction:
    """Return what a method of PEFT's cannot be combined with, as its probe found."""
    kind = quantization_kind(c.quantization) if c.quantization else ""
    if kind and not method.trains_on(kind):
        bits = {"int8": "an 8-bit base", "nf4": "a 4-bit base"}.get(kind, "a quantized base")
        return ("quantization",), f"PEFT does not support {method.title} on {bits}"
    if method.virtual and c.model.task_type == "SEQ_CLS":
        return ("method",), "with PEFT's virtual tokens, a classification head cannot find the end of a padded text"
    if c.model.task_type == "SEQ_CLS" and not method.saves_modules:
        return ("method",), f"PEFT trains no classification head next to {method.title}"
    if c.train and c.train.gradient_checkpointing and not method.checkpoints:
        return ("train", "gradient_checkpointing"), f"PEFT does not support it with {method.title}"
    if method.required and not (c.adapter or {}).get(method.required):
        return ("method",), f'"{c.method}" needs {c.method}.{method.required}'
    return None


def _trainer_contradiction(c: Configuration) -> str:
    """Return why a program cannot train a configuration, or nothing."""
    if c.trainer is None:
        return f"there is no [trainer.{c.train.trainer if c.train else ''}]"
    if c.model.task_type != "CAUSAL_LM":
        return 'a program can train only models that generate text (model.task_type = "CAUSAL_LM")'
    if c.method not in METHODS:
        return f'a program can train adapters, and method = "{c.method}" is trained by the built-in loop only'
    start = (c.adapter or {}).get("init_lora_weights")
    if isinstance(start, dict):
        return "a program cannot start from a function (lora.init_lora_weights); the built-in loop calls it"
    if (c.adapter or {}).get("use_bdlora"):
        return "a program cannot train BD-LoRA (lora.use_bdlora)"
    if str(start).startswith(REWRITING):
        return f'a program cannot start from init_lora_weights = "{start}", which rewrites the base'
    return ""


def _study_contradiction(c: Configuration, loraplus: float | None) -> Contradiction:
    """Return the same for a study of one configuration, where every setting of `[train]` is meant for that one."""
    if loraplus and c.train and not _trains_b(c):
        return ("train", "loraplus_lr_ratio"), _no_b_message(c)
    return contradiction(c) or (unread_setting(c.train) if c.train else None)


def _trains_b(c: Configuration) -> bool:
    method = METHODS.get(c.method)
    return method is not None and method.second_matrix and (c.adapter or {}).get("init_lora_weights") != "mica"


def _no_b_message(c: Configuration) -> str:
    if c.method == "lora":
        return 'LoRA+ sets a learning rate for the B matrices, and init_lora_weights = "mica" does not train them'
    return f'LoRA+ sets a learning rate for the B matrices, and method = "{c.method}" has none'


def _variant_contradiction(c: Configuration) -> Contradiction:
    """Return why a variant of LoRA cannot be combined with another setting; None where it can."""
    settings = c.adapter or {}
    for name, title in (("velora_config", "VeLoRA"), ("use_bdlora", "BD-LoRA")):
        others = [other for other in ("use_dora", "lora_bias", "velora_config") if settings[other] and other != name]
        if settings[name] and others:
            return ("lora", name), f"{title} cannot be combined with lora.{others[0]}; omit one of them"
        if settings[name] and c.quantization is not None:
            return ("lora", name), f"PEFT does not support {title} on a quantized base"
    blocks = settings["use_bdlora"]
    if blocks and settings["init_lora_weights"] is not True:
        return ("lora", "use_bdlora"), "its blocks have an initialization of their own; omit lora.init_lora_weights"
    if blocks and not (blocks["target_modules_bd_a"] or blocks["target_modules_bd_b"]):
        return ("lora", "use_bdlora"), "names no modules; set target_modules_bd_a or target_modules_bd_b"
    return None


def _initialization_contradiction(c: Configuration) -> Contradiction:
    settings = c.adapter or {}
    word, setting = settings["init_lora_weights"], ("lora", "init_lora_weights")
    if isinstance(word, dict) and (c.quantization or {}).get("quant_method", "bitsandbytes") != "bitsandbytes":
        return setting, "a function reads weights that are not quantized, or quantized by bitsandbytes"
    if not isinstance(word, str):
        return None
    if settings["lora_bias"]:
        return setting, f'"{word}" cannot be combined with lora_bias, which supports only true or false'
    if word.startswith(REWRITING) and c.quantization is not None:
        return (
            setting,
            f'"{word}" moves part of the base\'s weights into the adapter, which a quantized base does not allow',
        )
    if word in ("mica", "orthogonal") and c.quantization is not None:
        return setting, f'"{word}" needs weights that are not quantized'
    if word == "loftq" and not (c.quantization or {}).get("load_in_4bit"):
        return setting, '"loftq" needs the error of a 4-bit base; set quantization = "nf4"'
    if word == "orthogonal" and settings["r"] % 2:
        return setting, f'"orthogonal" needs an even rank, not {settings["r"]}'
    return None
