"""The looks at a study: its first seeds, then those of each stage whose runs have all ended."""

from typing import Any

from lorafile.results.runs import Attempts
from lorafile.specs import Spec
from lorafile.specs.sweeps.stages import stage_configurations

_ENDED = ("done", "diverged", "out-of-memory")  # a result; a run that failed is to be tried again


def looks(spec: Spec, runs: list[dict[str, Any]]) -> tuple[tuple[int, ...], ...]:
    """Return the seeds of each look: a stage is one when it has ended, and every stage before it."""
    found = [tuple(spec.tables.study.seeds)]
    for number, stage in enumerate(spec.tables.stage):
        ended, wanted = _progress(spec, number, runs)
        if ended < wanted:
            break
        found.append(tuple(stage.seeds))
    return tuple(found)


def dates(found: tuple[tuple[int, ...], ...], runs: list[dict[str, Any]], results: Attempts) -> tuple[str, ...]:
    """Return when the last run of each look was begun, as `2026-11-21`."""
    begun = {seed: [""] for seeds in found for seed in seeds}
    for run in runs:
        if run["seed"] in begun and run["key"] in results:
            begun[run["seed"]].append(results[run["key"]].started[:10])
    return tuple(max(day for seed in seeds for day in begun[seed]) for seeds in found)


def under_way(spec: Spec, runs: list[dict[str, Any]]) -> list[str]:
    """Say which stages have runs without a result, so that no verdict reads their seeds yet."""
    told = []
    for number in range(len(spec.tables.stage)):
        ended, wanted = _progress(spec, number, runs)
        if ended < wanted:
            told.append(
                f"Stage {number + 1} is under way: {ended} of its {wanted} runs have ended. Until all have, no verdict "
                "reads them."
            )
    return told


def _progress(spec: Spec, number: int, runs: list[dict[str, Any]]) -> tuple[int, int]:
    """Return how many of a stage's runs have ended, and how many there are."""
    seeds = set(spec.tables.stage[number].seeds)
    names = {configuration.name for configuration in stage_configurations(number, spec.tables, spec.configurations)}
    outcomes = [run["outcome"] for run in runs if run["configuration"] in names and run["seed"] in seeds]
    return sum(outcome in _ENDED for outcome in outcomes), len(names) * len(seeds)
