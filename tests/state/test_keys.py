"""Canonical JSON written for thousands of nodes is what the rfc8785 library writes."""

from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from lorafile.state.keys import canonical, canonical_texts

NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
SIMPLE = st.none() | st.booleans() | NUMBERS | st.text(max_size=5)
VALUES = SIMPLE | st.lists(SIMPLE, max_size=3) | st.dictionaries(st.text(max_size=3), SIMPLE, max_size=3)
NAMES = st.text("abcdefghijklmnopqrstuvwxyzABZ_.-/0123456789", min_size=1, max_size=8)


@given(st.dictionaries(NAMES | st.text(max_size=3), VALUES, max_size=6))
def test_a_section_is_written_as_the_library_writes_it(section: dict[str, Any]) -> None:
    assert canonical(section).encode() == rfc8785.dumps(section)


@pytest.mark.parametrize("same", [[1, 1.0], [True, 1], [0.0, -0.0], ["1", 1]])
def test_values_that_compare_equal_are_not_taken_for_each_other(same: list[Any]) -> None:
    for value in [*same, *reversed(same)]:
        assert canonical({"r": value}).encode() == rfc8785.dumps({"r": value})


@given(st.dictionaries(NAMES, st.text("0123456789abcdef", min_size=64, max_size=64), max_size=6))
def test_digests_are_written_as_the_library_writes_them(texts: dict[str, str]) -> None:
    assert canonical_texts(texts).encode() == rfc8785.dumps(texts)
