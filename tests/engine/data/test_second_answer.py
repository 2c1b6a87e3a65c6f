"""Answers in a column of their own, next to a worked solution: whether one is what the other says."""

import pytest

from lorafile.engine.data.second_answer import agree, second_answer

NAMES = ["instruction", "input", "output", "answer"]


@pytest.mark.parametrize(
    ("text", "answer", "same"),
    [
        ("The answer is 32.", "8.0", False),
        ("Each person ate 8 crackers. The answer is 8.", "8.0", True),
        ("they made $1,092 from the game", "1092.0", True),
        ("the answer is 80", "8", False),
        ("so it is -5", "5", False),
        ("the answer is 2.5 days", 2.5, True),
        ("The answer is (D).", "D", True),
        ("The answer is (D).", "A", False),
        ("the correct answer is true", True, True),
        ("the correct answer is untrue", "true", False),
        ("They met in New York City.", "new york", True),
        ("They met in York.", "new york", False),
        ("", "8", None),
        ("The answer is 8.", None, None),
    ],
)
def test_an_answer_is_looked_for_as_word_number_or_phrase(text: str, answer: object, same: bool | None) -> None:
    assert agree(text, answer) is same


@pytest.mark.parametrize(
    ("form", "columns", "names", "pair"),
    [
        ("alpaca", {}, NAMES, ("output", "answer")),
        ("alpaca", {"output": "answer"}, NAMES, None),
        ("alpaca", {}, NAMES[:3], None),
        ("completion", {}, ["prompt", "completion", "final_answer"], ("completion", "final_answer")),
        ("question", {}, ["question", "answer", "solution"], None),
        ("question", {"answer": "solution"}, ["question", "answer", "solution"], ("solution", "answer")),
        ("chat", {}, ["messages", "answer"], None),
    ],
)
def test_a_second_answer_is_one_that_is_not_read(
    form: str, columns: dict[str, str], names: list[str], pair: tuple[str, str] | None
) -> None:
    assert second_answer(form, columns, names) == pair
