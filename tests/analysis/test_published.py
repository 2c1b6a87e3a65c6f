from dataclasses import replace
from typing import Any

import pytest
from results_fixture import study
from statsmodels.stats.proportion import proportion_confint

from lorafile.analysis.common.published import figures
from lorafile.analysis.compare.verdicts import family
from lorafile.analysis.registry import analyses
from lorafile.report.html import page
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable, PublishedTable

PUBLISHED: tuple[dict[str, Any], ...] = (
    {
        "name": "LoRA r32",
        "value": 0.745,
        "n": 1319,
        "source": "a table",
        "settings": {"lora": {"r": 24}},
        "costs": {"train_memory": "6.3GB"},
    },
    {"name": "Full", "value": 0.69, "error": 0.02, "source": "<i>a paper</i>"},
    {"name": "Loss", "value": 0.5, "metric": "log_loss", "n": 100, "source": "a paper"},
)


def with_published(*tables: dict[str, Any]) -> Results:
    return replace(study(), published=tuple(PublishedTable.model_validate(table) for table in tables or PUBLISHED))


def drawn(results: Results, kind: str) -> list[dict[str, Any]]:
    """Return every row of data of the first chart of a kind that belongs to something published."""
    table = AnalysisTable.model_validate({"kind": kind} | ({"factor": "lora.r"} if kind == "trend" else {}))
    (chart, *_) = analyses(results, [table])[0].charts.values()
    rows = [row for data in chart.to_dict()["datasets"].values() for row in data]
    return [row for row in rows if str(row.get("label", "")).startswith("published: ")]


def test_a_share_without_an_error_has_the_binomial_one() -> None:
    lora, full, loss = figures(with_published())
    low, high = proportion_confint(round(0.745 * 1319), 1319, alpha=0.3173105, method="normal")  # ± one error
    assert lora.ends == pytest.approx((low, high), abs=1e-3)
    assert (full.error, full.from_n) == (0.02, False)
    assert loss.ends == (0.5, 0.5)  # no share: its n says nothing of its error


@pytest.mark.parametrize("kind", ["summary", "trend", "pareto"])
def test_it_is_drawn_beside_the_studys_own_figures(kind: str) -> None:
    rows = drawn(with_published(), kind)
    assert {"published: LoRA r32 74.5\u202f%"} <= {row["label"] for row in rows}
    assert not any("Loss" in row["label"] for row in rows)  # another metric
    lora = next(row for row in rows if "LoRA" in row["label"])
    assert lora["low"] < lora["mean"] < lora["high"]


def test_it_stands_at_its_own_place_where_that_is_known() -> None:
    results = with_published()
    assert {row["x"] for row in drawn(results, "trend") if "LoRA" in row["label"]} == {24}
    assert {row["x"] for row in drawn(results, "pareto")} == {6.3}  # the other has no cost
    outside = with_published(PUBLISHED[0] | {"settings": {"lora": {"r": 512}}})
    assert all("x" not in row for row in drawn(outside, "trend"))  # a line across, as its rank was not studied


def test_what_lies_far_away_is_said_and_not_drawn() -> None:
    results = with_published({"name": "Far", "value": 9.0, "metric": "log_loss", "source": "s"})
    (summary,) = [one for one in analyses(results, [AnalysisTable(kind="summary", metric="log_loss")]) if one.charts]
    assert "Published: Far 9.00 lies outside the axis." in next(iter(summary.captions.values()))


def test_it_takes_no_part_in_any_verdict() -> None:
    plain, beside = family(study()).verdicts, family(with_published()).verdicts
    assert [verdict.word for verdict in plain] == [verdict.word for verdict in beside]


def test_the_report_says_where_it_is_from_and_that_it_is_not_tested() -> None:
    results = with_published()
    section = analyses(results, [AnalysisTable(kind="rates")])[-1]
    assert section.name == "published"
    assert "do not enter any test" in section.sentences[0]
    assert "published for LoRA r32; the one shown is binomial" in section.sentences[1]
    html = page(results, [section])
    assert "&lt;i&gt;a paper&lt;/i&gt;" in html
    assert "1.2 points" in html
