"""Finished results whose bytes are not in the state as they were stored: a cheap look, by existence and size."""

import os
from dataclasses import replace

from lorafile.files.digests import file_digest
from lorafile.plan.plan import Action, Damage, Plan
from lorafile.state import Attempt, Objects, State
from lorafile.state.errors import reading_object
from lorafile.state.stored_files import Differing


def check_objects(plan: Plan, state: State, differing: Differing = lambda: None) -> Plan:
    """Return the plan with what is missing or damaged of the results that it would leave as they are.

    What was removed on purpose (`lora state gc`) is not named.

    :param differing: what tells which files may be; it returns None where all have to be looked at
    """
    suspected = differing()
    if suspected is not None and not suspected:
        return replace(plan, damaged=())
    damaged: list[Damage] = []
    kept, objects = (Action.REUSE, Action.DRIFT), state.objects
    for change in plan.changes:
        attempt = plan.results.get(change.key) if change.action in kept else None
        if attempt is None or (suspected is not None and suspected.isdisjoint(attempt.outputs.values())):
            continue
        if wrong := _damaged(attempt, objects):
            damaged += [Damage(change.address, change.key, name, attempt.outputs[name], wrong[name]) for name in wrong]
    collected = state.collected() if damaged else set()
    named = tuple(damage for damage in damaged if damage.what != "missing" or damage.digest not in collected)
    return replace(plan, damaged=named)


def missing_digests(attempt: Attempt, objects: Objects) -> list[str]:
    """Return the digests of an attempt's files that are missing or damaged."""
    return [attempt.outputs[name] for name in _damaged(attempt, objects)]


def _damaged(attempt: Attempt, objects: Objects) -> dict[str, str]:
    """Return file name -> what is wrong with it; bytes are read only where the lengths do not add up."""
    root, stat = os.fspath(objects.root), os.stat  # tens of thousands of times
    try:
        size = sum([stat(f"{root}/{digest[:2]}/{digest}").st_size for digest in attempt.outputs.values()])
    except OSError:
        return _look_at_each(attempt, objects)
    return {} if size == attempt.bytes else _look_at_each(attempt, objects)


def _look_at_each(attempt: Attempt, objects: Objects) -> dict[str, str]:
    wrong, elsewhere = {}, False
    for name, digest in attempt.outputs.items():
        try:
            objects.path(digest).stat()
        except FileNotFoundError:
            if objects.is_remote(digest):
                elsewhere = True
            else:
                wrong[name] = "missing"
        except OSError as error:  # it may be there: no reason to pay for it again
            with reading_object(objects.path(digest)):
                raise error
    if not wrong and not elsewhere:
        for name, digest in attempt.outputs.items():
            with reading_object(objects.path(digest)):
                if file_digest(objects.path(digest)) != digest:
                    wrong[name] = "damaged"
    return wrong
