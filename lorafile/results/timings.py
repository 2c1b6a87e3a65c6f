"""Which profiles' times can be trusted: those of a machine that did nothing else meanwhile."""

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any, NamedTuple

from lorafile.plan.forecast.calibration import STEADY, TIME_SPREADS
from lorafile.results.results import grouped, missing

YARDSTICK = "base_generate_seconds"
REPEATED = 0.1  # how far the bare base's time may lie from that of the other profiles


class Disturbance(NamedTuple):
    """Why the times of a profile are not to be trusted.

    :ivar kind: `spread`: the same answer took times that lie far apart; `yardstick`: the bare base took another time
        than in the other profiles; `alone`: no other profile of the base, or of the device, confirms it
    :ivar size: interquartile range over median; the bare base's time over the median one, minus 1; 0
    """

    kind: str
    size: float = 0.0


def disturbances(profiles: Iterable[Mapping[str, Any]]) -> dict[str, Disturbance]:
    """Return configuration -> why its profile's times are not to be trusted; nothing for those that can be.

    Profiles of before the yardstick have none, and are judged by their spread alone.

    :param profiles: `Results.profiles`, row by row; rows of equal `key` are one profile
    """
    rows = list(profiles)
    own = {_key(row): row for row in rows}
    found: dict[str, Disturbance] = {}
    for key, row in own.items():
        spread = max(_number(row, name) for name in TIME_SPREADS)
        if spread > STEADY:
            found[key] = Disturbance("spread", spread)
    groups = list(grouped(((row.get("device"), row.get("base")), key) for key, row in own.items()).values())
    for members in groups:
        found |= _unlike(
            {key: _number(own[key], YARDSTICK) for key in members if key not in found and _number(own[key], YARDSTICK)}
        )
    for members in (*groups, *grouped((row.get("device"), key) for key, row in own.items()).values()):
        steady = [key for key in members if key not in found]
        if len(steady) == 1 < len(members):
            found[steady[0]] = Disturbance("alone")
    return {str(row["configuration"]): found[_key(row)] for row in rows if _key(row) in found}


def _unlike(yardsticks: dict[str, float]) -> dict[str, Disturbance]:
    """Return those of some times of the same work that lie too far from their median."""
    middle = median(yardsticks.values()) if yardsticks else 0.0
    off = {key: seconds / middle - 1 for key, seconds in yardsticks.items()}
    return {key: Disturbance("yardstick", share) for key, share in off.items() if abs(share) > REPEATED}


def _key(row: Mapping[str, Any]) -> str:
    return str(row.get("key") or row["configuration"])


def _number(row: Mapping[str, Any], name: str) -> float:
    """Return a figure of a profile, 0 where it has none."""
    value: Any = row.get(name)
    return 0.0 if missing(value) else float(value)
