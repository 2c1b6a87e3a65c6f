"""Figures and settings as a reader sees them: three significant digits, percent for shares, sensible units."""

import math
import re
from collections.abc import Mapping
from math import isnan, nan
from typing import Any

from lorafile.analysis.common.base import Column, ColumnKind
from lorafile.analysis.common.scores import Score
from lorafile.engine.metrics.registry import more_is_better, unit_of
from lorafile.results.results import missing
from lorafile.units import plural

DASH = "–"
_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1.0, "B"))
_SECONDS = ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def number(value: float, digits: int = 3) -> str:
    """Return a number at so many significant digits, with thousands separated by thin spaces."""
    if missing(value):
        return DASH
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size >= 6 or size < -4:
        return f"{value:.{digits - 1}e}"
    places = max(digits - 1 - size, 0)
    return f"{round(value, digits - 1 - size):,.{places}f}".replace(",", "\u2009")


def rate(value: float) -> str:
    """Return a learning rate as people write it: `2e-4`."""
    if missing(value):
        return DASH
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}" if not 0.1 <= abs(value) < 1000 else f"{value:g}"


def unit(kind: str, largest: float) -> tuple[float, str]:
    """Return (how many base units, the unit's name) in which values up to the largest read well.

    Bytes are decimal: 1 GB is 10^9 bytes. Minutes begin at two of them, hours likewise.
    """
    if kind == "bytes":
        return next(((size, name) for size, name in _BYTES if largest >= size), (1.0, "B"))
    if kind == "seconds":
        at_least = ((size * 2 if size > 1 else size, size, name) for size, name in _SECONDS)
        return next(((size, name) for least, size, name in at_least if largest >= least), (1.0, "s"))
    if kind == "count":
        return next(((size, name) for size, name in ((1e9, "billion"), (1e6, "million")) if largest >= size), (1.0, ""))
    return 1.0, ""


def amount(kind: str, value: float) -> str:
    """Return one value of a column kind with its unit."""
    if missing(value):
        return DASH
    if kind == "share":
        return f"{_points(value)}\u202f%"
    if kind == "rate":
        return rate(value)
    size, name = unit(kind, abs(value))
    if kind == "count" and size == 1:
        return f"{round(value):,}".replace(",", "\u2009")
    return f"{number(value / size)} {name}".strip()


def _points(share: float) -> str:
    """Return a share in percent: one decimal, more only where it would read as zero."""
    percent = 100 * share
    return number(percent, 2) if 0 < abs(percent) < 0.1 else f"{percent:.1f}"


def level(share: float) -> str:
    """Return a level of a test as text, with all of its digits that matter: `0.8 %`."""
    return f"{100 * share:.3g}\u202f%"


def probability(p: float) -> str:
    """Return `= 0.03` or `< 0.001`; nothing where there is none."""
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"= {number(p, 2)}"


def axis_unit(metric: str) -> tuple[float, str]:
    """Return (by what differences of a metric are multiplied on an axis, and their unit there)."""
    return (100, "points") if is_share(metric) else (1, _unit_alone(metric))


def _unit_alone(metric: str) -> str:
    """Return a metric's unit without what explains it after a comma: `correlation`."""
    return unit_of(metric).partition(",")[0]


def sentence_case(text: str) -> str:
    """Return a text with its first letter as a capital."""
    return text[:1].upper() + text[1:]


def metric_name(metric: str) -> str:
    """Return a metric's name in running text."""
    return metric.replace("_", " ")


def kind_of(metric: str) -> ColumnKind:
    """Return the kind of a table's column that holds a metric."""
    return "share" if is_share(metric) else "number"


def is_share(metric: str) -> bool:
    """Return whether a metric is a fraction of one, shown in percent."""
    return unit_of(metric).startswith("share")


def score(metric: str, value: float) -> str:
    """Return a metric's value: percent for shares, three significant digits otherwise."""
    return amount("share" if is_share(metric) else "number", value)


def difference(metric: str, value: float) -> str:
    """Return the size of a difference of a metric, in its unit: percentage points for shares."""
    if is_share(metric):
        return f"{_points(abs(value))} points"
    return f"{number(abs(value))} {_unit_alone(metric)}".strip()


def setting(value: Any) -> str:
    """Return a setting's value as a short label: `q_proj+v_proj`, `0-3`, `nf4`, `16`."""
    if isinstance(value, (list, tuple)) or type(value).__name__ == "ndarray":
        return _items(list(value))
    if missing(value):
        return "default"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)) or hasattr(value, "dtype"):
        if float(value).is_integer() and abs(value) < 1e9:
            return f"{int(value)}"
        return f"{value:.12g}" if abs(value) >= 0.01 else rate(float(value))
    if isinstance(value, Mapping):
        return "+".join(f"{key}={setting(item)}" for key, item in value.items() if not missing(item)) or "empty"
    return str(value)


def _items(items: list[Any]) -> str:
    whole = len(items) > 2 and all(isinstance(item, int) for item in items)
    if whole and items == list(range(items[0], items[-1] + 1)):
        return f"{items[0]}-{items[-1]}"
    text = "+".join(setting(item) for item in items) or "empty"
    if len(text) > 30 and all(str(item).endswith("_proj") for item in items):
        return "+".join(str(item).removesuffix("_proj") for item in items) + " (_proj)"
    return text


def slug(*parts: str) -> str:
    """Return parts as one name that is safe for a file and an anchor; other characters become hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")[:60].strip("-") or "chart"


def cell(column: Column, row: Mapping[str, Any]) -> str:
    """Return one cell of a table: value, ± spread where there is one, and the number of seeds."""
    value, spread, count = (_number(row, key) for key in (column.key, column.spread, column.n))
    if column.kind == "text":
        text = row.get(column.key)
        return DASH if missing(text) or text == "" else str(text)
    if value is None:
        return DASH
    shown = amount(column.kind, value) if spread is None else with_spread(column.kind, value, spread)
    return shown if count is None else f"{shown} (n={int(count)})"


def _number(row: Mapping[str, Any], key: str) -> float | None:
    value = row.get(key)
    return None if missing(value) or isinstance(value, str) or not key else float(value)  # type: ignore[arg-type]


def with_spread(kind: str, value: float, spread: float) -> str:
    """Return `0.512 ± 0.013`: one unit, and the spread to the value's decimals, to more where it would read as 0."""
    if kind == "share":
        return f"{_points(value)} ± {_points(spread)}\u202f%"
    size, name = unit(kind, abs(value))
    shown, rest = number(value / size), spread / size
    places = len(shown.partition(".")[2]) if "e" not in shown else 0
    rounded = f"{rest:.{places}f}"
    return f"{shown} ± {rounded if float(rounded) or not rest else number(rest, 1)} {name}".strip()


def spread_of(*scores: Score) -> float:
    """Return the largest spread over seeds among scores, NaN where none has two seeds.

    The largest, not a pooled one: with three seeds each a spread is itself uncertain, and this is a description.
    """
    return max((one.spread for one in scores if not isnan(one.spread)), default=nan)


def above(metric: str, name: str, first: Score, other_name: str, second: Score) -> str:
    """Return how far one score lies above or below another, with the spread over seeds; never a verdict."""
    gap = first.mean - second.mean
    figures = f"({score(metric, first.mean)} against {score(metric, second.mean)})"
    if gap == 0:
        text = f"{name} and {other_name} have the same mean {figures}"
    else:
        text = f"{name} is {'above' if gap > 0 else 'below'} {other_name} by {difference(metric, gap)} {figures}"
    return f"{text}; {compared_with_spread(metric, gap, first, second)}."


def compared_with_spread(metric: str, gap: float, one: Score, other: Score) -> str:
    """Return how a gap between two scores compares with the larger of their spreads over seeds."""
    spread = spread_of(one, other)
    if isnan(spread):
        return "one seed gives no spread to compare this with"
    seeds = _seeds(one, other)
    verb = "exceeds" if abs(gap) > spread else "does not exceed"
    return f"the difference {verb} the spread over seeds, {difference(metric, spread)} ({seeds})"


def _seeds(one: Score, other: Score) -> str:
    if one.n == other.n:
        return plural(one.n, "seed")
    if min(one.n, other.n) == 1:
        return f"{plural(max(one.n, other.n), 'seed')}; the other has one run"
    return f"{one.n} and {other.n} seeds"


def measured(metric: str, figure: Score) -> str:
    """Return `83.2 % ± 1.1 points over 3 seeds`, with what was lost."""
    text = score(metric, figure.mean)
    if not isnan(figure.spread):
        text += f" ± {difference(metric, figure.spread)} over {plural(figure.n, 'seed')}"
    elif figure.wanted > 1:
        text += f" from {figure.n} of {plural(figure.wanted, 'seed')}"
    return f"{text} ({figure.lost})" if figure.lost else text


def direction(metric: str) -> str:
    """Return `higher is better` or `lower is better`."""
    return "higher is better" if more_is_better(metric) else "lower is better"


def on(metric: str, split: str) -> str:
    """Return `exact match on test`."""
    return f"{metric_name(metric)} on {split}"


def without_figure(by_name: dict[str, Score]) -> list[str]:
    """Return the configurations that have no figure, with the reason where one is known."""
    return [f"{name} ({figure.lost})" if figure.lost else name for name, figure in by_name.items() if not figure.known]
