"""What else differs: for each comparison, what was set beside its factor, and what follows from it."""

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.compare.verdicts import Verdict, family
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import listing, plural

_KINDS = {
    "confound": "set beside the factor: not compared",
    "waived": "set beside the factor: waived",
    "consequence": "follows from the factor",
}


def analyse(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return what differs in each comparison of the study's family; nothing where there are no comparisons."""
    found = family(results).verdicts
    if not found:
        return []
    return [
        Analysis(
            kind="confounds",
            name="confounds",
            title="What else differs",
            question="Does anything but the setting in question differ between what is compared?",
            sentences=_sentences(found),
            tables=_table_of(found),
            limits=tuple(_set_beside(found)),
        )
    ]


def _set_beside(found: tuple[Verdict, ...]) -> list[str]:
    """Say what was set beside the factor: what was not compared for it, and what was waived."""
    lines = []
    for kind, start in (("confound", "Not compared"), ("waived", "Compared although something else differs")):
        told = [(verdict, [row.text() for row in verdict.differing if row.kind == kind]) for verdict in found]
        lines += [f"{start}: {_pair(verdict)}: {listing(texts)}." for verdict, texts in told if texts]
    return lines


def _sentences(found: tuple[Verdict, ...]) -> list[str]:
    lines = _set_beside(found)
    following = [verdict for verdict in found if any(row.kind == "consequence" for row in verdict.differing)]
    settings = dict.fromkeys(row.setting for v in following for row in v.differing if row.kind == "consequence")
    if following:
        lines.append(
            f"In {len(following)} of {plural(len(found), 'comparison')} something follows from the factor and differs "
            f"with it: {listing(settings)}; the verdicts are on both together."
        )
    return lines or [f"Nothing but the factor differs in any of {plural(len(found), 'comparison')}."]


def _pair(verdict: Verdict) -> str:
    return f"{verdict.pair.one} and {verdict.pair.other}, along {_factor(verdict)}"


def _factor(verdict: Verdict) -> str:
    return verdict.pair.factor or "all settings"


def _table_of(found: tuple[Verdict, ...]) -> tuple[Table, ...]:
    rows = [
        {
            "configuration": verdict.pair.one,
            "against": verdict.pair.other,
            "factor": _factor(verdict),
            "setting": row.setting,
            "one": row.one,
            "other": row.other,
            "kind": _KINDS[row.kind],
        }
        for verdict in found
        for row in verdict.differing
    ]
    titles = {"configuration": "configuration", "against": "held against", "factor": "compared along"}
    titles |= {"setting": "what else differs", "one": "in the first", "other": "in the second", "kind": "how"}
    columns = tuple(Column(key, title) for key, title in titles.items())
    return (Table("Beside the factor", pd.DataFrame(rows), columns),) if rows else ()
