"""What a user's own analysis gets: a study's results as pandas tables of which the columns are promised."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorafile.results.results import Results

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class StudyTables:
    """A study's results for an analysis of one's own; tables are copies, so that nothing done to them shows elsewhere.

    :ivar primary: the metric that the study decides by; `metrics`: all of them
    :ivar split: where figures are shown: `test`, or `validation` while there is nothing else
    :ivar configurations: one row each, in the spec's order: `configuration`, `sweep`, `method`, and each setting that
        varies, by its dotted name (`lora.r`, `quantization`, …)
    :ivar runs: one row for each configuration and seed: `configuration`, `seed` (missing for the untuned row),
        `outcome` (`done`, `diverged`, …; only those that are done have figures), `validation.<metric>`,
        `test.<metric>`, `trainable_parameters`, `total_parameters`, `adapter_bytes`, `seconds`, and the
        configuration's settings
    :ivar profiles: one row for each measured configuration: `configuration`, `device`, `train_allocated_bytes`,
        `train_step_seconds`, `token_seconds`, … as in `lorafile.results.results.Results`
    :ivar curves: a row for each optimizer step: `configuration`, `seed`, `step`, `epoch`, `loss`, `learning_rate`
    :ivar verdicts: a row for each comparison that the study declares on its primary metric: `one`, `other`, `verdict`,
        `difference` (of `one` from `other`), `low`, `high` (its 95 % interval)
    """

    study: str
    question: str
    primary: str
    metrics: tuple[str, ...]
    split: str
    seeds: tuple[int, ...]
    configurations: "pd.DataFrame"
    runs: "pd.DataFrame"
    profiles: "pd.DataFrame"
    curves: "pd.DataFrame"
    verdicts: "pd.DataFrame"
    _results: Results

    def better_is_more(self, metric: str) -> bool:
        """Return whether more of a metric is better."""
        return self._results.better_is_more(next((m for m in self._results.metrics if m == metric), metric))

    def examples(self, configuration: str, seed: int | None, split: str | None = None) -> "pd.DataFrame":
        """Return what one run made of each example: `row` (the same for every run) and what it adds to each metric.

        :param seed: None for the untuned row
        :raises KeyError: when the run has none
        """
        return self._results.outcomes[configuration, seed, split or self.split].copy()


def study_tables(results: Results) -> StudyTables:
    """Return a study's results as its own analyses see them."""
    from lorafile.analysis.common.scores import FIXED, split_of

    settings = results.configurations.drop(columns=[name for name in FIXED if name != "configuration"], errors="ignore")
    runs = results.runs.drop(columns="sweep", errors="ignore")
    known = "configuration" in settings and "configuration" in runs
    return StudyTables(
        study=results.study,
        question=results.question,
        primary=str(results.primary),
        metrics=tuple(map(str, results.metrics)),
        split=split_of(results, results.primary),
        seeds=tuple(results.seeds),
        configurations=results.configurations.copy(),
        runs=runs.merge(settings, on="configuration", how="left") if known else runs.copy(),
        profiles=results.profiles.copy(),
        curves=results.curves.copy(),
        verdicts=_verdicts(results),
        _results=results,
    )


def _verdicts(results: Results) -> "pd.DataFrame":
    import pandas as pd

    from lorafile.analysis.compare.verdicts import family

    rows: list[dict[str, Any]] = []
    for verdict in family(results).verdicts:
        low, high = verdict.decision.interval if verdict.decision is not None else (None, None)
        gap = verdict.estimate.difference if verdict.estimate is not None else None
        row = {"one": verdict.pair.one, "other": verdict.pair.other, "verdict": verdict.word}
        rows.append(row | {"difference": gap, "low": low, "high": high})
    return pd.DataFrame(rows, columns=["one", "other", "verdict", "difference", "low", "high"])
