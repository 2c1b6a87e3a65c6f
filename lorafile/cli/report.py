"""What `lora report` does: write the report and the record of its claims, print its figures, or check its claims."""

import contextlib
import json
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from lorafile.analysis.claims.claims import as_json as claims_as_json
from lorafile.analysis.claims.claims import check, record
from lorafile.analysis.common.display_names import in_words
from lorafile.analysis.overview.first_screen import first_screen
from lorafile.cli.terminal import echo, say
from lorafile.errors import ClaimError, LoraError
from lorafile.files.atomic import write_text
from lorafile.report.writer import figures, write_page, write_report
from lorafile.results.claims_file import claims_file, claims_text
from lorafile.state import State
from lorafile.state.remote import has_remote
from lorafile.study.multi_study import contents, directory_of
from lorafile.units import listing, plural

if TYPE_CHECKING:
    from lorafile.analysis.common.base import Analysis
    from lorafile.results.results import Results
    from lorafile.study.study import Study

_POLL_SECONDS = 2.0


_Stamp = tuple[tuple[str, int, int], ...]


def write(studies: "list[Study]", out: Path | None = None, unfinished: bool = False) -> int:
    """Write the report, and next to the spec what its claims rest on; 1 where a custom analysis failed.

    :param studies: several make one page that puts them side by side
    :param unfinished: write it although nothing is finished
    :raises LoraError: where nothing is finished; nothing is written then
    """
    results, analyses = contents(studies)
    if not unfinished and not _finished(results):
        command = f"lora apply {studies[0].spec.file}"
        raise LoraError(f"{results.study} has no finished results to report. Start with: {command}")
    written = write_report(results, analyses, out or directory_of(studies))
    checks, also = check(results), ""
    if checks:
        file = claims_file(studies[0].spec.file)
        write_text(file, claims_text(record(checks)))
        also = f", and {file}"
    first = first_screen(results, analyses)
    for line in first.sentences if first is not None else ():
        say(in_words(results, line))
    charts, tables = (sum(path.suffix == ending for path in written) for ending in (".svg", ".csv"))
    others = listing(["RESULTS.md", plural(charts, "chart"), plural(tables, "table")])
    say(f"Wrote {written[0]}, with {others} next to it{also}")
    for claim in checks:
        if claim.verdict != "supported" or claim.changed:
            say(claim.line, err=True)
    return _failures(analyses)


def _finished(results: "Results") -> bool:
    """Return whether anything has ended that a report can tell of: a run, or a profile."""
    ended = {"done", "diverged", "out-of-memory", "failed"} & {str(outcome) for outcome in results.runs["outcome"]}
    return bool(ended) or not results.profiles.empty


def follow(studies: "list[Study]", out: Path | None = None) -> int:
    """Write the page while an apply runs, and the whole report at the end.

    Ctrl-C is the way to leave a study that is not done: the report is written as things stand, and the exit code is
    that of any report. A second one breaks off.
    """
    directory = out or directory_of(studies)
    say(f"Watching. Open {directory / 'report.html'}; press Ctrl-C to stop.")
    if not _watch(studies, directory):
        say("Stopped watching. The report shows the current results.")
    return write(studies, out, unfinished=True)


def _watch(studies: "list[Study]", directory: Path) -> bool:
    """Write the page until nothing is left to do; return whether that came, and not Ctrl-C before it.

    Nothing is locked, so an apply does not wait for it. While the study is unfinished the page reloads itself.
    """

    def read(_: State) -> "tuple[int, tuple[Results, list[Analysis]]]":
        return sum(len(study.plan().work) for study in studies), contents(studies)

    seen: _Stamp | None = None
    try:
        while True:
            _refresh(studies)
            now = _stamp(studies)
            if now != seen:
                seen = now
                left, (results, analyses) = State.snapshot(studies[0].state, read)
                write_page(results, analyses, directory, live=left > 0)
                say(_progress_line(results, left))
                if not left:
                    return True
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        return False


def _refresh(studies: "list[Study]") -> None:
    """Take in what is new in the remotes of states that have one."""
    for directory in filter(has_remote, {study.state for study in studies}):
        from lorafile.state.remote.session import remote_of

        if remote := remote_of(directory):
            remote.refresh(only_news=True)


def _stamp(studies: "list[Study]") -> _Stamp:
    """Return what changes when an apply records something, or a run has come further: files with time and size."""
    states = dict.fromkeys(study.state for study in studies)
    files = [path for state in states for path in (state / "state.db", state / "state.db-wal")]
    files += [path for state in states for path in sorted((state / "running").glob("*/curve.jsonl"))]
    stamp = []
    for path in files:
        with contextlib.suppress(OSError):  # a run that ended a moment ago, or a state that is not there yet
            about = path.stat()
            stamp.append((str(path), about.st_mtime_ns, about.st_size))
    return tuple(stamp)


def _progress_line(results: "Results", left: int) -> str:
    """Return `14:03:21  12 of 18 runs done, 1 running, 5 missing; 34 nodes to go`."""
    ended = Counter(str(outcome) for outcome in results.runs["outcome"])
    others = [f"{count} {outcome}" for outcome, count in ended.items() if outcome != "done"]
    runs = ", ".join([f"{ended['done']} of {ended.total()} runs done", *others])
    rest = f"{plural(left, 'node')} to go" if left else "nothing left to do"
    return f"{time.strftime('%H:%M:%S')}  {runs}; {rest}"


def print_figures(studies: "list[Study]") -> int:
    """Print every figure of the report as JSON; 1 where a custom analysis failed."""
    results, analyses = contents(studies)
    echo(json.dumps(figures(results, analyses), indent=2, allow_nan=False))
    return _failures(analyses)


def check_claims(study: "Study", as_json: bool = False) -> int:
    """Print a line for each claim, and write nothing.

    :raises ClaimError: when one of them does not hold, or not for the runs that it was reported from
    """
    checks = check(study.gather())
    if as_json:
        echo(json.dumps({"format_version": "1.0", "claims": claims_as_json(checks)}, indent=2))
    else:
        for claim in checks:
            say(claim.line)
    if not checks:
        say(f"{study.spec.file} has no claims. Add one as a [[claim]] block.", err=True)
    broken = [claim for claim in checks if claim.status != "supported"]
    if broken:
        verb = "does" if len(broken) == 1 else "do"
        raise ClaimError(f"{len(broken)} of {len(checks)} claims of {study.spec.file} {verb} not hold as stated.")
    return 0


def _failures(analyses: "list[Analysis]") -> int:
    failed = [analysis for analysis in analyses if analysis.failed]
    for analysis in failed:
        say(f"{analysis.title}: {analysis.sentences[0]}", err=True)
    return 1 if failed else 0
