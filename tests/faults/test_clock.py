"""A clock that is set back, before an apply and during one: the last attempt counts, and no time is negative."""

import subprocess
from datetime import UTC, datetime

from faults.shim import Shim
from faults.study import OPTIONS, Bench, Counts, assert_sound
from lorafile.state import State

YEAR = 365 * 24 * 3600.0
TRAIN = "alpha/r=2,lora_alpha=2/seed=1:train"


def started(bench: Bench) -> dict[str, list[str]]:
    """Return address -> when each of its attempts began, in the order of the attempts."""
    found: dict[str, list[str]] = {}
    for address, began in State.read(bench.state).rows("SELECT address, started FROM attempts ORDER BY id"):
        found.setdefault(address, []).append(began)
    return found


def assert_fine(bench: Bench) -> None:
    """Check that no time is negative, that all commands work, and that nothing is left to do."""
    rows = State.read(bench.state).rows("SELECT a.seconds, a.figures FROM attempts a")
    assert all(seconds >= 0 for seconds, _ in rows)
    assert not [one for one in bench.load().plan().changes if (one.forecast or {}).get("seconds", 0) < 0]
    for words in (("plan", "study.toml"), ("report", "study.toml", "--json"), ("state", "list"), ("state", "verify")):
        code, said = bench.lora(*words)
        assert code == 0, said


def test_an_apply_a_year_before_the_last_one(done: Bench, shim: Shim, counts: Counts) -> None:
    """What was done again is what counts, although its date is the older one."""
    done.lora("state", "rm", "*:score/test", "--yes", "--reason", "the clock is set back")
    environment = shim.environment(done.state)
    shim.shift(-YEAR)
    code, said = done.disturbed(environment, "apply", "study.toml", *OPTIONS)
    assert code == 0, said
    again = {name: began for name, began in started(done).items() if name.endswith(":score/test")}
    assert again
    for earlier, later in again.values():
        assert datetime.fromisoformat(later) < datetime.fromisoformat(earlier)
    newest = {one[-1].address: one[-1].started for one in done.finished().values()}
    assert all(newest[name] == began[-1] for name, began in again.items()), "the last attempt counts, not the last date"
    assert_fine(done)
    assert_sound(done, done.finished())
    counts("faults: the clock", set_back_before_an_apply=len(again))


def test_a_clock_that_jumps_while_an_apply_runs(bench: Bench, shim: Shim, counts: Counts) -> None:
    process = bench.start(env=shim.environment(bench.state))
    moves = 0
    while process.poll() is None:
        try:
            process.wait(timeout=0.4)
        except subprocess.TimeoutExpired:
            moves += 1
            shim.shift(-YEAR * (moves % 3))  # now, a year back, two years back
    said, _ = process.communicate()
    assert process.returncode == 0, said
    years = {began[:4] for dates in started(bench).values() for began in dates}
    assert moves
    assert min(int(year) for year in years) < datetime.now(UTC).year
    assert_fine(bench)
    assert_sound(bench, bench.finished())
    counts("faults: the clock", set_back_during_an_apply=moves)
