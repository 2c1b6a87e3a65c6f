"""Comparisons drawn: each difference with its interval, zero and the margin."""

from typing import Any

import altair as alt
import pandas as pd

from lorafile.analysis.common.chart_parts import WIDTH, finish, named_rows, room, tooltip, zero_line
from lorafile.analysis.common.format import axis_unit, on
from lorafile.analysis.compare.outcomes import margin_text
from lorafile.analysis.compare.verdict_text import figures
from lorafile.analysis.compare.verdicts import Verdict

TIPS = (("pair:N", "comparison"), ("verdict:N", "verdict"), ("shown:N", "difference"))


def chart(verdicts: list[Verdict], names: dict[str, str], about: str, more: bool) -> Any:
    """Return one row for each comparison that was tested: difference, 95 % interval, and the simultaneous one.

    :param names: configuration -> what a reader would call it
    """
    tested = [verdict for verdict in verdicts if verdict.decision is not None]
    rows = pd.DataFrame([_row(verdict) for verdict in tested])
    others = {verdict.pair.other for verdict in tested}
    rows["label"] = [_label(verdict, names, alone=len(others) > 1) for verdict in tested]
    metric = verdicts[0].scale
    _, unit = axis_unit(metric)
    better = "higher" if more else "lower"
    to = f" to {names.get(other := others.pop(), other)}" if len(others) == 1 else ""
    title = f"difference{to} in {on(metric, verdicts[0].split)}{', ' if unit else ''}{unit} ({better} is better)"
    low, high = float(rows[["least", "band_low"]].min().min()), float(rows[["most", "band_high"]].max().max())
    gap = (max(high, 0) - min(low, 0)) * 0.06 or 1.0
    # room on the right for the verdicts, which stand next to their intervals
    scale = alt.Scale(domain=[min(low, 0) - gap, max(high, 0) + 3 * gap], nice=False, zero=False)
    x = alt.X("difference:Q", title=title, scale=scale, axis=alt.Axis(format="~r", tickCount=7))
    order = list(rows["label"])
    y = named_rows("label:N", order)
    base = alt.Chart(rows).encode(y=y)

    def along(column: str) -> Any:
        return alt.X(f"{column}:Q", title=title, scale=scale)

    banded = alt.Chart(rows[rows["banded"]]).encode(x=along("band_low"), x2="band_high:Q", y=y)
    layers = [
        banded.mark_bar(style="margin"),
        zero_line("x"),
        base.mark_rule(style="simultaneous").encode(x=along("least"), x2="most:Q"),
        base.mark_rule(style="spread").encode(x=along("low"), x2="high:Q"),
        base.mark_point(style="mean").encode(x=x, tooltip=tooltip(*TIPS)),
        base.mark_text(style="value", align="left", dx=6).encode(x=along("most"), text="verdict:N"),
    ]
    text = "; ".join(f"{row['pair']}: {row['verdict']}, {row['shown']}" for row in rows.to_dict("records"))
    whole = alt.layer(*layers).properties(width=WIDTH, height=alt.Step(38))
    return finish(whole, f"Verdicts {about}", f"{title}. {text}", margin=room(order))


def _label(verdict: Verdict, names: dict[str, str], alone: bool) -> str:
    """Return the name of a row; with what it is compared with where that differs between rows."""
    one, other = (names.get(name, name) for name in (verdict.pair.one, verdict.pair.other))
    return f"{one} − {other}" if alone else one


def caption(verdicts: list[Verdict]) -> str:
    """Return what the marks mean."""
    margins = dict.fromkeys(margin_text(v.metric, v.margin) for v in verdicts if v.margin is not None)
    band = f" Band: the margin, {' or '.join(margins)}." if margins else ""
    bars = "Thick bar: the interval of its test. Thin line: the simultaneous interval for all comparisons."
    return f"Diamond: the difference. {bars}{band}"


def _row(verdict: Verdict) -> dict[str, Any]:
    estimate, decision = verdict.estimate, verdict.decision
    assert estimate is not None  # noqa: S101  (what was decided was estimated)
    assert decision is not None  # noqa: S101
    factor, _ = axis_unit(verdict.scale)
    margin = verdict.margin or 0.0
    row: dict[str, Any] = {"pair": f"{verdict.pair.one} − {verdict.pair.other}", "verdict": verdict.word}
    row |= {"difference": factor * estimate.difference, "shown": figures(verdict)}
    row |= dict(zip(("low", "high"), (factor * value for value in decision.interval), strict=True))
    row |= dict(zip(("least", "most"), (factor * value for value in decision.simultaneous), strict=True))
    return row | {"band_low": -factor * margin, "band_high": factor * margin, "banded": verdict.margin is not None}
