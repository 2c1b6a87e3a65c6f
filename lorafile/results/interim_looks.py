"""The looks at a study: its first seeds, then those of each stage whose runs have all ended."""

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from lorafile.results.runs import Attempts
from lorafile.specs import Spec
from lorafile.specs.sweeps.stages import stage_configurations

_ENDED = ("done", "diverged", "out-of-memory")  # a result; a run that failed is to be tried again


def looks(spec: Spec, runs: list[dict[str, Any]]) -> tuple[tuple[int, ...], ...]:
    """Return the seeds of each look: a stage is one when it has ended, and every stage before it."""
    stages = takewhile(lambda stage: stage[1] >= stage[2], _progress(spec, runs))
    return (tuple(spec.tables.study.seeds), *(seeds for seeds, _, _ in stages))


def dates(looked: tuple[tuple[int, ...], ...], runs: list[dict[str, Any]], results: Attempts) -> tuple[str, ...]:
    """Return when the last run of each look was begun, as `2026-11-21`."""
    begun = {seed: [""] for seeds in looked for seed in seeds}
    for run in runs:
        if run["seed"] in begun and run["key"] in results:
            begun[run["seed"]].append(results[run["key"]].started[:10])
    return tuple(max(day for seed in seeds for day in begun[seed]) for seeds in looked)


def under_way(spec: Spec, runs: list[dict[str, Any]]) -> list[str]:
    """Say which stages have runs without a result, so that no verdict reads their seeds yet."""
    return [
        f"Stage {number} is under way: {ended} of its {wanted} runs have ended. Until all have, no verdict reads them."
        for number, (_, ended, wanted) in enumerate(_progress(spec, runs), 1)
        if ended < wanted
    ]


def _progress(spec: Spec, runs: list[dict[str, Any]]) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """Yield the seeds of each stage, how many of its runs have ended, and how many there are."""
    for number, stage in enumerate(spec.tables.stage):
        seeds = set(stage.seeds)
        names = {c.name for c in stage_configurations(number, spec.tables, spec.configurations)}
        outcomes = [run["outcome"] for run in runs if run["configuration"] in names and run["seed"] in seeds]
        yield tuple(stage.seeds), sum(outcome in _ENDED for outcome in outcomes), len(names) * len(seeds)
