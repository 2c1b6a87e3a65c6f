"""The tables of several studies as one: names told apart, runs that both have once, environments each once."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lorafile.analysis.common.scores import FIXED
from lorafile.analysis.multi_study.comparable import TUNED, settings_of
from lorafile.graph.graph import Graph
from lorafile.results.results import Results, missing
from lorafile.specs.tables.analysis import VerdictTable
from lorafile.units import listing

TABLES = ("curves", "inspections", "inspected_modules", "representations", "truncations", "merges", "repeats")
Named = dict[str, list[tuple[int, str]]]


@dataclass(frozen=True)
class MemberStudy:
    """One study: how the page calls it, its nodes, and what it has found."""

    name: str
    graph: Graph
    results: Results


def united(members: list[MemberStudy], named: Named, metrics: list[str], primary: str) -> Results:
    """Return one set of tables for several studies.

    :param named: name in the union -> (number of the study, name there)
    """
    environments, moved = _environments(members)
    runs = _runs(members, named, moved)
    titles = listing([member.name for member in members], len(members))
    seeds = tuple(dict.fromkeys(seed for member in members for seed in member.results.seeds))
    tables: dict[str, Any] = {name: _rows(members, named, name) for name in TABLES}
    verdict, told = _verdict(members)
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
        data=_either([one.results.data for one in members], members),
        model=_either([one.results.model for one in members], members),
        warnings=[*told, *_warnings(members)],
        card=list(_each(card for one in members for card in one.results.card)),
        outcomes=Renamed(members, named, "outcomes"),
        details=Renamed(members, named, "details"),
        samples=Renamed(members, named, "samples"),
        published=_each(figure for one in members for figure in one.results.published),
        topics=_each(topic for one in members for topic in one.results.topics),
        verdict=verdict,
        looks=(seeds,),
        **tables,
    )


def _environments(members: list[MemberStudy]) -> tuple[list[dict[str, Any]], list[dict[int, int]]]:
    """Return every environment once, and for each study where its own ones went."""
    found: list[dict[str, Any]] = []
    moved = []
    for member in members:
        places = {}
        for number, environment in enumerate(member.results.environments):
            if environment not in found:
                found.append(environment)
            places[number] = found.index(environment)
        moved.append(places)
    return found, moved


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _moved(row: dict[str, Any], places: dict[int, int]) -> dict[str, Any]:
    known = {name: row[name] for name in ("environment", "predicted_in") if name in row}
    return row | {name: places[int(at)] if pd.notna(at) else None for name, at in known.items()}


def _runs(members: list[MemberStudy], named: Named, moved: list[dict[int, int]]) -> list[dict[str, Any]]:
    """Return a row for each configuration and seed; what both studies have is one row."""
    found: dict[tuple[str, Any], dict[str, Any]] = {}
    tables = [_records(member.results.runs) for member in members]
    for name, sources in named.items():
        for number, own in sources:
            for row in (row for row in tables[number] if row["configuration"] == own):
                seed = None if pd.isna(row["seed"]) else int(row["seed"])
                mine = _moved(row, moved[number])
                mine |= {"configuration": name, "sweep": _sweep(members[number], row["sweep"]), "seed": seed}
                known = found.get((name, seed))
                better = known is not None and known["outcome"] != "done" and mine["outcome"] == "done"
                parts = [mine, known] if better else [known, mine]
                found[name, seed] = first_known(*(part for part in parts if part is not None))
    return list(found.values())


def _sweep(member: MemberStudy, sweep: str) -> str:
    return f"{member.name}: {sweep}" if sweep else member.name


def _configurations(members: list[MemberStudy], named: Named, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each configuration, with every setting in which any two of the union differ."""
    settings: dict[str, dict[str, tuple[str, Any]]] = {}
    rows: list[dict[str, Any]] = []
    for name, sources in named.items():
        number, own = sources[0]
        member = members[number]
        c = next(c for c in member.graph.spec.configurations if c.name == own)
        settings[name] = settings_of(member.graph, c)
        row = next(row for row in _records(member.results.configurations) if row["configuration"] == own)
        mine = [run["outcome"] for run in runs if run["configuration"] == name]
        counts = ", ".join(f"{outcome} {mine.count(outcome)}" for outcome in dict.fromkeys(mine))
        about = {key: row.get(key) for key in FIXED if key in row} | {"method": row["method"]}
        about |= {"configuration": name, "sweep": _sweep(member, row["sweep"]), "aliases": _aliases(members, sources)}
        rows.append(about | {"replicates": len(mine), "done": mine.count("done"), "outcomes": counts})
    varied = _varied(settings)
    shown: dict[tuple[str, str], Any] = {}  # equal values read alike, whichever way a spec writes them
    for row in rows:
        for setting in varied:
            value, told = settings[row["configuration"]].get(setting, ("", None))
            row[setting] = told if value == TUNED else shown.setdefault((setting, value), told)
    return rows


def _aliases(members: list[MemberStudy], sources: list[tuple[int, str]]) -> list[str]:
    """Return the other names of a configuration: in its own study, and in each other one."""
    found = []
    for number, own in sources:
        table = members[number].results.configurations
        others = next(iter(table[table["configuration"] == own]["aliases"]))
        found += [f"{members[number].name}: {name}" for name in (own, *others)]
    return list(dict.fromkeys(found[1:]))


def _varied(settings: dict[str, dict[str, tuple[str, Any]]]) -> list[str]:
    """Return the settings in which two configurations that have them differ, or that only some of a method have."""
    names = dict.fromkeys(name for found in settings.values() for name in found)
    methods: dict[str, list[dict[str, tuple[str, Any]]]] = {}
    for found in settings.values():
        methods.setdefault(str(found["method"][1]), []).append(found)
    alike = {
        name: all(len({one.get(name, ("",))[0] for one in group}) == 1 for group in methods.values()) for name in names
    }
    across = {name: len({one[name][0] for one in settings.values() if name in one}) > 1 for name in names}
    tuned = {name: any(one.get(name, ("",))[0] == TUNED for one in settings.values()) for name in names}
    return [name for name in names if name != "method" and (across[name] or tuned[name] or not alike[name])]


def _profiles(members: list[MemberStudy], named: Named, moved: list[dict[int, int]]) -> pd.DataFrame:
    """Return a row for each profiled configuration: of a shared one the first study's."""
    rows: dict[str, dict[str, Any]] = {}
    tables = [_records(member.results.profiles) for member in members]
    for name, sources in named.items():
        for number, own in sources:
            for row in (row for row in tables[number] if row["configuration"] == own):
                rows.setdefault(name, _moved(row, moved[number]) | {"configuration": name})
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
    alike: dict[str, list[int]] = {}
    for number, table in enumerate(tables):
        alike.setdefault(str(table), []).append(number)
    return {listing([members[at].name for at in found], len(found)): tables[found[0]] for found in alike.values()}


def _verdict(members: list[MemberStudy]) -> tuple[VerdictTable, list[str]]:
    """Return what counts as a difference for all of them: the smallest alpha, and a margin where they agree."""
    tables = [member.results.verdict for member in members]
    strictest = min(tables, key=lambda table: table.alpha)
    if len({str(table.margin) for table in tables}) == 1:
        return strictest, []
    told = ", ".join(f"{member.name}: {member.results.verdict.margin or 'none'}" for member in members)
    line = f"The studies declare different margins ({told}), so no comparison across them has one."
    return strictest.model_copy(update={"margin": None}), [line]


def _warnings(members: list[MemberStudy]) -> list[str]:
    found: dict[str, list[str]] = {}
    for member in members:
        for line in member.results.warnings:
            found.setdefault(line, []).append(member.name)
    return [line if len(names) == len(members) else f"{', '.join(names)}: {line}" for line, names in found.items()]


def _each(items: Iterable[Any]) -> tuple[Any, ...]:
    """Return each item once, in its order."""
    found: list[Any] = []
    for item in items:
        found += [] if item in found else [item]
    return tuple(found)


class Renamed(Mapping[Any, Any]):
    """What several studies know of their configurations, under the names of their union; read on demand."""

    def __init__(self, members: list[MemberStudy], named: dict[str, list[tuple[int, str]]], field: str) -> None:
        """Take a mapping of the results whose keys are tuples that begin with a configuration."""
        self._found: dict[Any, tuple[Mapping[Any, Any], Any]] = {}
        for name, sources in named.items():
            for number, own in sources:
                known: Mapping[Any, Any] = getattr(members[number].results, field)
                for key in known:
                    if key[0] == own:
                        self._found.setdefault((name, *key[1:]), (known, key))

    def __getitem__(self, key: Any) -> Any:
        known, own = self._found[key]
        return known[own]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def first_known(*rows: dict[str, Any]) -> dict[str, Any]:
    """Return the first known value of each column; where no run has ended, later ones may know more."""
    found: dict[str, Any] = {}
    for row in rows:
        found |= {name: value for name, value in row.items() if name not in found or missing(found[name])}
    return found
