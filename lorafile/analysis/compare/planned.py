"""Which declared comparisons are confounded, as far as spec and state tell before anything is paid for."""

from dataclasses import dataclass

from lorafile.analysis.compare.confounders import UNPAIRED, Difference, differing
from lorafile.analysis.compare.pairs import Pair, pairs
from lorafile.analysis.compare.verdicts import tables
from lorafile.results.results import Results
from lorafile.units import and_more, listing, plural

_SHOWN = 2  # comparisons of one kind that are named


@dataclass(frozen=True)
class Confounded:
    """A declared comparison that will be refused.

    :ivar by: what differs in it apart from its factor; empty where both are not judged on the same examples, which no
        waiver allows
    """

    pair: Pair
    by: tuple[Difference, ...] = ()

    @property
    def settings(self) -> tuple[str, ...]:
        """What would have to be waived."""
        return tuple(difference.setting.partition(" ")[0] for difference in self.by)


def confounded(results: Results) -> list[Confounded]:
    """Return the declared comparisons, on whatever metric, that will be refused."""
    found: dict[tuple[str, frozenset[str]], Confounded] = {}
    for table in tables(results):
        for pair in pairs(results, table):
            differences = differing(results, *pair.names, pair.factor, (*pair.waive, *results.verdict.waive))
            by = tuple(row for row in differences if row.kind == "confound")
            unpaired = {pair.factor, *(row.setting for row in differences)} & {*UNPAIRED}
            if by or unpaired:
                found.setdefault((pair.factor, pair.unordered), Confounded(pair, () if unpaired else by))
    return list(found.values())


def confound_lines(rows: list[Confounded]) -> list[str]:
    """Return a sentence for the comparisons of each factor that are refused for the same reason."""
    groups: dict[tuple[str, tuple[str, ...]], list[Confounded]] = {}
    for row in rows:
        groups.setdefault((row.pair.factor, row.settings), []).append(row)
    return [_line(factor, settings, alike) for (factor, settings), alike in groups.items()]


def _line(factor: str, settings: tuple[str, ...], alike: list[Confounded]) -> str:
    along = f" along {factor}" if factor else ""
    why, remedy = "they are not evaluated on the same examples", "Use the same data for both."
    if settings:
        why = f"{listing(settings)} also {'differs' if len(settings) == 1 else 'differ'}"
        waived = ", ".join(f'"{setting}"' for setting in settings)
        them = "it" if len(settings) == 1 else "them"
        remedy = f"Make {them} equal, or allow the difference with verdict.waive = [{waived}]."
    named = [_named(row) for row in alike[:_SHOWN]] + [and_more(len(alike), _SHOWN)] * (len(alike) > _SHOWN)
    return f"{plural(len(alike), 'comparison')}{along} will be refused because {why}: {'; '.join(named)}. {remedy}"


def _named(row: Confounded) -> str:
    values = ", ".join(difference.text() for difference in row.by)
    return f"{row.pair.one} against {row.pair.other}{f' ({values})' if values else ''}"
