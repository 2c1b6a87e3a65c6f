"""Each example's influence on a figure of the whole corpus, against leaving it out by brute force."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

from lorafile.engine.metrics.registry import METRICS

Figure = Callable[[list[dict[str, Any]]], float]
WORDS = ["the", "cat", "dog", "sat", "ran", "on", "in", "under", "a", "mat", "house", "red", "and", "it", "was"]


def classes(names: str, n: int = 60) -> list[dict[str, Any]]:
    noise = random.Random(7)
    rows = [{"reference": noise.choice(names), "scores": dict.fromkeys(names, -1.0)} for _ in range(n)]
    return [row | {"answer": row["reference"] if noise.random() < 0.6 else noise.choice(names)} for row in rows]


def sentences(n: int = 40) -> list[dict[str, Any]]:
    noise = random.Random(11)
    texts = [[noise.choice(WORDS) for _ in range(noise.randint(3, 14))] for _ in range(n)]
    garbled = [[word if noise.random() < 0.8 else noise.choice(WORDS) for word in text] for text in texts]
    return [{"reference": " ".join(a), "answer": " ".join(b)} for a, b in zip(texts, garbled, strict=True)]


def numbers(n: int = 40, places: int = 1) -> list[dict[str, Any]]:
    noise = random.Random(17)
    rows = [{"reference": round(noise.uniform(0, 5), places)} for _ in range(n)]
    return [row | {"answer": round(row["reference"] + noise.gauss(0, 1.5), places)} for row in rows]


def both(rows: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    return [row["reference"] for row in rows], [row["answer"] for row in rows]


def leaving_out(figure: Figure, rows: list[dict[str, Any]]) -> list[float]:
    n, whole = len(rows), figure(rows)
    return [n * whole - (n - 1) * figure(rows[:at] + rows[at + 1 :]) for at in range(n)]


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_f1_of_many_classes(average: str) -> None:
    rows = classes("abcd")
    expected = leaving_out(lambda some: f1_score(*both(some), average=average), rows)
    assert METRICS["f1"].influence(rows, average=average) == pytest.approx(expected)


def test_f1_of_one_class() -> None:
    rows = classes("ny")
    expected = leaving_out(lambda some: f1_score(*both(some), pos_label="y"), rows)
    assert METRICS["f1"].influence(rows, pos_label="y") == pytest.approx(expected)


@pytest.mark.parametrize("names", ["ny", "abcd"])
def test_matthews_correlation(names: str) -> None:
    rows = classes(names)
    expected = leaving_out(lambda some: matthews_corrcoef(*both(some)), rows)
    assert METRICS["matthews_correlation"].influence(rows) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["BLEU", "CHRF"])
def test_bleu_and_chrf(name: str) -> None:
    import sacrebleu

    metric = getattr(sacrebleu, name)()
    rows = sentences()
    expected = leaving_out(lambda some: metric.corpus_score(both(some)[1], [both(some)[0]]).score, rows)
    assert METRICS[name.lower()].influence(rows) == pytest.approx(expected)


@pytest.mark.parametrize(("name", "theirs"), [("pearson", pearsonr), ("spearman", spearmanr)])
def test_correlations_of_numbers(name: str, theirs: Any) -> None:
    rows = numbers()
    assert len({row["answer"] for row in rows}) < len(rows), "some share a rank"
    expected = leaving_out(lambda some: theirs(*both(some))[0], rows)
    assert METRICS[name].influence(rows) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_an_example_without_which_nothing_varies_is_left_out_exactly(name: str) -> None:
    rows = [{"reference": float(n), "answer": 0.1} for n in range(6)] + [{"reference": 6.0, "answer": 1e6}]
    figure, expected = METRICS[name].compute(rows)[0], leaving_out(lambda some: METRICS[name].compute(some)[0], rows)
    assert METRICS[name].influence(rows) == pytest.approx(expected)
    assert METRICS[name].influence(rows)[-1] == pytest.approx(7 * figure), "without it there is no correlation"


ROWS = {"f1": classes("abc", 400), "matthews_correlation": classes("abc", 400), "bleu": sentences(100)}
ROWS["chrf"] = ROWS["bleu"]
ROWS["pearson"] = ROWS["spearman"] = numbers(400, 3)


@pytest.mark.parametrize("name", ROWS)
def test_the_mean_influence_is_the_figure_and_its_spread_the_bootstrap_s(name: str) -> None:
    metric, rows = METRICS[name], ROWS[name]
    figure, influence = metric.compute(rows)[0], np.array(metric.influence(rows))
    noise = random.Random(13)
    again = [metric.compute(noise.choices(rows, k=len(rows)))[0] for _ in range(120)]
    error = influence.std(ddof=1) / len(rows) ** 0.5
    assert abs(influence.mean() - figure) < 0.1 * error, "far below what it is to tell"
    assert error == pytest.approx(np.std(again, ddof=1), rel=0.25)


@pytest.mark.parametrize("name", ROWS)
def test_one_example_alone_is_the_figure(name: str) -> None:
    [row] = ROWS[name][:1]
    assert METRICS[name].influence([row]) == [METRICS[name].compute([row])[0]]


def test_every_figure_of_a_corpus_has_influences_or_is_compared_as_another() -> None:
    without = {name for name, metric in METRICS.items() if metric.pooled == "corpus" and not metric.influence}
    assert without == {"perplexity"}
