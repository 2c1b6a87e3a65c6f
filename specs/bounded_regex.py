"""Regular expressions of a spec, matched under a time limit: one such as (a+)+b may backtrack practically for ever."""

import json
import re
import subprocess
import sys
from functools import lru_cache
from typing import Literal

Way = Literal["fullmatch", "search"]
SECONDS = 10.0
_REPEATS = re.compile(r"[*+?{]")
_PROGRAM = """
import json, re, sys
pattern, way, texts = json.load(sys.stdin)
match = getattr(re.compile(pattern), way)
results = map(match, texts)
json.dump([result and (result[result.re.groups and way == "search"] or "") for result in results], sys.stdout)
"""


@lru_cache(maxsize=256)
def matches(pattern: str, texts: tuple[str, ...], way: Way = "fullmatch") -> list[str | None]:
    """Return for each text what a pattern finds in it, None where it finds nothing.

    `fullmatch` finds the whole text; `search` the first match, or its group where the pattern has one. What repeats
    more than once is matched by another process, which can be ended.

    :raises ValueError: with the end of a sentence, where it is no regular expression or takes too long
    """
    try:
        match = getattr(re.compile(pattern), way)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a valid regular expression: {error}") from error
    if len(_REPEATS.findall(pattern.replace("(?", "("))) < 2:
        group = int(match.__self__.groups > 0 and way == "search")
        return [result and (result[group] or "") for result in map(match, texts)]
    try:
        program = [sys.executable, "-I", "-S", "-c", _PROGRAM]
        question = json.dumps([pattern, way, texts]).encode()
        answer = subprocess.run(program, input=question, capture_output=True, timeout=SECONDS, check=True)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        why = "nested repetition, as in (a+)+, can take forever"
        raise ValueError(f"as a regular expression takes longer than {SECONDS:g} s to match; {why}") from error
    except subprocess.CalledProcessError as error:
        raise ValueError("as a regular expression takes more memory than is available") from error
    results: list[str | None] = json.loads(answer.stdout)
    return results
