"""The efficiency frontier drawn: quality with its spread against cost, labels placed where nothing stands."""

from dataclasses import dataclass
from itertools import pairwise
from math import isnan, log10
from typing import TYPE_CHECKING, Any, Literal

import altair as alt
import pandas as pd

from lorafile.analysis.costs import COSTS, cost_of
from lorafile.analysis.draw import WIDTH, finish, mean_rows, near_references, padded, quality, tooltip
from lorafile.analysis.published_marks import marks, with_cost
from lorafile.analysis.text import amount, unit

if TYPE_CHECKING:
    from lorafile.analysis.draw import Quality
    from lorafile.results import Results

HEIGHT = 400
CAPTION = (
    "Diamonds and steps: the frontier, the best mean at each cost. Grey dots: behind it. Bars: mean ± sample standard "
    "deviation over seeds. Point at a mark for its name and figures."
)
# Where a label may stand, the first that is free is taken: (align, dx, dy in pixels).
Align = Literal["left", "right"]
SIDES: tuple[tuple[Align, int], ...] = (("left", 1), ("right", -1))
PLACES: tuple[tuple[Align, int, int], ...] = tuple(
    (align, sign * dx, dy)
    for dx, dy in ((10, 0), (9, -10), (9, 11), (12, -22), (12, 24), (14, -36), (14, 38))
    for align, sign in SIDES
)
NEAR = 6  # of these so many are near enough for a point among others
LETTER = {True: 7.0, False: 6.0}  # mean width of a letter in pixels: bold on the frontier, small behind it


@dataclass(frozen=True)
class Axes:
    """Both domains, to know the pixels of a point before it is drawn."""

    x: list[float]
    y: list[float]
    log: bool

    def pixels(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point stands, in pixels from the upper left corner of the plot."""
        low, high, at = (log10(value) for value in (*self.x, x)) if self.log else (*self.x, x)
        return (at - low) / (high - low) * WIDTH, (self.y[1] - y) / (self.y[1] - self.y[0]) * HEIGHT


def chart(results: "Results", metric: str, declared: str, both: list[str], front: list[str]) -> Any:
    """Return quality against cost; the frontier's points are labelled first, the others where there is room."""
    found, cost = quality(results, metric), cost_of(results, declared)
    rows, name = _points(found, cost, both, front, declared)
    title = f"{COSTS[declared].title}{', ' + name if name else ''}"
    others = _published(results, found, declared, cost, both)
    axes = _axes(results, found, rows, both, others)
    labels = place_labels(rows, axes)
    x = alt.X(
        "cost:Q",
        title=title,
        scale=alt.Scale(type="log", domain=axes.x, nice=False)
        if axes.log
        else alt.Scale(domain=axes.x, nice=False, zero=False),
        axis=alt.Axis(format="~g", tickCount=6, grid=True),
    )
    y = alt.Y("mean:Q", title=found.title, scale=alt.Scale(domain=axes.y, nice=False, zero=False))
    y = y.axis(alt.Axis(format=found.format, tickCount=6))
    beside = marks(others, alt.X("x:Q"), alt.Y("mean:Q")) if len(others) else []
    whole = alt.layer(*_marks(rows, x, y), *_texts(labels, x, y), *beside).properties(width=WIDTH, height=HEIGHT)
    text = "; ".join(f"{row['configuration']}: {row['shown']} at {row['costs']}" for row in rows.to_dict("records"))
    return finish(whole, f"{found.title} against {COSTS[declared].title}", f"{title}. {text}", margin=90, least=430)


def _points(
    found: "Quality", cost: dict[str, float], both: list[str], front: list[str], declared: str
) -> tuple[pd.DataFrame, str]:
    kind = COSTS[declared].kind
    size, name = unit(kind, max(cost[label] for label in both))
    rows = mean_rows(found, {label: label for label in both})
    rows["cost"] = [cost[label] / size for label in rows["configuration"]]
    rows["costs"] = [amount(kind, cost[label]) for label in rows["configuration"]]
    rows["front"] = rows["configuration"].isin(front)
    return rows, name


def _published(
    results: "Results", found: "Quality", declared: str, cost: dict[str, float], both: list[str]
) -> pd.DataFrame:
    """Return the published figures that have this cost and lie near, as rows of their own, in the unit of the axis."""
    own = [cost[name] for name in both]
    size, _ = unit(COSTS[declared].kind, max(own))
    _, near, _ = near_references(results, found, both)
    priced = {one.name: one.costs[declared] for one in with_cost(results, found.metric, declared, min(own), max(own))}
    if "name" not in near:
        return pd.DataFrame()
    rows = near[near["name"].isin(list(priced))]
    return rows.assign(x=[priced[name] / size for name in rows["name"]])


def _axes(results: "Results", found: "Quality", rows: pd.DataFrame, both: list[str], others: pd.DataFrame) -> Axes:
    costs = [*rows["cost"], *(others["x"] if len(others) else [])]
    low, high = float(min(costs)), float(max(costs))
    log = low > 0 and high / low > 2.5
    x = [low / (high / low) ** 0.06, high * (high / low) ** 0.1] if log else padded(low, high, 0.1)
    y, _, _ = near_references(results, found, both)
    return Axes(x, y, log)


def _marks(rows: pd.DataFrame, x: Any, y: Any) -> list[Any]:
    tips = tooltip(("configuration:N", "configuration"), ("shown:N", "mean"), ("n:Q", "seeds"), ("costs:N", "cost"))
    front, behind = rows[rows["front"]].sort_values("cost"), rows[~rows["front"]]
    return [
        alt.Chart(front).mark_line(style="frontier").encode(x=x, y=y),
        alt.Chart(behind).mark_rule(style="behind-spread").encode(x=x, y=y.copy(), y2="high:Q").encode(y="low:Q"),
        alt.Chart(behind).mark_point(style="behind").encode(x=x, y=y, tooltip=tips),
        alt.Chart(front).mark_rule(style="frontier-spread").encode(x=x, y="low:Q", y2="high:Q"),
        alt.Chart(front).mark_point(style="frontier-point").encode(x=x, y=y, tooltip=tips),
    ]


def _texts(labels: list[dict[str, Any]], x: Any, y: Any) -> list[Any]:
    layers = []
    for place in PLACES:
        for front in (True, False):
            mine = [row for row in labels if row["place"] == place and row["front"] == front]
            if mine:
                align, dx, dy = place
                style = "frontier-label" if front else "behind-label"
                text = alt.Chart(pd.DataFrame(mine).drop(columns="place")).mark_text(
                    style=style, align=align, dx=dx, dy=dy, baseline="middle", limit=320
                )
                layers.append(text.encode(x=x, y=y, text="configuration:N"))
    return layers


def place_labels(rows: pd.DataFrame, axes: Axes) -> list[dict[str, Any]]:
    """Return the labels that can be drawn, each with its place: frontier points always, others where there is room."""
    points = {row["configuration"]: axes.pixels(row["cost"], row["mean"]) for row in rows.to_dict("records")}
    taken = [(x - 6.0, y - 6.0, x + 6.0, y + 6.0) for x, y in points.values()]
    taken += [_bar(axes, row) for row in rows.to_dict("records") if not isnan(row["low"])]
    taken += _steps(
        [points[row["configuration"]] for row in rows[rows["front"]].sort_values("cost").to_dict("records")]
    )
    placed = []
    for row in rows.sort_values(["front", "cost"], ascending=[False, True]).to_dict("records"):
        name = str(row["configuration"])
        front = bool(row["front"])
        places = PLACES if front else PLACES[:NEAR]
        boxes = {place: _box(points[name], place, min(len(name) * LETTER[front], 320)) for place in places}
        crowd = {place: sum(_overlap(box, other) for other in taken) + _outside(box) for place, box in boxes.items()}
        place = min(places, key=lambda place: crowd[place])
        if front or crowd[place] == 0:
            taken.append(boxes[place])
            kept = {"configuration": name, "cost": row["cost"], "mean": row["mean"]}
            placed.append(kept | {"front": front, "place": place})
    return placed


Box = tuple[float, float, float, float]


def _bar(axes: Axes, row: dict[Any, Any]) -> Box:
    x, top = axes.pixels(row["cost"], row["high"])
    return x - 2, top, x + 2, axes.pixels(row["cost"], row["low"])[1]


def _steps(points: list[tuple[float, float]]) -> list[Box]:
    """Return the boxes of the frontier's line: along to the next cost, then up."""
    level = [(x, y - 1, after, y + 1) for (x, y), (after, _) in pairwise(points)]
    return level + [(after - 1, min(y, then), after + 1, max(y, then)) for (_, y), (after, then) in pairwise(points)]


def _box(point: tuple[float, float], place: tuple[Align, int, int], width: float) -> Box:
    align, dx, dy = place
    left = point[0] + dx - (width if align == "right" else 0.0)
    return left, point[1] + dy - 7, left + width, point[1] + dy + 7


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0


def _outside(box: Box) -> float:
    over = max(-box[0], 0) + max(box[2] - WIDTH, 0) + max(-box[1], 0) + max(box[3] - HEIGHT, 0)
    return over * 50
