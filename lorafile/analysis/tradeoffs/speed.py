"""Which times of a study say something: not those of a machine that did other work meanwhile."""

from typing import Any

from lorafile.analysis.common.scores import disturbed, profiled, profiles, unmeasurable
from lorafile.results.results import Results, missing, rows_of
from lorafile.units import plural

Rows = list[dict[str, Any]]
SCATTERED = "the 95 % interval of its mean over seeds includes zero"
TRAIN_TIME = ("seconds", "seconds.low", "seconds.high")


def marks(results: Results) -> dict[str, str]:
    """Return configuration -> what a table says next to times that say nothing."""
    texts = {name: ["disturbed"] for name in disturbed(results)}
    for name in unmeasurable(results, "train_time"):
        texts.setdefault(name, []).append("training time not measurable here")
    return {name: ", ".join(said) for name, said in texts.items()}


def trusted(results: Results, rows: Rows, measured: tuple[str, ...]) -> Rows:
    """Return rows of configurations without the times that say nothing.

    :param measured: the columns that come from a profile
    """
    busy, scattered = disturbed(results), unmeasurable(results, "train_time")
    return [
        row
        | (dict.fromkeys(measured) if row["configuration"] in busy else {})
        | (dict.fromkeys(TRAIN_TIME) if row["configuration"] in scattered else {})
        for row in rows
    ]


def not_measurable(results: Results) -> list[str]:
    """Say that no profile's times can be trusted, and how to measure again; nothing where any can be, or none is."""
    timed, busy = profiled(results, "first_token_seconds"), disturbed(results)
    if not timed or timed.keys() - busy:
        return []
    rows = rows_of(profiles(results)[0], "configuration", "key")
    kinds = {key or name: busy[name].kind for name, key in rows if name in busy}
    count = sum(kind != "alone" for kind in kinds.values())
    which = plural(count, "profile") if count == len(kinds) else f"{count} of {plural(len(kinds), 'profile')}"
    left = len(kinds) - count
    rest = f", and nothing confirms the other {left if left > 1 else 'one'}" if left else ""
    return [
        f"Inference speed is not measurable here: the machine was busy with other work during {which}{rest}. Measure "
        f"again on an idle machine: lora apply {results.file} --replace '*:profile'"
    ]


def base_ratios(rows: Rows, column: str) -> dict[str, float]:
    """Return configuration -> a time of an adapted model over the same of the bare base in the same process, minus 1.

    :param column: `token_seconds` or `merged_token_seconds`
    """
    pairs = {row["configuration"]: (row.get(column), row.get("base_token_seconds")) for row in rows if adapted(row)}
    return {name: a / b - 1 for name, (a, b) in pairs.items() if not missing(a) and not missing(b) and b}


def adapted(row: dict[str, Any]) -> bool:
    """Return whether a configuration has an adapter next to its base."""
    return row["method"] not in ("none", "full")
