"""Which profiles' times are trusted: steady ones whose bare base took as long as in the others."""

from typing import Any

import pytest

from lorafile.results.timings import Disturbance, disturbances


def profile(name: str, seconds: float | None = None, spread: float = 0.05, **more: Any) -> dict[str, Any]:
    row = {"configuration": name, "device": "cpu", "base": "b", "generate_spread": spread}
    return row | ({"base_generate_seconds": seconds} if seconds else {}) | more


def test_a_bare_base_that_took_another_time_than_in_the_other_profiles_disturbs_its_own() -> None:
    found = disturbances([profile("a", 1.0), profile("b", 1.08), profile("c", 1.7), profile("d", 0.95)])
    assert set(found) == {"c"}
    assert found["c"].kind == "yardstick"
    assert found["c"].size == pytest.approx(1.7 / 1.04 - 1), "the median of 0.95, 1, 1.08 and 1.7 is 1.04"


def test_two_that_disagree_are_both_left_out() -> None:
    assert set(disturbances([profile("a", 0.065), profile("b", 0.111)])) == {"a", "b"}


def test_what_scattered_sets_no_yardstick() -> None:
    rows = [profile("a", 1.0), profile("b", 1.0), *(profile(name, 2.0, spread=3.0) for name in "cdef")]
    assert {name: why.kind for name, why in disturbances(rows).items()} == dict.fromkeys("cdef", "spread")


@pytest.mark.parametrize("other", [{"base": "nf4"}, {"device": "NVIDIA L4"}])
def test_yardsticks_are_compared_on_one_device_and_one_base(other: dict[str, str]) -> None:
    rows = [profile(name, seconds, **more) for more, seconds in (({}, 1.0), (other, 5.0)) for name in ("x", "y")]
    rows = [row | {"configuration": f"{row['configuration']}{number}"} for number, row in enumerate(rows)]
    assert disturbances(rows) == {}


def test_profiles_of_before_the_yardstick_are_judged_by_their_spread() -> None:
    rows = [profile("a"), profile("b", base_generate_seconds=float("nan")), profile("c", spread=0.6)]
    assert disturbances(rows) == {"c": Disturbance("spread", 0.6)}


def test_the_only_steady_one_of_many_is_confirmed_by_none() -> None:
    rows = [profile("a", spread=2.0), profile("b", spread=0.9), profile("c", base="int8")]
    assert disturbances(rows)["c"] == Disturbance("alone")
    same = [profile("a", 1.0, spread=2.0), profile("b", 1.0), *(profile(name, 5.0, base="int8") for name in "cd")]
    assert set(disturbances(same)) == {"a", "b"}, "what was measured on another base confirms nothing"
    assert disturbances(rows[2:]) == {}, "a study with one profile has nothing to compare it with"


def test_one_profile_under_several_names_counts_once() -> None:
    rows = [profile(name, 1.0, key="one") for name in "abc"] + [profile("d", 1.5, key="two")]
    assert set(disturbances(rows)) == set("abcd"), "two measurements that disagree, however often one is named"
