"""`lora report --watch`: the page is written anew whenever the state has changed, until the study is done."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lorafile.report.writer import write_page
from lorafile.state import State
from lorafile.study.multi_study import contents

if TYPE_CHECKING:
    from lorafile.results.results import Results
    from lorafile.study.study import Study

LOOK_SECONDS = 2.0
Stamp = tuple[tuple[str, int, int], ...]


def watch(studies: "list[Study]", directory: Path, tell: Callable[[str], None]) -> bool:
    """Write the page until nothing is left to do; return whether that came, and not Ctrl-C before it.

    Nothing is locked: whoever applies is not held up. While the study is unfinished the page reloads itself.

    :param tell: is given one line for each time that the page was written
    """
    seen: Stamp | None = None
    try:
        while True:
            now = stamp(studies)
            if now != seen:
                seen = now
                left, (results, found) = State.snapshot(studies[0].state, lambda _: (_left(studies), contents(studies)))
                write_page(results, found, directory, live=left > 0)
                tell(line(results, left))
                if not left:
                    return True
            time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        return False


def _left(studies: "list[Study]") -> int:
    """Return how many nodes are to be done."""
    return sum(len(study.plan().work) for study in studies)


def stamp(studies: "list[Study]") -> Stamp:
    """Return what changes when an apply records something, or a run has come further: files with time and size."""
    states = dict.fromkeys(study.state for study in studies)
    files = [path for state in states for path in (state / "state.db", state / "state.db-wal")]
    files += [path for state in states for path in sorted((state / "running").glob("*/curve.jsonl"))]
    found = []
    for path in files:
        try:
            about = path.stat()
        except OSError:  # a run that ended a moment ago, or a state that is not there yet
            continue
        found.append((str(path), about.st_mtime_ns, about.st_size))
    return tuple(found)


def line(results: "Results", left: int) -> str:
    """Return `14:03:21  12 of 18 runs done, 1 running, 5 missing; 34 nodes to go`."""
    ended = Counter(str(outcome) for outcome in results.runs["outcome"])
    others = [f"{count} {outcome}" for outcome, count in ended.items() if outcome != "done"]
    told = ", ".join([f"{ended['done']} of {ended.total()} runs done", *others])
    rest = f"{left} node{'' if left == 1 else 's'} to go" if left else "nothing left to do"
    return f"{time.strftime('%H:%M:%S')}  {told}; {rest}"
