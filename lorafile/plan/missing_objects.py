"""Finished results whose bytes are not in the state as they were stored: a cheap look, by existence and size."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorafile.files.digests import file_digest
from lorafile.state import Attempt, Objects, State
from lorafile.state.objects import reading

if TYPE_CHECKING:
    from lorafile.plan.plan import Plan


@dataclass(frozen=True)
class Damage:
    """A file of a finished node that is missing from the state, or damaged in it."""

    address: str
    key: str
    file: str
    digest: str
    what: str  # "missing" or "damaged"


def with_damage(plan: "Plan", state: State) -> "Plan":
    """Return the plan with what is missing or damaged of the results that it would leave as they are."""
    found: list[Damage] = []
    for change in plan.changes:
        attempt = plan.results.get(change.key)
        if attempt is not None and change.action in ("reuse", "drift"):
            wrong = _damaged(attempt, state.objects)
            found += [Damage(change.address, change.key, name, attempt.outputs[name], wrong[name]) for name in wrong]
    taken = state.collected() if found else set()
    plan.damaged = [one for one in found if one.what != "missing" or one.digest not in taken]
    return plan


def lost(attempt: Attempt, objects: Objects) -> list[str]:
    """Return the digests of an attempt's files that are missing or damaged."""
    return [attempt.outputs[name] for name in _damaged(attempt, objects)]


def _damaged(attempt: Attempt, objects: Objects) -> dict[str, str]:
    """Return file name -> what is wrong with it; bytes are read only where the lengths do not add up."""
    root, total, wrong = os.fspath(objects.root), 0, {}
    for name, digest in attempt.outputs.items():
        try:
            total += os.stat(f"{root}/{digest[:2]}/{digest}").st_size  # noqa: PTH116  (tens of thousands of times)
        except FileNotFoundError:
            wrong[name] = "missing"
        except OSError as error:  # it may be there: no reason to pay for it again
            with reading(objects.path(digest)):
                raise error
    if not wrong and total != attempt.bytes:
        for name, digest in attempt.outputs.items():
            with reading(objects.path(digest)):
                if file_digest(objects.path(digest)) != digest:
                    wrong[name] = "damaged"
    return wrong
