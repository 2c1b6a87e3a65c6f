"""What `lora report` does: write the report and the record of its claims, print its figures, or check its claims."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lorafile.analysis.claims.claims import as_json as claims_as_json
from lorafile.analysis.claims.claims import check, record
from lorafile.cli.terminal import echo
from lorafile.errors import ClaimError
from lorafile.files.atomic import write_text
from lorafile.report.writer import figures, write_report
from lorafile.results.claims_file import claims_file, claims_text
from lorafile.study.multi_study import contents, directory_of
from lorafile.study.report_watch import watch

if TYPE_CHECKING:
    from lorafile.analysis.common.base import Analysis
    from lorafile.study.study import Study


def write(studies: "list[Study]", out: Path | None = None) -> int:
    """Write the report, and beside the spec what its claims rest on; 1 where an analysis of one's own failed.

    :param studies: several make one page that puts them side by side
    """
    results, found = contents(studies)
    written = write_report(results, found, out or directory_of(studies))
    checks = check(results)
    if checks:
        file = claims_file(studies[0].spec.file)
        write_text(file, claims_text(record(checks)))
        written.append(file)
    for path in written:
        echo(f"Wrote {path}")
    for one in checks:
        if one.verdict != "supported" or one.changed:
            echo(one.line, err=True)
    return _failures(found)


def follow(studies: "list[Study]", out: Path | None = None) -> int:
    """Write the page while somebody applies, and the whole report at the end.

    Ctrl-C is the way to leave a study that is not done: the report is written as things stand, and the exit code is
    that of any report. A second one breaks off.
    """
    directory = out or directory_of(studies)
    echo(f"Watching; open {directory / 'report.html'}. Ctrl-C ends it.")
    done = watch(studies, directory, echo)
    if not done:
        echo("Stopped watching; the report is written as things stand.")
    return write(studies, out)


def print_figures(studies: "list[Study]") -> int:
    """Print every figure of the report as JSON; 1 where an analysis of one's own failed."""
    results, found = contents(studies)
    echo(json.dumps(figures(results, found), indent=2, allow_nan=False))
    return _failures(found)


def check_claims(study: "Study", as_json: bool = False) -> int:
    """Print a line for each claim, and write nothing.

    :raises ClaimError: when one of them does not hold, or not for the runs that it was reported from
    """
    checks = check(study.gather())
    if as_json:
        echo(json.dumps({"format_version": "1.0", "claims": claims_as_json(checks)}, indent=2))
    else:
        for one in checks:
            echo(one.line)
    if not checks:
        echo(f"{study.spec.file} states no claim; a claim is a [[claim]] block.", err=True)
    broken = [one for one in checks if one.status != "supported"]
    if broken:
        verb = "does" if len(broken) == 1 else "do"
        raise ClaimError(f"{len(broken)} of {len(checks)} claims of {study.spec.file} {verb} not stand as stated.")
    return 0


def _failures(found: "list[Analysis]") -> int:
    failed = [analysis for analysis in found if analysis.failed]
    for analysis in failed:
        echo(f"{analysis.title}: {analysis.sentences[0]}", err=True)
    return 1 if failed else 0
