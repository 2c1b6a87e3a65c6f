"""The checks of a spec that go past types: sweeps, and settings that contradict each other."""

from typing import Any

from pydantic import ValidationError

from lorafile.specs.configurations import flatten
from lorafile.specs.problems import Path, Problems, near, unknown_setting
from lorafile.specs.settings import SpecTables

FACTOR_SECTIONS = ("model", "data", "method", "lora", "full", "quantization", "train")
_OWN = ("name", "zip", "configurations", "exclude")


def check_blocks(raw: dict[str, Any], problems: Problems) -> None:
    """Check every sweep of the raw document: known settings, lists of valid candidates, equal lengths when zipped."""
    blocks = raw.get("sweep")
    for index, block in enumerate(blocks if isinstance(blocks, list) else []):
        if isinstance(block, dict):
            _check_block(block, ("sweep", index), problems)


def _check_block(block: dict[str, Any], where: Path, problems: Problems) -> None:
    lists = flatten({key: value for key, value in block.items() if key not in _OWN})
    for setting, values in lists.items():
        path = (*where, *setting.split("."))
        if not isinstance(values, list):
            problems.add(path, f"a sweep takes a list of candidates; write [{values!r}] for a single one")
        elif not values:
            problems.add(path, "has no candidates")
        else:
            for number, value in enumerate(values):
                _check_value(setting, value, (*path, number), problems)
    _check_zip(block, lists, where, problems)
    _check_points(block, where, problems)
    if not lists and not block.get("configurations"):
        problems.add(where, "varies nothing; name a setting with a list of candidates, such as lora.r = [8, 16]")


def _check_zip(block: dict[str, Any], lists: dict[str, Any], where: Path, problems: Problems) -> None:
    zipped = block.get("zip")
    if not isinstance(zipped, list):
        return
    for number, setting in enumerate(zipped):
        if setting not in lists:
            problems.add((*where, "zip", number), f'"{setting}" does not vary in this sweep{near(str(setting), list(lists))}')
    lengths = {setting: len(lists[setting]) for setting in zipped if isinstance(lists.get(setting), list)}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{setting} has {length}" for setting, length in lengths.items())
        problems.add((*where, "zip"), f"zipped settings need equally many candidates: {told}")


def _check_points(block: dict[str, Any], where: Path, problems: Problems) -> None:
    for kind in ("configurations", "exclude"):
        rows = block.get(kind)
        for number, row in enumerate(rows if isinstance(rows, list) else []):
            if isinstance(row, dict):
                settings = {key: value for key, value in row.items() if kind == "exclude" or key != "name"}
                for setting, value in flatten(settings).items():
                    _check_value(setting, value, (*where, kind, number, *setting.split(".")), problems)


def _check_value(setting: str, value: Any, path: Path, problems: Problems) -> None:
    """Check one candidate of one setting against the table that the setting belongs to."""
    section, *rest = setting.split(".")
    if section not in FACTOR_SECTIONS or (not rest) != (section in ("method", "quantization")):
        close = near(section, list(FACTOR_SECTIONS)) or f"; a sweep varies {', '.join(FACTOR_SECTIONS)}"
        inner = unknown_setting(("train", section)).partition("; ")[2] if not rest else ""
        problems.add(path, "cannot be swept" + (f"; {inner}" if inner.startswith(("did", "it belongs")) else close))
        return
    table: Any = value
    for part in reversed(rest):
        table = {part: table}
    filled = {"study": {"name": "-"}, "model": {"path": "-"}, "data": {"path": "-"}}
    filled[section] = {**filled.get(section, {}), **table} if rest else table
    try:
        SpecTables.model_validate(filled)
    except ValidationError as error:
        depth = len(rest) + 1
        for row in error.errors():
            if row["type"] == "extra_forbidden":
                named = path[: -1] if isinstance(path[-1], int) else path
                problems.add(named, unknown_setting((section, *row["loc"][1:])))
                return
        inner_problems = Problems(problems.file)
        inner_problems.add_validation(error, filled)
        for (inner_path, message), _ in inner_problems.found.items():
            problems.add((*path, *inner_path[depth:]), message)


def check_tables(tables: SpecTables, problems: Problems) -> None:
    """Check what types cannot say: settings that contradict each other, and names that point at nothing."""
    evaluate, train = tables.evaluate, tables.train
    if evaluate.primary and evaluate.primary not in evaluate.metrics:
        problems.add(("evaluate", "primary"), f'"{evaluate.primary}" is not among evaluate.metrics: {", ".join(evaluate.metrics)}')
    for list_path, values in ((("evaluate", "metrics"), evaluate.metrics), (("study", "seeds"), tables.study.seeds)):
        for number, value in enumerate(values):
            if value in values[:number]:
                problems.add((*list_path, number), f"{value!r} stands here twice")
    if train.bf16 and train.fp16:
        problems.add(("train", "fp16"), "cannot be true beside train.bf16")
    if train.warmup_ratio is not None and "warmup_steps" in train.model_fields_set:
        problems.add(("train", "warmup_ratio"), "is the old name of a fractional warmup_steps; set one of the two")
    for name, table in (("train", train), ("full", tables.full)):
        if table.max_steps == 0:
            problems.add((name, "max_steps"), "0 would train nothing; -1 leaves it to num_train_epochs")
    if tables.data.template and tables.data.format != "auto":
        problems.add(("data", "format"), "is set beside data.template; keep one of the two")
    if tables.data.format == "text" and "exact_match" in evaluate.metrics:
        problems.add(("evaluate", "metrics"), "exact_match needs answers; data.format = \"text\" has none")
    if tables.method == "full" and tables.quantization != "none" and not tables.sweep:
        problems.add(("quantization",), "a quantized base cannot be fine-tuned in full")
    if isinstance(tables.quantization, str) is False:
        bits = [key for key in ("load_in_4bit", "load_in_8bit") if getattr(tables.quantization, key)]
        if len(bits) != 1:
            problems.add(("quantization",), "set exactly one of load_in_4bit and load_in_8bit")
    _check_analyses(tables, problems)


def _check_analyses(tables: SpecTables, problems: Problems) -> None:
    varied = {setting for block in tables.sweep for setting in flatten(block.model_extra or {})}
    varied |= {key for block in tables.sweep for row in block.configurations for key in flatten(row) if key != "name"}
    for index, analysis in enumerate(tables.analysis):
        if analysis.factor and analysis.factor not in varied:
            close = near(analysis.factor, sorted(varied)) or f"; what varies: {', '.join(sorted(varied)) or 'nothing'}"
            problems.add(("analysis", index, "factor"), f'"{analysis.factor}" does not vary in this study{close}')
        if analysis.metric and analysis.metric not in tables.evaluate.metrics:
            listed = ", ".join(tables.evaluate.metrics)
            problems.add(("analysis", index, "metric"), f'"{analysis.metric}" is not among evaluate.metrics: {listed}')


