"""The frontier's chart made to be pointed at: an interval to brush, and a ring around what the table has picked."""

from copy import deepcopy
from typing import Any

BRUSH, PICKED = "brush", "picked"


def with_brush(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a chart whose points can be brushed, and one of them ringed by the signal `picked`.

    The chart may declare an interval of its own called `brush`. Without points that name their configuration it stays
    what it is.
    """
    spec = deepcopy(spec)
    places = [(layers, at) for layers in _layers(spec) for at, unit in enumerate(layers) if _is_point(unit)]
    if not places:
        return spec
    if not any(param.get("name") == BRUSH for param in _params(spec)):
        layers, at = places[0]
        brush = {"name": BRUSH, "select": {"type": "interval", "encodings": ["x", "y"]}}
        layers[at]["params"] = [*layers[at].get("params", []), brush]
    for layers, at in places:
        layers.append(_ring(layers[at]))
    spec["params"] = [*spec.get("params", []), {"name": PICKED, "value": ""}]
    spec["usermeta"] = {**spec.get("usermeta", {}), "brush": True}
    return spec


def _layers(spec: dict[str, Any]) -> list[list[dict[str, Any]]]:
    found = [spec["layer"]] if "layer" in spec else []
    for key in ("layer", "concat", "hconcat", "vconcat"):
        for inner in spec.get(key, []):
            found += _layers(inner)
    return found


def _params(spec: dict[str, Any]) -> list[dict[str, Any]]:
    found = list(spec.get("params", []))
    for key in ("layer", "concat", "hconcat", "vconcat"):
        for inner in spec.get(key, []):
            found += _params(inner)
    return found


def _is_point(unit: dict[str, Any]) -> bool:
    mark = unit.get("mark")
    kind = mark.get("type") if isinstance(mark, dict) else mark
    encoding = unit.get("encoding", {})
    return kind in ("point", "circle") and all("field" in encoding.get(channel, {}) for channel in ("x", "y"))


def _ring(unit: dict[str, Any]) -> dict[str, Any]:
    """Return the same points as rings, of which only the picked one is drawn."""
    encoding = {channel: unit["encoding"][channel] for channel in ("x", "y")}
    ring: dict[str, Any] = {"mark": {"type": "point", "style": "picked"}, "encoding": encoding}
    ring["transform"] = [*unit.get("transform", []), {"filter": f"datum.configuration === {PICKED}"}]
    return ring | ({"data": unit["data"]} if "data" in unit else {})
