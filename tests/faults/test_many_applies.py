"""Two, four and eight applies of one state, begun at the same moment: each node is done once."""

import re
from dataclasses import replace

import pytest

from faults.study import Bench, Counts, assert_opens, assert_sound


def attempts_in_all(bench: Bench) -> int:
    return sum(len(attempts) for attempts in bench.attempts().values())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("many", [2, 4, 8])
def test_applies_that_wait_find_all_done(bench: Bench, many: int, full: bool, counts: Counts) -> None:
    """Half of them want the study, the others a part of it and another study that shares most of its nodes."""
    if many != 2 and not full:
        pytest.skip("a part of --full")
    other = bench.spec.with_name("other.toml")
    text = bench.spec.read_text(encoding="utf-8").replace('name = "faults"', 'name = "other"')
    other.write_text(text.replace("[2, 4, 8]", "[4, 8, 16]"), encoding="utf-8")
    ways = [(bench, ()), (replace(bench, spec=other), ()), (bench, ("--target", "*:train"))]
    started = [ways[number % 3] for number in range(many)]
    processes = [which.start("--lock-timeout", "500", *more) for which, more in started]
    ended = [(process.communicate(timeout=550)[0], process.returncode) for process in processes]
    assert [code for _, code in ended] == [0] * many, ended
    assert_opens(bench, {})
    finished = bench.finished()
    twice = attempts_in_all(bench) - len(finished)
    assert twice == 0
    assert bench.load().plan().work == replace(bench, spec=other).load().plan().work == []
    # The one profile that all share has the address of whoever came first; its figures are measured anyway.
    mine = {address: one for address, one in bench.expected.items() if not address.endswith(":profile")}
    found = bench.results()
    assert {address: found[address] for address in mine} == mine
    counts("faults: applies at once", that_waited=many, nodes=len(finished), tried_twice=twice)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("many", [2, 4, 8])
def test_applies_that_cannot_wait_say_who_holds_the_state(bench: Bench, many: int, full: bool, counts: Counts) -> None:
    if many != 2 and not full:
        pytest.skip("a part of --full")
    processes = [bench.start() for _ in range(many)]
    ended = [(process.communicate(timeout=550)[0], process.returncode) for process in processes]
    refused = [said for said, code in ended if code == 4]
    assert sum(code == 0 for _, code in ended) + len(refused) == many, ended
    holders = {re.search(r"in use by .*?\bprocess (\d+)", said, re.DOTALL) for said in refused}
    assert all(holders), refused
    assert {int(found[1]) for found in holders if found} <= {process.pid for process in processes}
    assert all("since" in said and "--lock-timeout" in said for said in refused)
    assert attempts_in_all(bench) == len(bench.finished())
    assert_sound(bench, bench.finished())
    counts("faults: applies at once", that_did_not_wait=many, refused=len(refused))
