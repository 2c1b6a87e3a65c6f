"""Stages: more seeds for some configurations, and the checks of what a spec says of them."""

from collections.abc import Sequence

from lorafile.specs.configurations import Configuration
from lorafile.specs.error_messages import Problems, suggestion
from lorafile.specs.positions import Path
from lorafile.specs.tables.settings import SpecTables


def is_deterministic(configuration: Configuration, tables: SpecTables) -> bool:
    """Return whether no seed changes a row: it is untuned, and neither its answers nor its prompts are drawn."""
    return configuration.method == "none" and not configuration.shots and not tables.evaluate.do_sample


def stage_configurations(
    number: int, tables: SpecTables, configurations: Sequence[Configuration]
) -> list[Configuration]:
    """Return the configurations that run under the seeds of a stage, 0 being the first one, in the spec's order."""
    named = tables.stage[number].configurations
    seeded = [c for c in configurations if not is_deterministic(c, tables)]
    return [c for c in seeded if named is None or {c.name, *c.aliases} & set(named)]


def check_stages(tables: SpecTables, configurations: Sequence[Configuration], problems: Problems) -> None:
    """Check that stages have alpha left, bring new seeds, and name configurations that a seed changes."""
    if tables.stage and not tables.verdict.keep:
        problems.add(
            ("stage", 0),
            "has no alpha left: verdict.keep = 0 spends all of it at the first look. Keep a share, as with keep = 0.2, "
            "before the first look; changed after it, the verdicts would be wrong more often than alpha says",
        )
    used = dict.fromkeys(tables.study.seeds, "study.seeds")
    for number, stage in enumerate(tables.stage):
        for at, seed in enumerate(stage.seeds):
            if seed in used:
                path = ("stage", number, "seeds", at)
                problems.add(path, f"{seed} is in {used[seed]} already; a stage needs new seeds")
            used.setdefault(seed, f"stage[{number}]")
        if all(is_deterministic(configuration, tables) for configuration in configurations):
            problems.add(("stage", number), "has nothing to run: no configuration of this study depends on a seed")
        elif stage.configurations is not None:
            by_name = {name: c for c in configurations for name in (c.name, *c.aliases)}
            _check_names(("stage", number, "configurations"), stage.configurations, by_name, tables, problems)


def _check_names(
    place: Path, names: list[str], by_name: dict[str, Configuration], tables: SpecTables, problems: Problems
) -> None:
    for at, name in enumerate(names):
        path = (*place, at)
        if name not in by_name:
            others = f"; its configurations: {', '.join(list(by_name)[:8])}{', …' if len(by_name) > 8 else ''}"
            problems.add(path, f'"{name}" is not a configuration of this study{suggestion(name, by_name) or others}')
        elif is_deterministic(by_name[name], tables):
            problems.add(path, f'"{name}" is not trained and does not depend on a seed; omit it')
        elif by_name[name].name in [by_name[before].name for before in names[:at] if before in by_name]:
            problems.add(path, f'"{name}" is listed twice')
