"""What a report is made from: one study, or several specs on one state, combined on one page."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from lorafile.analysis.multi_study.union import MemberStudy, StudyUnion, unite
from lorafile.errors import LoraError
from lorafile.results.gather import gather
from lorafile.state import State

if TYPE_CHECKING:
    from lorafile.analysis.common.base import Analysis
    from lorafile.results.results import Results
    from lorafile.study.study import Study


def contents(studies: "list[Study]") -> "tuple[Results, list[Analysis]]":
    """Return what a report is made from: of one study its own analyses, of several the page that unites them."""
    if len(studies) == 1:
        results = studies[0].gather()
        return results, studies[0].analyses(results)
    union, analyses = side_by_side(studies)
    return union.results, analyses


def directory_of(studies: "list[Study]") -> Path:
    """Return where a report goes when no place is given."""
    spec = studies[0].spec
    return spec.file.parent / spec.tables.report.path if len(studies) == 1 else Path("report")


def side_by_side(studies: "list[Study]") -> "tuple[StudyUnion, list[Analysis]]":
    """Return several studies as one set of tables, and the analyses of a page about them.

    :raises LoraError: where a spec is named twice, or the studies have no metric in common
    """
    from lorafile.analysis.multi_study.across import across

    files = [study.spec.file.resolve() for study in studies]
    if twice := [file for file, count in Counter(files).items() if count > 1]:
        raise LoraError(f"{twice[0]} is given twice; a study cannot be compared with itself. Pass each spec once.")
    names = _names(studies)

    def read(state: State) -> list[MemberStudy]:
        plans = [study.plan() for study in studies]
        return [MemberStudy(name, plan.graph, gather(plan, state)) for name, plan in zip(names, plans, strict=True)]

    members = State.snapshot(studies[0].state, read)
    union = unite(members)
    waived = [{setting for table in member.results.declared for setting in table.waive} for member in members]
    return union, across(union, tuple(sorted(set.intersection(*waived))))


def _names(studies: "list[Study]") -> list[str]:
    """Return each study's name, with its file's where two have the same."""
    names = [study.spec.name for study in studies]
    if len(set(names)) == len(names):
        return names
    files = [study.spec.file for study in studies]
    stems = [f"{name} ({file.name})" for name, file in zip(names, files, strict=True)]
    if len(set(stems)) == len(stems):
        return stems
    pairs = enumerate(zip(names, files, strict=True), 1)
    return [f"{name} ({Path(file.parent.name) / file.name}, {number})" for number, (name, file) in pairs]
