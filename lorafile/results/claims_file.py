"""What each claim rested on when it was last reported: `<spec>.claims`, committed next to the spec and its lock.

`lora report` writes it, `lora report --check` reads it. A claim whose runs are no longer those that it was reported
from is stale, even where it still holds: a reader of the report must not find other figures than the ones that stand.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lorafile.errors import LoraError
from lorafile.files.jsonl import read_json

VERSION = 1


@dataclass(frozen=True)
class Recorded:
    """One claim as it was last reported.

    :ivar terms: what had to hold: the claim's settings without its sentence
    :ivar rests_on: what it was checked against (`rank/r=16/seed=42`, `rank/r=16:profile`) -> digest of its figures
    """

    verdict: str
    terms: dict[str, Any]
    rests_on: dict[str, str]


def claims_file(spec: Path) -> Path:
    """Return where the record of a spec's claims stands."""
    return spec.with_suffix(".claims")


def read_claims(file: Path) -> dict[str, Recorded]:
    """Return sentence -> its record; nothing where there is no record.

    :raises LoraError: when it is damaged or newer than this version
    """
    try:
        content = read_json(file)
        if content["version"] > VERSION:
            raise LoraError(f"{file} was written by a newer lorafile. Update, or delete it and run: lora report")
        rows = content["claims"].items()
        return {text: Recorded(row["verdict"], dict(row["terms"]), dict(row["rests_on"])) for text, row in rows}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoraError(f"{file} is damaged ({error}). Restore it, or delete it and run: lora report") from error


def claims_text(claims: Mapping[str, Recorded]) -> str:
    """Return the record as it is committed: the same claims on the same runs give the same bytes."""
    rows = {text: asdict(recorded) for text, recorded in claims.items()}
    return json.dumps({"version": VERSION, "claims": rows}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
