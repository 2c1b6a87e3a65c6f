"""Several studies on one state as one set of tables: every configuration once, under each name that it has.

Names are distinguished by their study; runs and environments that several studies have stand there once.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from lorafile.analysis.common.scores import FIXED, split_of
from lorafile.analysis.multi_study.comparable import TUNED, identity, measured_on, predictions, settings_of
from lorafile.engine.metrics.registry import more_is_better, unit_of
from lorafile.errors import LoraError
from lorafile.graph.graph import Graph
from lorafile.results.results import OnDemand, Results, grouped, missing, row_dicts
from lorafile.specs import Configuration
from lorafile.specs.tables.analysis import VerdictTable
from lorafile.units import listing

TABLES = (
    *("curves", "validations", "inspections", "inspected_modules", "representations", "truncations", "merges"),
    "repeats",
)
Named = dict[str, list[tuple[int, str]]]  # name in the union -> (number of the study, name there)
Settings = dict[str, tuple[str, Any]]  # setting -> (its identity, its value as a reader knows it)


@dataclass(frozen=True)
class MemberStudy:
    """One study: how the page calls it, its nodes, and what it has found."""

    name: str
    graph: Graph
    results: Results

    def configuration(self, name: str) -> Configuration:
        """Return a configuration by its name in the study."""
        return next(c for c in self.graph.spec.configurations if c.name == name)


@dataclass(frozen=True, eq=False)
class UnionEntry:
    """One configuration of the union.

    :ivar name: `study: configuration`, of the first study that has it; `all_names`: of every study
    :ivar sources: (number of the study, its name there)
    :ivar settings: dotted setting -> its identity, where it applies; equal for equal values
    :ivar measured_on: what its figures depend on besides its settings: only equal ones are compared
    """

    name: str
    all_names: tuple[str, ...]
    sources: tuple[tuple[int, str], ...]
    settings: dict[str, str]
    measured_on: dict[str, str]

    @property
    def studies(self) -> frozenset[int]:
        """The numbers of the studies that have it."""
        return frozenset(number for number, _ in self.sources)


@dataclass(frozen=True, eq=False)
class StudyUnion:
    """Several studies' results as one, and what of it may be compared with what."""

    studies: tuple[str, ...]
    results: Results
    entries: tuple[UnionEntry, ...]

    def groups(self) -> list[list[UnionEntry]]:
        """Return the configurations whose figures were measured on the same, largest group first."""
        groups = grouped((str(sorted(entry.measured_on.items())), entry) for entry in self.entries)
        return sorted(groups.values(), key=len, reverse=True)

    def of(self, entries: list[UnionEntry]) -> Results:
        """Return the results of some configurations alone."""
        names = {entry.name for entry in entries}
        tables = {name: getattr(self.results, name) for name in ("configurations", "runs", "profiles", *TABLES)}
        kept = {name: table[table["configuration"].isin(names)] for name, table in tables.items() if len(table)}
        return replace(self.results, **{name: table.reset_index(drop=True) for name, table in kept.items()})


def unite(members: list[MemberStudy]) -> StudyUnion:
    """Return several studies as one.

    :raises LoraError: where they have no metric in common
    """
    metrics = _metrics(members)
    primary = next((name for name in metrics if name == members[0].results.primary), metrics[0])
    named = _named(members)
    results = united(members, named, metrics, primary)
    split = split_of(results, primary)
    entries = []
    for name, sources in named.items():
        number, own = sources[0]
        graph, c = members[number].graph, members[number].configuration(own)
        settings = {setting: value for setting, (value, _) in settings_of(graph, c).items()}
        names = tuple(f"{members[at].name}: {other}" for at, other in sources)
        entries.append(UnionEntry(name, names, tuple(sources), settings, measured_on(graph, c, primary, split)))
    return StudyUnion(tuple(member.name for member in members), results, tuple(entries))


def _named(members: list[MemberStudy]) -> Named:
    """Return each configuration that any study has under its name in the union; equal keys have one name."""
    named: Named = {}
    alike: dict[str, list[tuple[str, dict[tuple[str, str], str]]]] = {}
    for number, member in enumerate(members):
        for c in member.graph.spec.configurations:
            judged = predictions(member.graph, c)
            same = alike.setdefault(identity(member.graph, c), [])
            name = next((other for other, theirs in same if _agree(judged, theirs)), None)
            if name is None:
                name = f"{member.name}: {c.name}"
                same.append((name, judged))
            named.setdefault(name, []).append((number, c.name))
    return named


def _agree(first: dict[tuple[str, str], str], second: dict[tuple[str, str], str]) -> bool:
    """Return whether two configurations were judged alike wherever both were judged."""
    both = first.keys() & second.keys()
    return bool(both) and all(first[place] == second[place] for place in both)


def _metrics(members: list[MemberStudy]) -> list[str]:
    """Return the metrics that every study has, and that mean the same in all of them, in the first one's order."""
    shared = []
    for metric in members[0].results.metrics:
        theirs = [next((name for name in one.results.metrics if name == metric), None) for one in members]
        files = {own.digest if (own := one.graph.own.get(metric)) else None for one in members}
        meaning = {(unit_of(name), more_is_better(name)) for name in theirs if name is not None}
        if None not in theirs and len(meaning) == len(files) == 1:
            shared.append(metric)
    if not shared:
        names = "; ".join(f"{member.name}: {', '.join(member.results.metrics)}" for member in members)
        raise LoraError(
            f"The studies have no metric in common, so one table cannot show both ({names}). Add a common metric to "
            "evaluate.metrics in each spec: existing predictions are reused and only scored."
        )
    return shared


def united(members: list[MemberStudy], named: Named, metrics: list[str], primary: str) -> Results:
    """Return one set of tables for several studies."""
    environments, moved = _environments(members)
    runs = _runs(members, named, moved)
    every = [member.results for member in members]
    titles = listing([member.name for member in members], len(members))
    seeds = tuple(dict.fromkeys(seed for results in every for seed in results.seeds))
    tables: dict[str, Any] = {name: _rows(members, named, name) for name in TABLES}
    mappings: dict[str, Any] = {name: _renamed(members, named, name) for name in ("outcomes", "details", "samples")}
    verdict, warnings = _verdict(members)
    lines = grouped((line, member.name) for member in members for line in member.results.warnings)
    warnings += [f"{', '.join(names)}: {line}" if len(names) < len(members) else line for line, names in lines.items()]
    return Results(
        study=titles,
        question=" ".join(f"{one.name}: {one.results.question}" for one in members if one.results.question),
        title=f"{titles}, side by side",
        primary=primary,
        metrics=tuple(metrics),
        seeds=seeds,
        configurations=pd.DataFrame(_configurations(members, named, runs)),
        runs=pd.DataFrame(runs),
        profiles=_profiles(members, named, moved),
        environments=environments,
        data=_either([results.data for results in every], members),
        model=_either([results.model for results in every], members),
        warnings=warnings,
        card=list(_each(card for results in every for card in results.card)),
        published=_each(figure for results in every for figure in results.published),
        topics=_each(topic for results in every for topic in results.topics),
        verdict=verdict,
        looks=(seeds,),
        studies=len(members),
        **tables,
        **mappings,
    )


def _environments(members: list[MemberStudy]) -> tuple[list[dict[str, Any]], list[dict[int, int]]]:
    """Return every environment once, and for each study the new places of its own ones."""
    environments = list(_each(environment for member in members for environment in member.results.environments))
    places = [
        {number: environments.index(environment) for number, environment in enumerate(member.results.environments)}
        for member in members
    ]
    return environments, places


def _moved(
    members: list[MemberStudy], named: Named, table: str, moved: list[dict[int, int]]
) -> Iterator[tuple[str, MemberStudy, dict[str, Any]]]:
    """Yield the rows of a table with their names in the union and their studies, at the environments of the union."""
    rows = [grouped((row["configuration"], row) for row in row_dicts(getattr(one.results, table))) for one in members]
    for name, sources in named.items():
        for number, own in sources:
            for row in rows[number].get(own, []):
                at = {key: row[key] for key in ("environment", "predicted_in") if key in row}
                places = {key: moved[number][int(place)] if pd.notna(place) else None for key, place in at.items()}
                yield name, members[number], row | places | {"configuration": name}


def _runs(members: list[MemberStudy], named: Named, moved: list[dict[int, int]]) -> list[dict[str, Any]]:
    """Return a row for each configuration and seed; what several studies have is one row."""
    runs: dict[tuple[str, Any], dict[str, Any]] = {}
    for name, member, row in _moved(members, named, "runs", moved):
        seed = None if pd.isna(row["seed"]) else int(row["seed"])
        run = row | {"sweep": _sweep(member, row["sweep"]), "seed": seed}
        earlier = runs.get((name, seed), {})
        better = bool(earlier) and earlier["outcome"] != "done" and run["outcome"] == "done"
        runs[name, seed] = first_known(run, earlier) if better else first_known(earlier, run)
    return list(runs.values())


def _sweep(member: MemberStudy, sweep: str) -> str:
    return f"{member.name}: {sweep}" if sweep else member.name


def _configurations(members: list[MemberStudy], named: Named, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each configuration, with every setting in which any two of the union differ."""
    settings: dict[str, Settings] = {}
    rows: list[dict[str, Any]] = []
    tables = [{row["configuration"]: row for row in row_dicts(one.results.configurations)} for one in members]
    ended = grouped((run["configuration"], run["outcome"]) for run in runs)
    for name, sources in named.items():
        number, own = sources[0]
        member, row, outcomes = members[number], tables[number][own], ended.get(name, [])
        settings[name] = settings_of(member.graph, member.configuration(own))
        counts = ", ".join(f"{outcome} {outcomes.count(outcome)}" for outcome in dict.fromkeys(outcomes))
        about = {key: row.get(key) for key in FIXED if key in row} | {"method": row["method"]}
        about |= {"configuration": name, "sweep": _sweep(member, row["sweep"]), "aliases": _aliases(members, sources)}
        rows.append(about | {"replicates": len(outcomes), "done": outcomes.count("done"), "outcomes": counts})
    varied = _varied(settings)
    shown: dict[tuple[str, str], Any] = {}  # equal values read alike, whichever way a spec writes them
    for row in rows:
        for setting in varied:
            value, text = settings[row["configuration"]].get(setting, ("", None))
            row[setting] = text if value == TUNED else shown.setdefault((setting, value), text)
    return rows


def _aliases(members: list[MemberStudy], sources: list[tuple[int, str]]) -> list[str]:
    """Return the other names of a configuration: in its own study, and in each other one."""
    names = []
    for number, own in sources:
        table = members[number].results.configurations
        others = next(iter(table[table["configuration"] == own]["aliases"]))
        names += [f"{members[number].name}: {name}" for name in (own, *others)]
    return list(dict.fromkeys(names[1:]))


def _varied(settings: dict[str, Settings]) -> list[str]:
    """Return the settings in which two configurations that have them differ, or that only some of a method have."""
    names = dict.fromkeys(name for values in settings.values() for name in values)
    methods = grouped((str(values["method"][1]), values) for values in settings.values())

    def varies(name: str) -> bool:
        values = {own[name][0] for own in settings.values() if name in own}
        alike = all(len({own.get(name, ("",))[0] for own in group}) == 1 for group in methods.values())
        return len(values) > 1 or TUNED in values or not alike

    return [name for name in names if name != "method" and varies(name)]


def _profiles(members: list[MemberStudy], named: Named, moved: list[dict[int, int]]) -> pd.DataFrame:
    """Return a row for each profiled configuration: of a shared one the first study's."""
    rows: dict[str, dict[str, Any]] = {}
    for name, _, row in _moved(members, named, "profiles", moved):
        rows.setdefault(name, row)
    return pd.DataFrame(rows.values())


def _rows(members: list[MemberStudy], named: Named, table: str) -> pd.DataFrame:
    """Return a table's rows under the names of the union; those of a shared configuration come from every study."""
    parts = []
    for name, sources in named.items():
        for number, own in sources:
            frame = getattr(members[number].results, table)
            if len(frame):
                parts.append(frame[frame["configuration"] == own].assign(configuration=name, study=number))
    if not parts:
        return pd.DataFrame(columns=members[0].results.curves.columns if table == "curves" else None)
    whole: pd.DataFrame = pd.concat(parts, ignore_index=True)
    first = whole.groupby(["configuration", "seed"], dropna=False)["study"].transform("min")
    kept: pd.DataFrame = whole[whole["study"] == first].drop(columns="study").reset_index(drop=True)
    return kept


def _either(tables: list[dict[str, Any]], members: list[MemberStudy]) -> dict[str, Any]:
    """Return what all studies share, or each one's own under the names of those that have it."""
    if all(table == tables[0] for table in tables):
        return tables[0]
    alike = grouped((str(table), number) for number, table in enumerate(tables))
    return {listing([members[at].name for at in same], len(same)): tables[same[0]] for same in alike.values()}


def _verdict(members: list[MemberStudy]) -> tuple[VerdictTable, list[str]]:
    """Return what counts as a difference for all of them: the smallest alpha, and a margin where they agree."""
    tables = [member.results.verdict for member in members]
    strictest = min(tables, key=lambda table: table.alpha)
    if len({str(table.margin) for table in tables}) == 1:
        return strictest, []
    margins = ", ".join(f"{member.name}: {member.results.verdict.margin or 'none'}" for member in members)
    line = f"The studies declare different margins ({margins}), so comparisons across them have none."
    return strictest.model_copy(update={"margin": None}), [line]


def _each(items: Iterable[Any]) -> tuple[Any, ...]:
    """Return each item once, in its order."""
    each: list[Any] = []
    for item in items:
        each += [] if item in each else [item]
    return tuple(each)


def _renamed(members: list[MemberStudy], named: Named, field: str) -> OnDemand:
    """Return a mapping of the results whose keys begin with a configuration, under the names of the union.

    Values are read on demand.
    """
    sources: dict[Any, tuple[Mapping[Any, Any], Any]] = {}
    for name, owners in named.items():
        for number, own in owners:
            mapping: Mapping[Any, Any] = getattr(members[number].results, field)
            for key in mapping:
                if key[0] == own:
                    sources.setdefault((name, *key[1:]), (mapping, key))
    return OnDemand(sources, lambda source: source[0][source[1]])


def first_known(*rows: dict[str, Any]) -> dict[str, Any]:
    """Return the first known value of each column; where no run has ended, later ones may know more."""
    values: dict[str, Any] = {}
    for row in rows:
        values |= {name: value for name, value in row.items() if name not in values or missing(values[name])}
    return values
