"""Does what somebody stated elsewhere still hold: each `[[claim]]` against today's figures, and those of its record."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from lorafile.analysis.claims.checks import ClaimPart, parts, rests_on
from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.results.claims_file import Recorded
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import ClaimTable
from lorafile.units import listing, plural

Status = Literal["supported", "refuted", "undecided", "stale"]
ORDER: tuple[Status, ...] = ("refuted", "undecided", "stale", "supported")
QUESTION = "Does what was stated elsewhere hold for these results?"
_MEANS = {
    "refuted": "the figures show that it does not hold",
    "undecided": "the figures show neither that it holds nor that it does not",
    "supported": "it holds",
}


@dataclass(frozen=True)
class Check:
    """One claim, checked.

    :ivar parts: each thing that has to hold for it; all of them have to, so that each is tested at the whole of alpha
    :ivar changed: what is not as it was when the claim was last recorded, in words
    :ivar recorded: whether there is a record of this claim with these terms
    """

    claim: ClaimTable
    parts: tuple[ClaimPart, ...]
    rests_on: dict[str, str]
    changed: tuple[str, ...] = ()
    recorded: bool = False

    @property
    def verdict(self) -> Status:
        """Whether today's figures support the claim, whatever they were."""
        words = {part.word for part in self.parts}
        return next(word for word in ORDER if word in words)

    @property
    def status(self) -> Status:
        """The verdict, or `stale` where the claim holds and what it rests on is no longer what was reported."""
        return "stale" if self.verdict == "supported" and self.changed else self.verdict

    @property
    def reasons(self) -> str:
        """What decides it: what speaks against it first, and what is not as it was when it was last reported."""
        told = [part.text for part in sorted(self.parts, key=lambda part: ORDER.index(part.word))]
        if self.changed:
            still = "it still holds, and " if self.verdict == "supported" else ""
            told.append(f"{still}since it was last reported, {listing(list(self.changed), 3)}")
        return "; ".join(told)

    @property
    def line(self) -> str:
        """The check as one line, for a terminal and for CI's log."""
        renew = "; `lora report` renews it" if self.status == "stale" else ""
        return " ".join(f"{self.status}: “{self.claim.text}”: {self.reasons}{renew}".split())


def check(results: Results) -> list[Check]:
    """Return every claim of the study, checked against today's figures and against its record."""
    found = []
    for claim in results.claims:
        now, before = rests_on(results, claim), results.recorded.get(claim.text)
        done = Check(claim, tuple(parts(results, claim)), now)
        if before is not None and before.terms == terms(claim):
            done = replace(done, changed=tuple(_changed(before.rests_on, now)), recorded=True)
        found.append(done)
    return found


def terms(claim: ClaimTable) -> dict[str, Any]:
    """Return what has to hold for a claim, as it is recorded."""
    found: dict[str, Any] = claim.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"text"})
    return found


def record(checks: list[Check]) -> dict[str, Recorded]:
    """Return what is recorded of checked claims."""
    return {one.claim.text: Recorded(one.verdict, terms(one.claim), one.rests_on) for one in checks}


def _changed(before: dict[str, str], now: dict[str, str]) -> list[str]:
    missing = [name for name in before if name not in now]
    others = [name for name in now if name in before and before[name] != now[name]]
    added = [name for name in now if name not in before]
    told = [f"{listing(missing, 3)} {_was(missing)} lost"] if missing else []
    told += [f"{listing(others, 3)} {_was(others)} run again with other figures"] if others else []
    return told + ([f"{listing(added, 3)} {_was(added)} added"] if added else [])


def _was(names: list[str]) -> str:
    return "was" if len(names) == 1 else "were"


def section(results: Results) -> list[Analysis]:
    """Return the report's section on claims; nothing where the study states none.

    A report renews the record of its claims, so none is stale in it: it says what changed since the last one.
    """
    checks = check(results)
    if not checks:
        return []
    counts = {word: sum(one.verdict == word for one in checks) for word in ORDER}
    told = [f"{count} {word} ({_MEANS[word]})" for word, count in counts.items() if count]
    sentences = [f"Of {plural(len(checks), 'claim')}, {listing(told, 4)}."]
    ordered = sorted(checks, key=lambda one: ORDER.index(one.verdict))
    sentences += [f"{one.verdict.capitalize()}: “{one.claim.text}”: {one.reasons}." for one in ordered]
    return [Analysis("claims", "claims", "Claims", QUESTION, sentences, (_table(checks),))]


def _table(checks: list[Check]) -> Table:
    rows = [
        {
            "claim": one.claim.text,
            "verdict": one.verdict,
            "reasons": one.reasons,
            "rests_on": ", ".join(one.rests_on),
        }
        for one in checks
    ]
    columns = (Column("claim", "claim"), Column("verdict", "is"), Column("rests_on", "rests on"))
    return Table("Claims", pd.DataFrame(rows), columns)


def as_json(checks: list[Check]) -> list[dict[str, Any]]:
    """Return checked claims as JSON-able values."""
    return [
        {
            "claim": one.claim.text,
            "status": one.status,
            "verdict": one.verdict,
            "parts": [{"verdict": part.word, "text": part.text} for part in one.parts],
            "changed": list(one.changed),
            "recorded": one.recorded,
            "rests_on": one.rests_on,
        }
        for one in checks
    ]
