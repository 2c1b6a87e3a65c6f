"""What a study has found so far, as plain tables: the one input of every analysis and of the report."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lorafile.plan.tuning_status import TuningStatus
from lorafile.results.claims_file import Recorded
from lorafile.specs.tables.analysis import AnalysisTable, ClaimTable, PublishedTable, VerdictTable
from lorafile.units import html_table, plural

if TYPE_CHECKING:
    import pandas as pd

RunKey = tuple[str, int | None]  # configuration, seed
OutcomeKey = tuple[str, int | None, str]  # configuration, seed, split
K = TypeVar("K")
V = TypeVar("V")


def missing(value: Any) -> bool:
    """Return whether a cell holds nothing: None, NaN, pandas' NA, or an infinity that no axis can show."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and not math.isfinite(value)


def cells(frame: "pd.DataFrame", name: str) -> list[Any]:
    """Return a column's cells, None for each that is missing; a column that is not there is all missing."""
    if name not in frame.columns:
        return [None] * len(frame)
    return [None if missing(value) else value for value in frame[name].tolist()]


def rows_of(frame: "pd.DataFrame", *names: str) -> Iterator[tuple[Any, ...]]:
    """Yield the cells of some columns, row by row; see `cells`."""
    return zip(*(cells(frame, name) for name in names), strict=True)


def row_dicts(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    """Return a table's rows as dictionaries whose keys are text."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    """Return key -> its values, both in the order in which they come."""
    groups: dict[K, list[V]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def listed(names: list[str], most: int = 8) -> str:
    """Return `a, b, c`; of more than `most` names, `a, b and 7 more`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class OnDemand(Mapping[Any, Any]):
    """A mapping whose values are read on demand."""

    def __init__(self, sources: Mapping[Any, Any], read: Callable[[Any], Any]) -> None:
        """Take key -> what its value is read from, and how."""
        self._sources, self._read = sources, read

    def __getitem__(self, key: Any) -> Any:
        return self._read(self._sources[key])

    def __iter__(self) -> Iterator[Any]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


def _nothing() -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame()


@dataclass(frozen=True)
class RunDetail:
    """What stands behind one run's figures.

    :ivar keys: node (`train`, `predict/test/generation`, `score/test`, …) -> its full key
    :ivar settings: section -> settings, resolved, as they were hashed
    """

    keys: dict[str, str]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """What one run made of the first held-out examples of a split.

    :ivar rows: `row`, `prompt`, `reference`, `answer`, `log_likelihood` (nats), `tokens`, as far as there are any;
        of private data no text
    """

    split: str
    rows: list[dict[str, Any]]


@dataclass(frozen=True, eq=False, repr=False)
class Results:
    """A study's results as pandas tables; what is not there yet is missing, never invented.

    :ivar configurations: one row each, in the spec's order: `configuration` (its name), `sweep`, `aliases` (list of
        text), `method`, `trained` (bool), `replicates` (how many the spec wants), `done` (how many have figures),
        `outcomes` (text, for example `done 3` or `done 2, diverged 1`), `rank` and `alpha` (where a sweep
        solves for them), `tuned` (list of the settings whose value here was chosen on validation, or is not chosen
        yet), then each varied setting of the study by its dotted name (`lora.r`, `quantization`, …; None where it does
        not apply)
    :ivar runs: one row for each configuration and seed: `configuration`, `sweep`, `seed` (None for the untuned base),
        `outcome` (done, diverged, out-of-memory, failed, interrupted, running, missing), `message`, `key`,
        `environment` (where it was trained: an index into `environments`; None where it was not), `predicted_in`,
        `validation.<metric>` and `test.<metric>`, `validation.examples`, `test.examples`, and of the training run
        `seconds`, `steps`, `supervised_tokens`, `tokens`, `imported` (True where trained elsewhere), where a program
        trained it `trainer` (its name), `reads` (whether the kernel kept held-out rows from it) and `failed_checks`,
        `trainable_parameters`, `total_parameters`, `adapter_bytes`, `final_loss`, `micro_batch_split` (into so many
        parts each micro-batch was cut, where a whole one did not fit into memory), `packed` (with so many others it was
        trained at a time, counting itself; missing where alone), `question_tokens` (of a held-out example, on average);
        where it was evaluated while it trained, `evaluations` (how many), `best_step` and `best_metric` (the best one),
        `chosen_step` (whose weights it has), `ended_by` (last step, early stopping or divergence), and `selected_on`
        (validation, where the evaluations chose the step)
    :ivar profiles: one row for each profiled configuration: `configuration`, `device`, `environment`, `key`, `base`
        (equal where the same base answers the same prompt), `load_seconds`,
        `train_step_seconds`, `tokens_per_second`, `supervised_tokens_per_second`, peak bytes by phase
        (`load_…`, `train_…`, `evaluate_…`, `generate_…`, each `…_allocated_bytes` and `…_reserved_bytes`; on a CPU
        live tensor bytes and resident size), `first_token_seconds`, `token_seconds`, `merged_first_token_seconds`,
        `merged_token_seconds` (missing where nothing can be merged), `generate_seconds` (a whole answer),
        `generate_spread` (interquartile range over median of the times of one answer, repeated), and the same under
        `merged_` and, of the bare base, under `base_`; which times to trust: lorafile/results/timings.py
    :ivar answers: one row for each prompt of the spec and each configuration: `configuration`, `number`, `prompt`,
        `untuned`, `tuned` (the first seed's answer)
    :ivar curves: `configuration`, `seed`, `step`, `epoch`, `loss`, `learning_rate`, one row for each optimizer step;
        of runs that still train, or were interrupted, as far as they came
    :ivar validations: one row for each evaluation on validation while a finished run trained: `configuration`, `seed`,
        `step`, `epoch`, `loss` (of the validation examples, in the unit of the training loss), each metric by name,
        `chosen` (bool: the run's weights are those of this step)
    :ivar inspections: one row for each adapter that was looked into: `configuration`, `seed`, `trainable_parameters`,
        `total_parameters`, `trainable_share`, `adapted_modules`, `update_norm`, `cka_min`, `cka_last`, and the mean
        (`…_max`: largest) over modules of `relative_norm`, `effective_rank`, `stable_rank`, `energy_rank`
    :ivar inspected_modules: one row for each of its modules: `configuration`, `seed`, `module`, `type`, `layer`,
        `parameters`, `rank`, `frobenius`, `spectral`, `relative_norm`, the three ranks, `singular_values` (list)
    :ivar representations: `configuration`, `seed`, `layer` (0: the embeddings), `cka` with the base
    :ivar truncations: one row for each adapter and smaller rank: `configuration`, `sweep`, `seed`, `rank`, `of_rank`
        (its own), `kept_energy` (share of the update's squared norm), `trainable_parameters`, `adapter_bytes`,
        `validation.<metric>`, `test.<metric>`
    :ivar merges: one row for each adapter and type: `configuration`, `seed`, `dtype`, `tokens`, `finite`,
        `max_logit_difference`, `mean_logit_difference`, `argmax_agreement`, `log_loss_attached`, `log_loss_merged`,
        `log_loss_difference`, `passes`, `failures` (list of text); where the base computes in half precision, what a
        change of batch alone does to the attached model: `batch_moved_tokens`, `batch_mean_logit_difference` (over
        these), `batch_max_logit_difference`, `batch_argmax_agreement`, `batch_log_loss_difference`
    :ivar outcomes: (configuration, seed, split) -> one row for each example: `row` (which one, the same for every run),
        what it adds to each metric, and `tokens` or `bytes`, the weights of those that are weighted; read on demand
    :ivar details: (configuration, seed) -> keys and settings of a run
    :ivar samples: (configuration, seed) -> what a run made of the first held-out examples; read on demand
    :ivar repeats: one row for each declared repeat, which is in no other table: `configuration`, `seed`, `repeat`
        (from 2 on), `outcome`, `message`, `key`, `validation.<metric>`, `test.<metric>`, and whether its weights
        (`same_weights`) and predictions (`same_predictions`) are the first time's byte for byte (missing: not known)
    :ivar refusals: (server, configuration) -> why `vllm` or `tgi` would not take it as it is, next to the base; nothing
        where it would; read on demand
    :ivar candidates: one row for each candidate of a tuned configuration and seed: `configuration`, `candidate` (its
        name), `values` (setting -> value) and each of these settings by its dotted name, `seed`, `outcome`, `message`,
        `key`, `chosen` (bool; None before the choice), `added` (bool: beyond what the spec lists),
        `validation.<metric>`
    :ivar tuning: how the choice of each tuned configuration stands: lorafile/plan/tuning_status.py
    :ivar looks: the seeds of each look at the study: of its first one, then of each stage that has ended
    :ivar look_dates: when the last run of each look was begun (`2026-11-21`), empty where none was
    :ivar declared: the `[[analysis]]` tables, which name the study's family of comparisons
    :ivar claims: the `[[claim]]` tables; `recorded`: sentence -> what it rested on when it was last reported
    :ivar published: the `[[reference]]` tables: figures from elsewhere, which are drawn and never tested
    :ivar file: the spec, as a command names it
    :ivar folder: where the spec stands, which the files that it names are relative to
    :ivar registration: what stood in git before the first attempt: lorafile/results/registration.py
    :ivar commit: of a registered study, the commit that the spec is in, and whether it has changes; empty without git
    :ivar unlocked: how many attempts were recorded in a bucket without its lock, and of how many
    :ivar studies: how many studies it puts side by side: no recommendation is made across several
    :ivar topics: published methods, initializations and quantizations that it uses: results/study_facts.py
    """

    study: str
    question: str
    title: str
    primary: str
    metrics: tuple[str, ...]
    seeds: tuple[int, ...]
    configurations: "pd.DataFrame"
    runs: "pd.DataFrame"
    profiles: "pd.DataFrame"
    curves: "pd.DataFrame"
    validations: "pd.DataFrame" = field(default_factory=_nothing)
    environments: list[dict[str, Any]] = field(default_factory=list)  # each once: device, torch, transformers, peft, …
    data: dict[str, Any] = field(default_factory=dict)  # path, format, rows and supervised fraction of each split
    model: dict[str, Any] = field(default_factory=dict)  # path, architecture, parameters, dtype
    forecast_errors: dict[str, list[float]] = field(default_factory=dict)  # time, memory: estimated / measured - 1
    answers: "pd.DataFrame" = field(default_factory=_nothing)
    answers_private: bool = False  # there are prompts, and no report shows them
    reference: str = ""  # the path of the reference text
    warnings: list[str] = field(default_factory=list)  # sentences that the reader has to see first
    inspections: "pd.DataFrame" = field(default_factory=_nothing)
    inspected_modules: "pd.DataFrame" = field(default_factory=_nothing)
    representations: "pd.DataFrame" = field(default_factory=_nothing)
    card: list[dict[str, Any]] = field(default_factory=list)  # one for each data set: lorafile/results/datacard.py
    truncations: "pd.DataFrame" = field(default_factory=_nothing)
    merges: "pd.DataFrame" = field(default_factory=_nothing)
    outcomes: "Mapping[OutcomeKey, pd.DataFrame]" = field(default_factory=dict)
    details: Mapping[RunKey, RunDetail] = field(default_factory=dict)
    samples: Mapping[RunKey, Sample] = field(default_factory=dict)
    repeats: "pd.DataFrame" = field(default_factory=_nothing)
    refusals: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    verdict: VerdictTable = field(default_factory=VerdictTable)
    declared: tuple[AnalysisTable, ...] = ()
    looks: tuple[tuple[int, ...], ...] = ()
    look_dates: tuple[str, ...] = ()
    claims: tuple[ClaimTable, ...] = ()
    recorded: Mapping[str, Recorded] = field(default_factory=dict)
    published: tuple[PublishedTable, ...] = ()
    file: str = "SPEC"
    folder: Path = Path()
    topics: tuple[str, ...] = ()
    registration: tuple[str, ...] = ()
    commit: str = ""
    unlocked: tuple[int, int] = (0, 0)
    candidates: "pd.DataFrame" = field(default_factory=_nothing)
    tuning: tuple[TuningStatus, ...] = ()
    studies: int = 1

    def __repr__(self) -> str:
        done = sum(cells(self.configurations, "done")) if len(self.configurations) else 0
        runs = f"{done} of {plural(len(self.runs), 'run')} done"
        return f"<Results of {self.study!r}: {plural(len(self.configurations), 'configuration')}, {runs}>"

    def _repr_html_(self) -> str:
        """Return the runs as a table in a notebook."""
        columns = ["configuration", "seed", "outcome", *(c for c in self.runs.columns if c.startswith("test."))]
        rows = self.runs.reindex(columns=columns).itertuples(index=False)
        return html_table(
            columns, [["" if missing(cell) else cell for cell in row] for row in rows], [repr(self)[1:-1]]
        )

    @cached_property
    def names(self) -> list[str]:
        """The configurations' names, in the spec's order; not to be changed by who asks."""
        return [str(name) for name in cells(self.configurations, "configuration")]

    @cached_property
    def methods(self) -> dict[str, str]:
        """Configuration -> method, `lora` where it is missing; not to be changed by who asks."""
        return {name: str(method or "lora") for name, method in self.setting("method").items()}

    def setting(self, name: str) -> dict[str, Any]:
        """Return configuration -> its cell in a column of `configurations`, None where it is missing."""
        return dict(zip(self.names, cells(self.configurations, name), strict=True))
