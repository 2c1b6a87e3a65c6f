"""What was sent to a tracker: a line for each sending, beside the index, so that nothing is sent twice or forgotten."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from lorafile.apply.tracking.destinations import Destination

_SPARE = 1000  # lines that were overtaken by later ones, before the file is written anew


@dataclass(frozen=True)
class Sent:
    """What a tracker has of one run.

    :ivar run: the id that it has there; `curve`: digest of the curve that was sent, empty where there was none
    :ivar digest: of everything that was sent of it
    """

    run: str
    curve: str
    digest: str


class Memory:
    """What one destination has; a line that is torn or damaged is a run that is sent again, to the same place."""

    def __init__(self, state: Path, destination: Destination) -> None:
        self.file = state / "tracking" / f"{destination.tracker}.jsonl"
        self._place = destination.identity(state)
        self._lines = _read(self.file)
        gone = destination.local is not None and not destination.local.exists()
        mine = {} if gone else self._lines
        self._sent = {key: sent for (place, key), sent in mine.items() if place == self._place}

    def get(self, key: str) -> Sent | None:
        """Return what the tracker has of the run that this key leads; None where it has nothing."""
        return self._sent.get(key)

    def note(self, key: str, sent: Sent) -> None:
        """Remember that the tracker has said that it has a run."""
        self._sent[key] = self._lines[self._place, key] = sent
        self.file.parent.mkdir(exist_ok=True)
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(_line(self._place, key, sent))
            stream.flush()
            os.fsync(stream.fileno())

    def tidy(self) -> None:
        """Write the file anew where most of it was overtaken; a reader sees the old one or the new one."""
        try:
            lines = self.file.read_bytes().count(b"\n")
        except OSError:
            return
        if lines < 2 * len(self._lines) + _SPARE:
            return
        fresh = self.file.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as stream:
            stream.writelines(_line(place, key, sent) for (place, key), sent in self._lines.items())
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(self.file)


def _line(place: str, key: str, sent: Sent) -> str:
    return json.dumps({"to": place, "key": key, **asdict(sent)}) + "\n"


def _read(file: Path) -> dict[tuple[str, str], Sent]:
    found: dict[tuple[str, str], Sent] = {}
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return found
    for line in filter(None, lines):
        try:
            row = json.loads(line)
            found[str(row["to"]), str(row["key"])] = Sent(str(row["run"]), str(row["curve"]), str(row["digest"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found
