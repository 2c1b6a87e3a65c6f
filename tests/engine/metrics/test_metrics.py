"""Metrics against closed forms, scikit-learn, sacrebleu and rouge-score."""

import math
import random
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, log_loss, matthews_corrcoef, mean_squared_error

from lorafile.engine.metrics.registry import METRICS, OF_HEADS
from lorafile.specs.checks.analysis import WITHOUT_POINTS
from lorafile.specs.tables.evaluate import OF_ANSWERS, OF_CLASSES, OF_LIKELIHOODS, OF_REGRESSIONS, MetricName

ROWS = [
    {
        "row": 0,
        "log_likelihood": -2.0,
        "tokens": 4,
        "bytes": 8,
        "correct": 3,
        "answer": " Paris\n",
        "reference": "Paris",
    },
    {"row": 1, "log_likelihood": -6.0, "tokens": 1, "bytes": 2, "correct": 0, "answer": "rome", "reference": "Rome"},
]


def test_losses_weight_every_token_alike() -> None:
    assert METRICS["log_loss"].compute(ROWS) == (8 / 5, [0.5, 6.0])
    assert METRICS["perplexity"].compute(ROWS)[0] == pytest.approx(math.exp(1.6))
    assert METRICS["token_accuracy"].compute(ROWS) == (3 / 5, [0.75, 0.0])


def test_bits_per_byte_are_all_nats_over_all_bytes() -> None:
    figure, each = METRICS["bits_per_byte"].compute(ROWS)
    assert figure == pytest.approx(8 / math.log(2) / 10)
    assert each == pytest.approx([2 / math.log(2) / 8, 6 / math.log(2) / 2])


@given(st.lists(st.tuples(st.floats(-50, 0), st.integers(1, 30), st.integers(1, 90)), min_size=1, max_size=20))
def test_weighted_means_come_from_the_outcomes_and_their_weights(found: list[tuple[float, int, int]]) -> None:
    rows = [{"log_likelihood": a, "tokens": b, "bytes": c, "correct": b // 2} for a, b, c in found]
    for metric in METRICS.values():
        if metric.pooled == "weighted":
            figure, each = metric.compute(rows)
            weights = [row[metric.weight] for row in rows]
            mean = sum(weight * value for weight, value in zip(weights, each, strict=True)) / sum(weights)
            assert figure == pytest.approx(mean, abs=1e-12)


def test_exact_match_ignores_white_space_around_and_nothing_else() -> None:
    assert METRICS["exact_match"].compute(ROWS) == (0.5, [1.0, 0.0])


def test_a_hopeless_model_has_an_infinite_perplexity_and_no_error() -> None:
    assert METRICS["perplexity"].compute([{"log_likelihood": -1e6, "tokens": 1, "correct": 0}])[0] == math.inf


def test_specs_and_metrics_know_the_same_names() -> None:
    assert tuple(METRICS) == get_args(MetricName)
    assert {name for name, metric in METRICS.items() if metric.needs == "choice"} == {*OF_CLASSES}
    assert {name for name, metric in METRICS.items() if metric.needs == "generation"} == {*OF_ANSWERS}
    assert {name for name, metric in METRICS.items() if metric.needs == "likelihood"} == {*OF_LIKELIHOODS}
    assert {name for name, metric in METRICS.items() if metric.needs == "regression"} == {*OF_REGRESSIONS}
    assert {name for name, metric in METRICS.items() if not metric.unit.startswith(("share", "points"))} == {
        *WITHOUT_POINTS
    }


def chosen(classes: list[str], pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {"row": n, "reference": a, "answer": b, "scores": dict.fromkeys(classes, -1.0)}
        for n, (a, b) in enumerate(pairs)
    ]


@given(st.integers(2, 5).flatmap(lambda k: st.lists(st.tuples(*[st.sampled_from("abcde"[:k])] * 2), min_size=1)))
def test_classification_figures_are_scikit_learn_s(pairs: list[tuple[str, str]]) -> None:
    true, answers = [a for a, _ in pairs], [b for _, b in pairs]
    rows = chosen(sorted({*"abc", *true, *answers}), pairs)
    assert METRICS["accuracy"].compute(rows)[0] == pytest.approx(accuracy_score(true, answers))
    assert METRICS["f1"].compute(rows)[0] == pytest.approx(f1_score(true, answers, average="macro"))
    for average in ("micro", "weighted"):
        assert METRICS["f1"].compute(rows, average=average)[0] == pytest.approx(
            f1_score(true, answers, average=average)
        )
    if len({*true, *answers}) > 1:  # scikit-learn warns of a single class
        assert METRICS["matthews_correlation"].compute(rows)[0] == pytest.approx(matthews_corrcoef(true, answers))
    else:
        assert METRICS["matthews_correlation"].compute(rows)[0] == 0


def test_f1_of_two_classes_is_that_of_the_positive_one_as_in_glue() -> None:
    noise = random.Random(3)
    pairs = [(noise.choice(["no", "yes"]), noise.choice(["no", "yes"])) for _ in range(50)]
    rows = chosen(["no", "yes"], pairs)
    expected = f1_score([a for a, _ in pairs], [b for _, b in pairs], pos_label="yes")
    assert METRICS["f1"].compute(rows, pos_label="yes")[0] == pytest.approx(expected)
    assert METRICS["f1"].compute(rows, average="macro", pos_label="yes")[0] != pytest.approx(expected)


def test_log_loss_of_a_head_is_scikit_learn_s() -> None:
    noise = random.Random(5)
    rows, probabilities = [], []
    for number in range(20):
        scores = {name: noise.gauss(0, 2) for name in "abc"}
        total = sum(math.exp(score) for score in scores.values())
        probabilities.append([math.exp(score) / total for score in scores.values()])
        rows.append({"row": number, "reference": noise.choice("abc"), "answer": "a", "scores": scores})
    figure, each = OF_HEADS["log_loss"].compute(rows)
    assert figure == pytest.approx(log_loss([row["reference"] for row in rows], probabilities, labels=list("abc")))
    assert sum(each) / len(each) == pytest.approx(figure)


TEXTS = [
    ("The cat sat on the mat.", "The cat is on the mat."),
    ("There is a dog in the garden.", "A dog is in the garden."),
    ("", "Nothing was said."),
    ("It rains, and it pours.", "It rains, and it pours."),
]


def answers() -> list[dict[str, Any]]:
    return [{"row": n, "answer": a, "reference": b} for n, (a, b) in enumerate(TEXTS)]


def test_bleu_and_chrf_are_sacrebleu_s() -> None:
    import sacrebleu

    hypotheses, references = [a for a, _ in TEXTS], [[b for _, b in TEXTS]]
    bleu, each = METRICS["bleu"].compute(answers())
    assert bleu == sacrebleu.BLEU().corpus_score(hypotheses, references).score
    assert each[0] == sacrebleu.BLEU(effective_order=True).sentence_score(TEXTS[0][0], [TEXTS[0][1]]).score
    assert each[3] == pytest.approx(100)
    chrf, each = METRICS["chrf"].compute(answers())
    assert chrf == sacrebleu.CHRF().corpus_score(hypotheses, references).score
    assert each[2] == 0
    assert bleu != pytest.approx(sum(METRICS["bleu"].compute(answers())[1]) / 4), "a corpus figure is no mean"
    assert METRICS["bleu"].pooled == METRICS["chrf"].pooled == "corpus"


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_rouge_score_s(name: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    expected = [scorer.score(target=b, prediction=a)[name].fmeasure for a, b in TEXTS]
    figure, each = METRICS[name].compute(answers())
    assert each == expected
    assert figure == pytest.approx(sum(expected) / 4)


def test_rouge_1_by_hand() -> None:
    """Five of six words each: precision 5/6, recall 5/6."""
    assert METRICS["rouge1"].compute(answers()[:1])[0] == pytest.approx(5 / 6)


NUMBERS = st.floats(-5, 5).map(lambda number: round(number, 1))  # equal ones among them


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=30))
def test_figures_of_numbers_are_scipy_s_and_scikit_learn_s(pairs: list[tuple[float, float]]) -> None:
    rows = [{"row": n, "reference": a, "answer": b} for n, (a, b) in enumerate(pairs)]
    true, predicted = [a for a, _ in pairs], [b for _, b in pairs]
    assert METRICS["mse"].compute(rows)[0] == pytest.approx(mean_squared_error(true, predicted))
    constant = min(len({*true}), len({*predicted})) < 2  # scipy warns, and returns no number
    for name, theirs in (("pearson", pearsonr), ("spearman", spearmanr)):
        figure, each = METRICS[name].compute(rows)
        assert figure == pytest.approx(0.0 if constant else theirs(true, predicted)[0], abs=1e-9)
        assert sum(each) / len(each) == pytest.approx(figure, abs=1e-9), "each is a product of standardized numbers"


def test_correlations_of_numbers_by_hand() -> None:
    """Ranks 1, 2, 3 against 1, 3, 2: 1 − 6 · 2 / (3 · 8) = 0.5; numbers 0, 1, 2 against 0, 9, 3: 3 / (√2 · √42)."""
    rows = [{"reference": a, "answer": b} for a, b in ((0.0, 0.0), (1.0, 9.0), (2.0, 3.0))]
    assert METRICS["spearman"].compute(rows)[0] == pytest.approx(0.5)
    assert METRICS["pearson"].compute(rows)[0] == pytest.approx(3 / math.sqrt(2 * 42))
    assert METRICS["mse"].compute(rows) == (pytest.approx(65 / 3), [0.0, 64.0, 1.0])
