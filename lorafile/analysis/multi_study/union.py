"""Several studies on one state as one set of tables: every configuration once, under each name that it has."""

from dataclasses import dataclass, replace

from lorafile.analysis.common.scores import split_of
from lorafile.analysis.multi_study.comparable import identity, measured_on, predictions, settings_of
from lorafile.analysis.multi_study.tables import TABLES, MemberStudy, united
from lorafile.engine.metrics.registry import more_is_better, unit_of
from lorafile.errors import LoraError
from lorafile.results.results import Results
from lorafile.specs import Configuration


@dataclass(frozen=True, eq=False)
class UnionEntry:
    """One configuration of the union.

    :ivar name: `study: configuration`, of the first study that has it; `all_names`: of every study
    :ivar sources: (number of the study, its name there)
    :ivar settings: dotted setting -> its identity, where it applies; equal for equal values
    :ivar measured_on: what its figures depend on beside its settings: only equal ones are compared
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
        found: dict[str, list[UnionEntry]] = {}
        for entry in self.entries:
            found.setdefault(str(sorted(entry.measured_on.items())), []).append(entry)
        return sorted(found.values(), key=len, reverse=True)

    def of(self, entries: list[UnionEntry]) -> Results:
        """Return the results of some configurations alone."""
        known = {entry.name for entry in entries}
        tables = {name: getattr(self.results, name) for name in ("configurations", "runs", "profiles", *TABLES)}
        kept = {name: table[table["configuration"].isin(known)] for name, table in tables.items() if len(table)}
        return replace(self.results, **{name: table.reset_index(drop=True) for name, table in kept.items()})


def unite(members: list[MemberStudy]) -> StudyUnion:
    """Return several studies as one.

    :raises LoraError: where they have no metric in common
    """
    metrics = _metrics(members)
    primary = next((name for name in metrics if name == members[0].results.primary), metrics[0])
    results = united(members, _named(members), metrics, primary)
    split = split_of(results, primary)
    entries = []
    for name, sources in _named(members).items():
        number, own = sources[0]
        graph, c = members[number].graph, _configuration(members[number], own)
        settings = {setting: value for setting, (value, _) in settings_of(graph, c).items()}
        names = tuple(f"{members[at].name}: {other}" for at, other in sources)
        entries.append(UnionEntry(name, names, tuple(sources), settings, measured_on(graph, c, primary, split)))
    return StudyUnion(tuple(member.name for member in members), results, tuple(entries))


def _named(members: list[MemberStudy]) -> dict[str, list[tuple[int, str]]]:
    """Return name -> (study, configuration) for each that it has in any study; equal keys have one name."""
    found: dict[str, list[tuple[int, str]]] = {}
    first: dict[str, list[tuple[str, dict[tuple[str, str], str]]]] = {}
    for number, member in enumerate(members):
        for c in member.graph.spec.configurations:
            mine = predictions(member.graph, c)
            alike = first.setdefault(identity(member.graph, c), [])
            name = next((known for known, theirs in alike if _agree(mine, theirs)), None)
            if name is None:
                name = f"{member.name}: {c.name}"
                alike.append((name, mine))
            found.setdefault(name, []).append((number, c.name))
    return found


def _agree(mine: dict[tuple[str, str], str], theirs: dict[tuple[str, str], str]) -> bool:
    """Return whether two configurations were judged alike wherever both were judged."""
    both = mine.keys() & theirs.keys()
    return bool(both) and all(mine[place] == theirs[place] for place in both)


def _configuration(member: MemberStudy, name: str) -> Configuration:
    return next(c for c in member.graph.spec.configurations if c.name == name)


def _metrics(members: list[MemberStudy]) -> list[str]:
    """Return the metrics that every study has, and that mean the same in all of them, in the first one's order."""
    found = []
    for metric in members[0].results.metrics:
        theirs = [next((name for name in one.results.metrics if name == metric), None) for one in members]
        files = {own.digest if (own := one.graph.own.get(metric)) else None for one in members}
        meaning = {(unit_of(name), more_is_better(name)) for name in theirs if name is not None}
        if None not in theirs and len(meaning) == len(files) == 1:
            found.append(metric)
    if not found:
        told = "; ".join(f"{member.name}: {', '.join(member.results.metrics)}" for member in members)
        raise LoraError(
            f"The studies have no metric in common, so no table can hold both ({told}). Add one to evaluate.metrics of "
            "each: what is predicted already is only scored."
        )
    return found
