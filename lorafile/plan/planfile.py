"""Plans as files: written once, reviewed, and applied only while they still are what would be done."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from lorafile.errors import LoraError, SpecError, StalePlan
from lorafile.files.atomic import write_text
from lorafile.plan.document import ChangeRow, PlanDocument, document, text
from lorafile.plan.plan import Plan
from lorafile.study.study import Study

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
        raise LoraError(f"{file} is there already, and is no plan. Name another file.")
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
            f"{file} is no plan of this version of lorafile: {place + ': ' if place else ''}{row['msg'][:200]}. "
            f"Write it anew with: lora plan --out {file}"
        ) from error


def approved(file: Path, state: str | Path | None = None) -> tuple[Study, Plan]:
    """Return the study of a saved plan, and the plan made afresh: the very work that was approved.

    :raises StalePlan: when it is no longer that, with what has changed
    """
    saved = read(file)
    if saved.resolve is not None:
        raise LoraError(f"{file} holds a stage that is not in its spec. Add it first with: lora apply --resolve")
    spec = Path(saved.made_from.spec)
    try:
        study = Study.load(spec, state)
        chosen = saved.selection
        now = study.plan(
            target=chosen.target,
            exclude=chosen.exclude,
            replace=chosen.replace,
            rerun_drifted=chosen.rerun_drifted,
            refresh=chosen.refresh,
        )
    except SpecError as error:
        raise StalePlan(f"{file} no longer holds: its spec cannot be planned.\n{error}") from error
    if found := _changed(saved, now):
        told = "".join(f"\n  - {one}" for one in found)
        raise StalePlan(
            f"{file} no longer holds; nothing was done. What would be done now is not what was approved:{told}\n"
            f"Plan again with: lora plan {spec} --out {file}"
        )
    return study, now


def _changed(saved: PlanDocument, now: Plan) -> list[str]:
    """Return what is different in the work of two plans, after what it may come from; nothing where none is."""
    fresh = PlanDocument.model_validate_json(text(document(now)))
    found = _work(saved, fresh, now)
    found += [
        f"{_address(saved, key)} was made again with other bytes, which are read by what is to run"
        for key, digest in saved.made_from.reads.items()
        if fresh.made_from.reads.get(key, digest) != digest
    ]
    found += [
        f"{_address(saved, key)} has been done again since"
        for key, digest in saved.made_from.again.items()
        if fresh.made_from.again.get(key, digest) != digest
    ]
    return [*_causes(saved, fresh), *found] if found else []


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
        *_told("finished by now", finished),
        *_told("not to be done any more", blocked),
        *_told("no longer declared, or with other settings", [c for c in missing if c.address not in addresses]),
        *_told("of other settings now", [c for c in missing if c.address in addresses]),
        *_told("to be done again", again),
        *_told("new", [c for c in new if c.address not in {one.address for one in missing}]),
    ]


def _causes(saved: PlanDocument, fresh: PlanDocument) -> list[str]:
    before, after = saved.made_from, fresh.made_from
    found = [f"the spec {after.spec} was changed"] if before.spec_digest != after.spec_digest else []
    found += [
        f"the lock: the {name} is another one"
        for name in before.lock
        if name in after.lock and before.lock[name] != after.lock[name]
    ]
    if before.device != after.device:
        found.append(f"it was made for {before.device}, and this is {after.device}")
    return found


def _told(what: str, changes: Iterable[ChangeRow]) -> list[str]:
    names = [change.address for change in changes]
    if not names:
        return []
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return [f"{what}: {', '.join(names[:_MOST])}{more}"]


def _address(saved: PlanDocument, key: str) -> str:
    return next((change.address for change in saved.changes if change.key == key), key[:12])
