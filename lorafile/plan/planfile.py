"""Plans as files: written once, reviewed, and applied only while they still are what would be done."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from lorafile.errors import LoraError, StalePlan
from lorafile.files.atomic import write_text
from lorafile.plan.document import ChangeRow, PlanDocument, document, text
from lorafile.plan.plan import Plan
from lorafile.units import listing

_HEAD = 64  # bytes in which a plan shows that it is one
_MOST = 3  # addresses that are named


def is_plan(file: Path) -> bool:
    """Return whether a file is JSON, as a saved plan is and no spec can be."""
    try:
        with file.open("rb") as stream:
            return stream.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    except OSError:
        return False


def save(plan: Plan, file: Path) -> None:
    """Write a plan; the file is there whole, or as it was.

    :raises LoraError: when something else stands there, or it cannot be written
    """
    if file.exists() and not is_plan(file):
        raise LoraError(f"{file} already exists and is not a plan. Pass another file name.")
    write_text(file, text(document(plan)) + "\n")


def read(file: Path) -> PlanDocument:
    """Return a saved plan.

    :raises LoraError: when it is none, is damaged, or is of a newer version
    """
    try:
        return PlanDocument.model_validate_json(file.read_bytes())
    except OSError as error:
        raise LoraError(f"{file}: {error.strerror}") from error
    except ValidationError as error:
        row = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, row["loc"]))[:100]
        raise LoraError(
            f"{file} is not a plan for this version of lorafile: {place + ': ' if place else ''}{row['msg'][:200]}. "
            f"Recreate it with: lora plan --out {file}"
        ) from error


def check_unchanged(file: Path, saved: PlanDocument, now: Plan) -> None:
    """Refuse a saved plan that is no longer what would be done.

    :param now: the plan made afresh
    :raises StalePlan: with what has changed
    """
    if differences := _changed(saved, now):
        lines = "".join(f"\n  - {difference}" for difference in differences)
        raise StalePlan(
            f"{file} is stale; nothing was done. An apply would now differ from the approved plan:{lines}\n"
            f"Plan again with: lora plan {saved.made_from.spec} --out {file}"
        )


def _changed(saved: PlanDocument, now: Plan) -> list[str]:
    """Return what is different in the work of two plans, after what it may come from; nothing where none is."""
    fresh = PlanDocument.model_validate_json(text(document(now)))
    differences = _work(saved, fresh, now)
    differences += [
        f"{_address(saved, key)} was recreated with different bytes, which planned nodes read"
        for key, digest in saved.made_from.reads.items()
        if fresh.made_from.reads.get(key, digest) != digest
    ]
    differences += [
        f"{_address(saved, key)} has been rerun since"
        for key, digest in saved.made_from.again.items()
        if fresh.made_from.again.get(key, digest) != digest
    ]
    return [*_causes(saved, fresh), *differences] if differences else []


def _work(saved: PlanDocument, fresh: PlanDocument, now: Plan) -> list[str]:
    before, after = saved.work, fresh.work
    addresses = {change.address for change in fresh.changes}
    gone = [change for key, change in before.items() if key not in after]
    declared = [change for change in gone if change.key in now.graph.nodes]
    missing = [change for change in gone if change not in declared]
    finished = [change for change in declared if change.key in now.results]
    blocked = [change for change in declared if change not in finished]
    come = [change for key, change in after.items() if key not in before]
    was = {change.key: change for change in saved.changes}
    again = [c for c in come if c.key in was and was[c.key].action != "undeclared"]
    new = [c for c in come if c not in again]
    return [
        *_line("finished by now", finished),
        *_line("no longer to be run", blocked),
        *_line(
            "no longer declared, or declared with other settings", [c for c in missing if c.address not in addresses]
        ),
        *_line("now with other settings", [c for c in missing if c.address in addresses]),
        *_line("to be rerun", again),
        *_line("new", [c for c in new if c.address not in {m.address for m in missing}]),
    ]


def _causes(saved: PlanDocument, fresh: PlanDocument) -> list[str]:
    before, after = saved.made_from, fresh.made_from
    causes = [f"the spec {after.spec} was changed"] if before.spec_digest != after.spec_digest else []
    causes += [
        f"the lock has different content for the {name}"
        for name in before.lock
        if name in after.lock and before.lock[name] != after.lock[name]
    ]
    if before.device != after.device:
        causes.append(f"it was made for {before.device}, but this is {after.device}")
    return causes


def _line(what: str, changes: Iterable[ChangeRow]) -> list[str]:
    names = [change.address for change in changes]
    if not names:
        return []
    return [f"{what}: {listing(names, _MOST)}"]


def _address(saved: PlanDocument, key: str) -> str:
    return next((change.address for change in saved.changes if change.key == key), key[:12])
