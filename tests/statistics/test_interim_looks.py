"""The shares of alpha that looks have."""

import pytest

from lorafile.statistics.deciding import shares


def test_the_first_look_has_most_and_all_together_never_more_than_alpha() -> None:
    assert shares(0.05, 0.2, 3) == pytest.approx((0.04, 0.008, 0.0016))
    assert sum(shares(0.05, 0.2, 40)) == pytest.approx(0.05)


def test_a_study_that_keeps_nothing_spends_all_at_its_first_look() -> None:
    assert shares(0.05, 0.0, 2) == (0.05, 0.0)
