"""Does what was stated elsewhere still hold: each `[[claim]]` against today's figures, and those of its record."""

from collections import Counter
from dataclasses import dataclass
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
QUESTION = "Do these results support the claims made elsewhere?"
_MEANS = {
    "refuted": "the results show that it does not hold",
    "undecided": "the results show neither that it holds nor that it does not",
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
        return min((part.word for part in self.parts), key=ORDER.index)

    @property
    def status(self) -> Status:
        """The verdict, or `stale` where the claim holds and what it rests on is no longer what was reported."""
        return "stale" if self.verdict == "supported" and self.changed else self.verdict

    @property
    def reasons(self) -> str:
        """What decides it: what speaks against it first, and what is not as it was when it was last reported."""
        reasons = [part.text for part in sorted(self.parts, key=lambda part: ORDER.index(part.word))]
        if self.changed:
            still = "it still holds, and " if self.verdict == "supported" else ""
            reasons.append(f"{still}since it was last reported, {listing(self.changed, 3)}")
        return "; ".join(reasons)

    @property
    def line(self) -> str:
        """The check as one line, for a terminal and for CI's log."""
        renew = "; `lora report` updates it" if self.status == "stale" else ""
        return " ".join(f"{self.status}: “{self.claim.text}”: {self.reasons}{renew}".split())


def check(results: Results) -> list[Check]:
    """Return every claim of the study, checked against today's figures and against its record."""
    checks = []
    for claim in results.claims:
        now, before = rests_on(results, claim), results.recorded.get(claim.text)
        recorded = before is not None and before.terms == terms(claim)
        changed = _changed(before.rests_on, now) if before is not None and recorded else ()
        checks.append(Check(claim, tuple(parts(results, claim)), now, tuple(changed), recorded))
    return checks


def terms(claim: ClaimTable) -> dict[str, Any]:
    """Return what has to hold for a claim, as it is recorded."""
    recorded: dict[str, Any] = claim.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"text"})
    return recorded


def record(checks: list[Check]) -> dict[str, Recorded]:
    """Return what is recorded of checked claims."""
    return {check.claim.text: Recorded(check.verdict, terms(check.claim), check.rests_on) for check in checks}


def _changed(before: dict[str, str], now: dict[str, str]) -> list[str]:
    changes = {
        "lost": [name for name in before if name not in now],
        "run again with different results": [name for name in now if name in before and before[name] != now[name]],
        "added": [name for name in now if name not in before],
    }
    listed = {how: (listing(names, 3), "was" if len(names) == 1 else "were") for how, names in changes.items() if names}
    return [f"{names} {verb} {how}" for how, (names, verb) in listed.items()]


def section(results: Results) -> list[Analysis]:
    """Return the report's section on claims; nothing where the study states none.

    A report renews the record of its claims, so none is stale in it: it says what changed since the last one.
    """
    checks = check(results)
    if not checks:
        return []
    verdicts = Counter(check.verdict for check in checks)
    counts = [f"{verdicts[word]} {word} ({_MEANS[word]})" for word in ORDER if verdicts[word]]
    sentences = [f"Of {plural(len(checks), 'claim')}, {listing(counts, 4)}."]
    ordered = sorted(checks, key=lambda check: ORDER.index(check.verdict))
    sentences += [f"{check.verdict.capitalize()}: “{check.claim.text}”: {check.reasons}." for check in ordered]
    return [Analysis("claims", "claims", "Claims", QUESTION, sentences, (_table(checks),))]


def _table(checks: list[Check]) -> Table:
    rows = [(check.claim.text, check.verdict, check.reasons, ", ".join(check.rests_on)) for check in checks]
    frame = pd.DataFrame(rows, columns=["claim", "verdict", "reasons", "rests_on"])
    columns = (Column("claim", "claim"), Column("verdict", "is"), Column("rests_on", "rests on"))
    return Table("Claims", frame, columns)


def as_json(checks: list[Check]) -> list[dict[str, Any]]:
    """Return checked claims as JSON-able values."""
    return [
        {
            "claim": check.claim.text,
            "status": check.status,
            "verdict": check.verdict,
            "parts": [{"verdict": part.word, "text": part.text} for part in check.parts],
            "changed": list(check.changed),
            "recorded": check.recorded,
            "rests_on": check.rests_on,
        }
        for check in checks
    ]
