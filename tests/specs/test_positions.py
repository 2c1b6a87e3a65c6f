"""Where each key and element of a TOML document stands."""

import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from lorafile.specs.positions import locate, positions

DOCUMENT = '''\
title = "x" # [not.a.table]
"quoted.key" = 'y = 3'

[a.b]
c = [1, [2, 3], { d = 4, e.f = 5 }]
text = """
[[no]]
g = 1 \\""" """

[[sweep]]
lora.r = [
  4, # a comment, with a comma
  8,
]

  [[sweep]]
  lora = {
    r = 3,
    lora_alpha = 4,
  }
[sweep.train]
"learning\\u005frate" = [1e-4]
'''


def test_keys_and_elements_are_located() -> None:
    known = positions(DOCUMENT)
    assert known["title",] == (1, 1)
    assert known["quoted.key",] == (2, 1)
    assert known["a", "b"] == (4, 1)
    assert known["a", "b", "c", 1, 0] == (5, 10)
    assert known["a", "b", "c", 2, "e", "f"] == (5, 28)
    assert known["sweep", 0] == (10, 1)
    assert known["sweep", 0, "lora", "r", 1] == (13, 3)
    assert known["sweep", 1] == (16, 3)
    assert known["sweep", 1, "lora", "lora_alpha"] == (19, 5)


def test_an_escaped_key_is_found_by_its_meaning() -> None:
    assert positions(DOCUMENT)["sweep", 1, "train", "learning_rate"] == (22, 1)


def test_what_looks_like_a_key_in_a_text_is_none() -> None:
    assert not any(part in ("no", "g", "not") for path in positions(DOCUMENT) for part in path)


def test_windows_line_ends_change_no_position() -> None:
    assert positions(DOCUMENT.replace("\n", "\r\n")) == positions(DOCUMENT)


def test_the_nearest_enclosing_thing_stands_for_what_is_not_there() -> None:
    known = positions(DOCUMENT)
    assert locate(known, ("a", "b", "missing")) == (4, 1)
    assert locate(known, ("nothing",)) == (1, 1)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="[]{}=.,'\"\n #\\ab1é", max_size=30))
def test_every_valid_document_is_scanned_and_every_top_key_found(text: str) -> None:
    try:
        document = tomli.loads(text)
    except tomli.TOMLDecodeError:
        return
    known = positions(text)
    assert all((key,) in known or any(path[0] == key for path in known) for key in document)
