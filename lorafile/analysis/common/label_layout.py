"""Where labels of points can stand: next to their point, where no other point, bar, line or label is."""

from dataclasses import dataclass
from itertools import pairwise
from math import isnan, log10
from typing import Any, Literal

import altair as alt
import pandas as pd

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
    """Both domains, whether each is logarithmic, and width and height in pixels: where a point will be drawn."""

    x: list[float]
    y: list[float]
    log: tuple[bool, bool]
    size: tuple[int, int]

    def pixels(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point stands, in pixels from the upper left corner of the plot."""
        along, up = _share(self.x, x, self.log[0]), _share(self.y, y, self.log[1])
        return along * self.size[0], (1 - up) * self.size[1]


def _share(domain: list[float], value: float, log: bool) -> float:
    """Return how far along an axis a value is, from 0 to 1."""
    low, high, at = (log10(end) for end in (*domain, value)) if log else (*domain, value)
    return (at - low) / (high - low)


Box = tuple[float, float, float, float]
ABOVE = 18  # pixels above the plot that a label may take: shares end at 100 %, and so does their axis
MOST = 60  # points up to which those behind the frontier are named on the chart; pointing at one names it anyway


def place_labels(rows: pd.DataFrame, axes: Axes, line: bool) -> list[dict[str, Any]]:
    """Return the labels that can be drawn, each with its place: frontier points always, others where there is room.

    :param rows: `configuration`, `label`, `x`, `y`, the ends of their bars (NaN without), `front`, and `order` on
        the frontier
    :param line: whether the frontier is drawn as steps
    """
    sorted_rows = rows.sort_values(["front", "order"], ascending=[False, True]).to_dict("records")
    points = {row["configuration"]: axes.pixels(row["x"], row["y"]) for row in sorted_rows}
    taken = [(x - 6.0, y - 6.0, x + 6.0, y + 6.0) for x, y in points.values()]
    taken += [box for row in sorted_rows for box in _bars(axes, row)]
    taken += _steps([points[row["configuration"]] for row in sorted_rows if row["front"]]) if line else []
    placed = []
    for row in sorted_rows:
        name, label, front = str(row["configuration"]), str(row["label"]), bool(row["front"])
        if not front and len(rows) > MOST:
            continue
        places = PLACES if front else PLACES[:NEAR]
        boxes = {place: _box(points[name], place, min(len(label) * LETTER[front], 320)) for place in places}
        crowd = {
            place: sum(_overlap(box, other) for other in taken) + _outside(box, axes) for place, box in boxes.items()
        }
        place = min(places, key=lambda place: crowd[place])
        if front or crowd[place] == 0:
            taken.append(boxes[place])
            placed.append(
                {"configuration": name, "label": label, "x": row["x"], "y": row["y"], "front": front, "place": place}
            )
    return placed


def texts(labels: list[dict[str, Any]], x: Any, y: Any) -> list[Any]:
    """Return the layers that draw placed labels, on the axes of their points."""
    layers = []
    for place in PLACES:
        for front in (True, False):
            rows = [row for row in labels if row["place"] == place and row["front"] == front]
            if rows:
                align, dx, dy = place
                style = "frontier-label" if front else "behind-label"
                text = alt.Chart(pd.DataFrame(rows).drop(columns="place")).mark_text(
                    style=style, align=align, dx=dx, dy=dy, baseline="middle", limit=320
                )
                layers.append(text.encode(x=x, y=y, text="label:N"))
    return layers


def _bars(axes: Axes, row: dict[Any, Any]) -> list[Box]:
    x, y = axes.pixels(row["x"], row["y"])
    (left, low), (right, high) = (axes.pixels(row[f"x_{end}"], row[f"y_{end}"]) for end in ("low", "high"))
    upright = [] if isnan(row["y_low"]) else [(x - 2, high, x + 2, low)]
    level = [] if isnan(row["x_low"]) else [(left, y - 2, right, y + 2)]
    return upright + level


def _steps(points: list[tuple[float, float]]) -> list[Box]:
    """Return the boxes of the frontier's line: along to the next point, then up or down to it."""
    level = [(min(x, after), y - 1, max(x, after), y + 1) for (x, y), (after, _) in pairwise(points)]
    return level + [(after - 1, min(y, then), after + 1, max(y, then)) for (_, y), (after, then) in pairwise(points)]


def _box(point: tuple[float, float], place: tuple[Align, int, int], width: float) -> Box:
    align, dx, dy = place
    left = point[0] + dx - (width if align == "right" else 0.0)
    return left, point[1] + dy - 7, left + width, point[1] + dy + 7


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0


def _outside(box: Box, axes: Axes) -> float:
    over = max(-box[0], 0) + max(box[2] - axes.size[0], 0) + max(-box[1] - ABOVE, 0) + max(box[3] - axes.size[1], 0)
    return over * 50
