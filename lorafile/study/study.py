"""A study from Python: load, plan, apply, results. Prints nothing."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafile import specs
from lorafile.apply.progress import Applied
from lorafile.apply.tracking.destinations import missing_libraries
from lorafile.apply.workers import Placement, default_workers, model_types
from lorafile.environment import installed
from lorafile.errors import LoraError, SpecError, StalePlan, UnmatchedPattern
from lorafile.lock.lockfile import Lock, describe_changes, read_lock, resolve, unlocked_warnings, write_lock
from lorafile.plan.clusters.config import find_cluster
from lorafile.plan.clusters.machines import of_cluster
from lorafile.plan.plan import Plan, PlanOptions
from lorafile.plan.planner import make_plan
from lorafile.plan.programs import environment_lines, program_lines
from lorafile.state import Attempt, State
from lorafile.state.remote import has_remote
from lorafile.units import Price, html_table, listing

if TYPE_CHECKING:
    import pandas as pd

    from lorafile.analysis.common.base import Analysis
    from lorafile.analysis.sensitivity.mixes import Detection
    from lorafile.analysis.sensitivity.planned import PlannedSensitivity
    from lorafile.apply.budget import Budget
    from lorafile.apply.progress import Progress
    from lorafile.lock.fetch import Fetched
    from lorafile.models.evaluate import Evaluation
    from lorafile.results.results import Results


def state_directory(named: str | Path | None = None) -> Path:
    """Return the state's directory: what is named, or `LORA_STATE`, or `.lora` here.

    Of a URL it is the local state in the user's cache directory, with what is new in the remote.

    :raises StateError: when a remote refuses, or cannot be reached and nothing of it is here
    """
    name = named or os.environ.get("LORA_STATE") or ".lora"
    if not has_remote(name):
        return Path(name)
    from lorafile.state.remote.session import connect

    return connect(name)


def spec_and_state(spec: Path | None, state: Path | None) -> tuple[specs.Spec | None, Path]:
    """Return the spec of a study that may have been named, and the state's directory."""
    return specs.load(spec) if spec is not None else None, state_directory(state)


@dataclasses.dataclass(frozen=True)
class BestFigure:
    """The mean of a study's primary metric of the best configuration so far, and its number of seeds.

    :ivar chosen_on: the split on which it is the best where that is another than `split`, and another is the best there
    """

    metric: str
    split: str
    configuration: str
    mean: float
    seeds: int
    chosen_on: str = ""


def check_locked(plan: Plan) -> None:
    """Refuse a plan of models whose weights are not here: its nodes have no keys yet.

    :raises LoraError: naming them
    """
    if plan.unlocked:
        raise LoraError(
            f"This plan contains only estimates: the weights of {listing(plan.unlocked)} are missing, so its nodes "
            "have no keys. Download them with: lora fetch"
        )


def _patterns(patterns: str | Sequence[str]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


class Study:
    """One spec and the state that it is compared with."""

    def __init__(self, spec: specs.Spec, state: Path) -> None:
        self.spec = spec
        self.state = state

    def __repr__(self) -> str:
        return f"Study({str(self.spec.file)!r}, state={str(self.state)!r})"

    def _repr_html_(self) -> str:
        """Return the study in a notebook: its question, and a row for each configuration."""
        tables = self.spec.tables
        rows = [
            [each.name, each.method, listing(f"{name} = {value}" for name, value in each.varied.items())]
            for each in self.spec.configurations
        ]
        lines = [repr(self), tables.study.question or "", f"Seeds: {listing(map(str, tables.study.seeds))}"]
        return html_table(["configuration", "method", "varied settings"], rows, filter(None, lines), self.spec.name)

    @classmethod
    def load(cls, file: str | Path, state: str | Path | None = None) -> "Study":
        """Read a spec.

        :raises SpecError: with every mistake in it
        """
        return cls(specs.load(Path(file)), state_directory(state))

    @classmethod
    def approved(cls, file: str | Path, state: str | Path | None = None) -> "tuple[Study, Plan]":
        """Return the study of a plan that was saved, and that plan made afresh: the very work that was approved.

        :raises StalePlan: when what would be done is no longer that, with what has changed
        """
        from lorafile.plan.planfile import check_unchanged, read

        file = Path(file)
        saved = read(file)
        if saved.resolve is not None:
            raise LoraError(f"{file} has a stage that is not in its spec. Add it first with: lora apply --resolve")
        options = saved.selection
        try:
            if state is None and options.cluster:
                state = find_cluster(options.cluster, Path(saved.made_from.spec)).state
            study = cls.load(saved.made_from.spec, state)
            plan = study.plan(
                target=options.target,
                exclude=options.exclude,
                replace=options.replace,
                rerun_drifted=options.rerun_drifted,
                refresh=options.refresh,
                cluster=options.cluster,
            )
        except SpecError as error:
            raise StalePlan(f"{file} is stale: its spec cannot be planned.\n{error}") from error
        except UnmatchedPattern as error:
            again = f"Plan again with: lora plan {saved.made_from.spec} --out {file}"
            raise StalePlan(f"{file} is stale; nothing was done. {error} {again}") from error
        check_unchanged(file, saved, plan)
        return study, plan

    def lock(self, fresh: bool = True, rehash: bool = False) -> Lock:
        """Write the lock next to the spec and return it; one that cannot be read any more is replaced."""
        try:
            before = read_lock(self.spec)
        except LoraError:
            before = None
        lock, _ = resolve(self.spec, before, fresh, rehash)
        write_lock(self.spec, lock)
        return lock

    def fetch(self, to: Path | None = None, tell: "Callable[[Fetched], None] | None" = None) -> "list[Fetched]":
        """Bring every model and data set here at the lock's revisions, verify them, and write the lock."""
        from lorafile.lock.fetch import fetch

        return fetch(self.spec, to, tell)

    def plan(
        self,
        gpu: str | None = None,
        *,
        target: str | Sequence[str] = (),
        exclude: str | Sequence[str] = (),
        replace: str | Sequence[str] = (),
        rerun_drifted: bool = False,
        refresh: bool = False,
        rehash: bool = False,
        hourly: float | None = None,
        cluster: str | None = None,
    ) -> Plan:
        """Return what an apply would do; writes nothing.

        :param gpu: a size of memory such as `24GB`, or a GPU's name, to compare with instead of the device that is here
        :param target: a pattern, or several: only nodes whose address matches one, or whose configuration's name does,
            and what they depend on, as in `target="rank/*"`
        :param exclude: patterns: without nodes that match one, and what depends on them
        :param replace: patterns of nodes that run again although they are finished
        :param rerun_drifted: what was done in another environment is done again
        :param refresh: look at models and data afresh, on the hub too, instead of taking the lock's word
        :param rehash: read weights although the user's cache has the digests of files like these
        :param hourly: what an hour of one device costs; a `lorafile.units.Price` has a currency. Left out: what the
            cluster's devices cost
        :param cluster: where the work would run, by its name in `lora.toml`; left out, this machine
        :raises LoraError: when a pattern fits nothing, or there is no such cluster
        """
        before = read_lock(self.spec)
        lock, changed = resolve(self.spec, before, refresh, rehash, without_weights=gpu is not None)
        if refresh:
            changed = describe_changes(before, lock)
        changed += unlocked_warnings(self.spec, lock)
        machines = None if cluster is None else of_cluster(cluster, find_cluster(cluster, self.spec.file))
        patterns = (_patterns(target), _patterns(exclude), _patterns(replace))
        options = PlanOptions(*patterns, rerun_drifted, machines)
        plan = State.snapshot(self.state, lambda state: make_plan(self.spec, lock, state, changed, options, gpu))
        return dataclasses.replace(
            plan,
            warnings=(*plan.warnings, *missing_libraries(self.spec), *environment_lines(plan)),
            programs=program_lines(plan, self.state),
            workers=default_workers(plan),
            hourly=plan.machines.hourly if hourly is None else Price(hourly),
            refreshed=refresh and lock != before,
        )

    def knows_variance(self, plan: Plan) -> bool:
        """Return whether anything may tell how far figures vary between seeds: scores in the state, or the spec."""
        tables = plan.graph.spec.tables
        if tables.verdict.expect_sd is not None or any(table.sd is not None for table in tables.reference):
            return True
        query = "SELECT 1 FROM attempts WHERE kind = 'score' LIMIT 1"
        return State.snapshot(self.state, lambda state: bool(state.rows(query)))

    def may_be_confounded(self) -> bool:
        """Return whether the spec may declare confounded comparisons: where every sweep is a whole grid none is."""
        tables = self.spec.tables
        cut = any(sweep.zip or sweep.configurations or sweep.exclude for sweep in tables.sweep)
        return cut or any(table.factor and table.baseline for table in tables.analysis if table.kind == "compare")

    def confounds(self, plan: Plan) -> list[str]:
        """Return a sentence for each set of declared comparisons that will be refused, since something else differs."""
        from lorafile.analysis.compare.planned import confound_lines, confounded
        from lorafile.results.gather import gather_scores

        return State.snapshot(self.state, lambda state: confound_lines(confounded(gather_scores(plan, state))))

    def sensitivity(self, plan: Plan) -> "PlannedSensitivity | None":
        """Return what the study will be able to conclude once a plan is carried out; None where it compares nothing."""
        from lorafile.analysis.sensitivity.planned import planned_sensitivity

        return State.snapshot(self.state, lambda state: planned_sensitivity(plan, state))

    def detection(self, plan: Plan, difference: str, gpu: str | None = None) -> "Detection":
        """Return the cheapest mix of seeds and test rows that detects a difference with 80 % power; writes nothing.

        :param difference: `1pt`, `1%` of the typical figure, or a number in the primary metric's unit
        :param gpu: as `plan` takes it
        :raises LoraError: when it is no difference, or nothing is known of the variance
        """
        from lorafile.analysis.sensitivity.mixes import detection

        return State.snapshot(self.state, lambda state: detection(plan, state, difference, gpu))

    def save_plan(self, plan: Plan, file: str | Path) -> None:
        """Write a plan as a file that `lora apply` takes, and `Study.approved`.

        :raises LoraError: when something else stands there
        """
        from lorafile.plan.planfile import save

        check_locked(plan)
        save(plan, Path(file))

    def apply(
        self,
        plan: Plan | None = None,
        *,
        workers: int | None = None,
        pack: str | int = "auto",
        lock_timeout: float = 0.0,
        watchers: "list[Progress] | None" = None,
        budget: "Budget | None" = None,
        cluster: str | None = None,
        state_lock: str = "",
        detach: bool = False,
    ) -> Applied:
        """Do what is missing and return what was done.

        :param plan: an approved plan; only its nodes are done, and what follows from the choices that it waits for;
            what finished meanwhile is not done again. Trackers get what they do not have, also where nothing is missing
        :param pack: how many adapters on one base are trained together: at most so many, `auto` as many as are measured
            to be fastest, `off` none
        :param budget: what it may take; what would not end in time is not begun
        :param cluster: where it runs: a `[cluster.NAME]` of lora.toml, `ray`, `slurm`, or `local`; an approved plan
            says itself which it was made for
        :param state_lock: of a state with a remote: `lease`, or `none` for a backend without conditional writes
        :param detach: return as soon as a Slurm cluster has all there is to do; a later apply takes in what it did
        """
        from lorafile.apply.stages import apply_plan
        from lorafile.state.remote.session import locked

        if plan is not None:
            check_locked(plan)
        name = plan.machines.cluster if plan is not None else cluster
        place = find_cluster(name, self.spec.file) if name else None
        placement = Placement(place, workers, pack, detach)
        with (
            locked(self.state, lock_timeout, state_lock) as session,
            State.write(self.state, lock_timeout) as state,
        ):
            planned = plan or self.plan(cluster=cluster)
            return apply_plan(self.spec, planned, state, placement, watchers, budget, session)

    def collect(self, cluster: str, lock_timeout: float = 0.0) -> list[Attempt]:
        """Take in what a Slurm cluster's workers finished while no apply listened; return what was recorded.

        :param cluster: a `[cluster.NAME]` of lora.toml; on Ray nothing outlives the applying process
        """
        place = find_cluster(cluster, self.spec.file)
        if place.executor != "slurm":
            return []
        from lorafile.apply.collect import area_of, collect, has_left
        from lorafile.state.remote.session import locked

        area = area_of(place, self.state)
        if not has_left(area):
            return []
        with locked(self.state, lock_timeout), State.write(self.state, lock_timeout) as state:
            return collect(self.plan(cluster=cluster), state, area)

    def untracked(self, plan: Plan) -> int:
        """Return how many finished runs of a plan some tracker of the study does not have, or not as they are."""
        if not self.spec.tables.tracking.trackers:
            return 0
        from lorafile.apply.tracking.reporter import unsent

        return unsent(plan, State.read(self.state))

    def warm_up(self, plan: Plan) -> None:
        """Let what workers need be loaded while the plan is read; where nothing is to be done nothing is."""
        from lorafile.apply.executors.process import start_server

        if installed("torch") is not None and any(change.kind != "score" for change in plan.work):
            start_server(Path(os.devnull), model_types(plan))

    def evaluate(
        self,
        adapter: str | Path,
        *,
        splits: tuple[str, ...] = (),
        profile: bool = True,
        workers: int | None = None,
        lock_timeout: float = 0.0,
        watchers: "list[Progress] | None" = None,
    ) -> "Evaluation":
        """Evaluate and profile a checkpoint trained elsewhere: a directory, or a hub id."""
        from lorafile.models.evaluate import evaluate

        options: dict[str, Any] = {"workers": workers, "lock_timeout": lock_timeout, "watchers": watchers}
        return evaluate(self.spec, self.state, str(adapter), splits=splits, profile=profile, **options)

    def import_runs(
        self,
        directories: list[str | Path],
        *,
        configuration: str | None = None,
        seed: int | None = None,
        replace: bool = False,
        lock_timeout: float = 0.0,
    ) -> list[Attempt]:
        """Take finished PEFT or Trainer output directories into state, as training of this study's configurations.

        :raises LoraError: when one fits no configuration or seed
        """
        from lorafile.models.import_runs import plan_imports, record_imports

        sources = [str(directory) for directory in directories]
        imports = plan_imports(self.spec, State.read(self.state), sources, configuration, seed, replace)
        return record_imports(self.spec, self.state, imports, lock_timeout)

    def results(self) -> "pd.DataFrame":
        """Return one row for each run, with its configuration's settings."""
        results = self.gather()
        settings = results.configurations.drop(columns=["sweep", "aliases", "outcomes", "replicates", "done"])
        return results.runs.merge(settings, on="configuration", how="left")

    def gather(self) -> "Results":
        """Return everything that the report is made from."""
        from lorafile.results.gather import gather

        return State.snapshot(self.state, lambda state: gather(self.plan(), state))

    def best_figure(self) -> "BestFigure | None":
        """Return the figure of the configuration that is best on validation so far; None where none has one."""
        from lorafile.analysis.common.scores import best, scores, split_of
        from lorafile.engine.metrics.registry import more_is_better

        results = self.gather()
        metric, split = results.primary, split_of(results, results.primary)
        scored = {name: score for name, score in scores(results, f"{split}.{metric}").items() if score.known}
        name = best(results, list(scored), metric)
        if name is None:
            return None
        leader = (max if more_is_better(metric) else min)(scored, key=lambda name: scored[name].mean)
        elsewhere = split == "test" and scored[leader].mean != scored[name].mean
        return BestFigure(metric, split, name, scored[name].mean, scored[name].n, "validation" if elsewhere else "")

    def analyses(self, results: "Results | None" = None) -> "list[Analysis]":
        """Return the spec's analyses, or every one that has something to say: sentences, tables and Altair charts.

        :param results: what `gather` returned; read again where it is left out
        """
        from lorafile.analysis.registry import analyses

        return analyses(results or self.gather(), self.spec.tables.analysis)

    def verdicts(self, results: "Results | None" = None) -> "pd.DataFrame":
        """Return one row for each comparison that the study declares on its primary metric, judged as one family.

        Columns: `configuration`, `compared_with`, `factor` (the setting that differs), `metric` and `split`; `verdict`
        (better, worse, equivalent, non-inferior, inconclusive; refused or none, with the reason in `why`); `difference`
        (first less second, in the metric's unit), `text` (the same for people), `standard_error`, `df`; `low`, `high`
        and `confidence` of the interval that decided; `p` (of no difference, adjusted by Holm), `p_equivalence`,
        `p_non_inferiority`; `margin` (in the metric's unit); `seeds` and `examples` (or clusters of them) behind the
        figures; `lost_runs` (list of text: diverged, out of memory, failed) and `differs` (list of text: what else
        differs). What does not apply is missing. docs/verdicts.md has the method, docs/statistics.md the formulas.

        :param results: what `gather` returned; read again where it is left out
        """
        from lorafile.analysis.compare.compare import verdict_frame
        from lorafile.analysis.compare.verdicts import family

        results = results or self.gather()
        return verdict_frame(results, list(family(results).verdicts))

    def ask(
        self, run: str, question: str, seed: int | None = None, max_new_tokens: int | None = None
    ) -> dict[str, str]:
        """Return the answers to a question: `base` and `tuned`, greedy, through the template of the study's data.

        :param run: a configuration, an address, the beginning of a key, or a directory with a checkpoint
        :raises LoraError: when there is no such run, or it has not finished well
        """
        from lorafile.models.chat import find_chat_target, open_chat

        state = State.read(self.state)
        target = find_chat_target(self.plan(), state, run, seed)
        with open_chat(target, state, max_new_tokens, None) as session:
            return session.ask(question, {}, list(session.responders))

    def report(self, directory: str | Path | None = None) -> list[Path]:
        """Write the report and return its files.

        :param directory: where to; `report.path` of the spec, relative to the spec, where it is left out
        """
        from lorafile.report.writer import write_report

        results = self.gather()
        out = Path(directory) if directory is not None else self.spec.file.parent / self.spec.tables.report.path
        return write_report(results, self.analyses(results), out)
