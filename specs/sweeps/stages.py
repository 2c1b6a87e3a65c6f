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
    seeded = [one for one in configurations if not is_deterministic(one, tables)]
    return [one for one in seeded if named is None or {one.name, *one.aliases} & set(named)]


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
        if all(is_deterministic(one, tables) for one in configurations):
            problems.add(("stage", number), "has nothing to run: no seed changes a configuration of this study")
        elif stage.configurations is not None:
            known = {name: one for one in configurations for name in (one.name, *one.aliases)}
            _check_names(("stage", number, "configurations"), stage.configurations, known, tables, problems)


def _check_names(
    where: Path, names: list[str], known: dict[str, Configuration], tables: SpecTables, problems: Problems
) -> None:
    for at, name in enumerate(names):
        path = (*where, at)
        if name not in known:
            others = f"; there are {', '.join(list(known)[:8])}{', …' if len(known) > 8 else ''}"
            problems.add(path, f'"{name}" is no configuration of this study{suggestion(name, known) or others}')
        elif is_deterministic(known[name], tables):
            problems.add(path, f'"{name}" is not trained, and no seed changes it; leave it out')
        elif known[name].name in [known[other].name for other in names[:at] if other in known]:
            problems.add(path, f'"{name}" stands here twice')
