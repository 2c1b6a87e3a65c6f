"""What a study had written down before its first run: claims, margins and comparisons, as git has them.

It is self-declared: git's history can be rewritten, and only the author's word says that there was no earlier run.
"""

from typing import Any

import tomli

from lorafile.files.git import Registration, blob_at, blob_of, content_at, head
from lorafile.results.runs import History
from lorafile.specs import Spec
from lorafile.units import listing, plural

_PAGE = ("alpha", "margin", "keep", "waive")  # of [verdict]
_SHORT = 12  # letters of a commit


def registration_sentences(spec: Spec, history: History) -> list[str]:
    """Return what was registered before the first attempt, and what came later; nothing where the spec does not ask."""
    if not spec.tables.study.registered:
        return []
    attempts = [attempt for attempts in history.values() for attempt in attempts if attempt.started]
    if not attempts:
        return ["Nothing has run yet: the first lora apply will register what its commit says (self-declared)."]
    first = min(attempts, key=lambda attempt: attempt.started)
    recorded, when = first.environment.get("registered"), first.started[:10]
    if not recorded:
        return [f"Not registered: at the first attempt, on {when}, no git commit was recorded."]
    then = Registration(**recorded)
    commit = then.commit[:_SHORT]
    if blob_at(spec.file, then.commit) is None:
        return [
            f"Commit {commit}, recorded by the first attempt on {when}, is not in this repository. Fetch its history."
        ]
    if blob_at(spec.file, then.commit) != then.spec:
        return [f"Not registered: at the first attempt, on {when}, the spec differed from the one in commit {commit}."]
    start = f"Registered before the first attempt on {when} in commit {commit} (self-declared): "
    dirty = " Other files in the repository had uncommitted changes." if then.dirty else ""
    return [f"{start}{_compared(content_at(spec.file, then.commit) or b'', spec.file.read_bytes())}{dirty}"]


def commit_of(spec: Spec) -> str:
    """Return the commit that is checked out, and whether the spec differs; empty where the study is not registered."""
    commit = head(spec.file) if spec.tables.study.registered else None
    if commit is None:
        return ""
    committed = blob_at(spec.file, commit)
    same = committed == blob_of(spec.file)
    return f"{commit[:_SHORT]}{'' if same else ' with changes' if committed else ', not in it'}"


def _compared(before: bytes, now: bytes) -> str:
    old, new = tomli.loads(before.decode("utf-8")), tomli.loads(now.decode("utf-8"))
    parts = [_listed("claim", old.get("claim", []), new.get("claim", []), "text")]
    parts.append(_listed("analysis", old.get("analysis", []), new.get("analysis", []), "name"))
    verdict = {name: (old.get("verdict", {}).get(name), new.get("verdict", {}).get(name)) for name in _PAGE}
    changed = [f"verdict.{name} was {_said(a)} and is {_said(b)}" for name, (a, b) in verdict.items() if a != b]
    margin = verdict["margin"][1]
    parts.append(listing(changed, 4) if changed else f"the margin ({_said(margin)}) and the error rate")
    return f"{'; '.join(part for part in parts if part)}."


def _listed(what: str, old: list[dict[str, Any]], new: list[dict[str, Any]], name: str) -> str:
    """Return `2 of 3 claims (“…” came later)`; nothing where the spec has none."""
    if not new:
        return ""
    later = [one for one in new if one not in old]
    titles = [f"“{one.get(name) or one.get('kind') or one.get('ask')}”" for one in later]
    many = plural(len(new), what) if what != "analysis" else "1 analysis" if len(new) == 1 else f"{len(new)} analyses"
    return f"{len(new) - len(later)} of {many}{f' ({listing(titles, 4)} came later or changed)' if later else ''}"


def _said(value: Any) -> str:
    return "not set" if value is None else str(value)
