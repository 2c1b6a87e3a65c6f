"""Metrics against closed forms and scikit-free arithmetic."""

import math

import pytest

from lorafile.metrics import METRICS

ROWS = [
    {"row": 0, "log_likelihood": -2.0, "tokens": 4, "correct": 3, "answer": " Paris\n", "reference": "Paris"},
    {"row": 1, "log_likelihood": -6.0, "tokens": 1, "correct": 0, "answer": "rome", "reference": "Rome"},
]


def test_losses_weight_every_token_alike() -> None:
    assert METRICS["log_loss"].compute(ROWS) == (8 / 5, [0.5, 6.0])
    assert METRICS["perplexity"].compute(ROWS)[0] == pytest.approx(math.exp(1.6))
    assert METRICS["token_accuracy"].compute(ROWS) == (3 / 5, [0.75, 0.0])


def test_exact_match_ignores_white_space_around_and_nothing_else() -> None:
    assert METRICS["exact_match"].compute(ROWS) == (0.5, [1.0, 0.0])


def test_a_hopeless_model_has_an_infinite_perplexity_and_no_error() -> None:
    assert METRICS["perplexity"].compute([{"log_likelihood": -1e6, "tokens": 1, "correct": 0}])[0] == math.inf
