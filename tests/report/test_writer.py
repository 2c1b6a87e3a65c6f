import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hostile_fixture import HOSTILE, hostile
from markdown_it import MarkdownIt
from results_fixture import empty, study

from lorafile.analysis.registry import analyses
from lorafile.report.content import limits
from lorafile.report.html import page
from lorafile.report.markdown import document, plain
from lorafile.report.theme import config
from lorafile.report.writer import figures, write_report
from lorafile.specs.tables.analysis import AnalysisTable, ClaimTable, PublishedTable


class Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag  # every element is closed, in order

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def text(self) -> str:
        return "".join(text for tag, text in self.texts if tag not in ("script", "style"))

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(next(text for tag, text in self.texts if tag == "script"))
        return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("report") / "new" / "report"
    results = study()
    files = write_report(results, analyses(results, []), directory)
    assert all(file.is_file() for file in files)
    return directory


def test_the_page_asks_the_network_for_nothing(written: Path) -> None:
    html = (written / "report.html").read_text(encoding="utf-8")
    found = Page(html)
    assert {tag for tag, _ in found.elements}.isdisjoint({"link", "img", "iframe", "object", "embed", "base", "form"})
    loads = [
        value
        for _, attributes in found.elements
        for key, value in attributes.items()
        if key in ("src", "href", "srcset")
    ]
    assert all(str(value).startswith("#") for value in loads)
    policy = next(attributes["content"] for tag, attributes in found.elements if attributes.get("http-equiv"))
    assert str(policy).startswith("default-src 'none'")
    assert not any(mark in "".join(text for tag, text in found.texts if tag == "style") for mark in ("@import", "url("))
    assert "http" not in json.dumps(found.data)
    assert len(html) < 10_000_000


def test_every_chart_is_on_the_page_and_beside_the_document(written: Path) -> None:
    found = Page((written / "report.html").read_text(encoding="utf-8"))
    places = [attributes["data-chart"] for _, attributes in found.elements if "data-chart" in attributes]
    document_text = (written / "RESULTS.md").read_text(encoding="utf-8")
    assert sorted(map(str, places)) == sorted(found.data["charts"])
    for name in found.data["charts"]:
        assert f"(charts/{name}.png)" in document_text
        assert (written / "charts" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_figures_tables_and_charts_stand_beside_the_page_as_files(written: Path) -> None:
    results = study()
    found = json.loads((written / "results.json").read_text(encoding="utf-8"))
    assert found == json.loads(json.dumps(figures(results, analyses(results, []))))
    assert pd.read_csv(written / "tables" / "every-run.csv")["seed"].tolist().count("2024") == len(results.runs) // 3
    sizes = pd.read_csv(written / "tables" / "cost.csv").set_index("configuration")["adapter_bytes"]
    assert sizes["rank/r=8"] == results.runs.set_index("configuration").loc["rank/r=8", "adapter_bytes"].iloc[0]
    for name in Page((written / "report.html").read_text(encoding="utf-8")).data["charts"]:
        assert (written / "charts" / f"{name}.svg").read_text(encoding="utf-8").startswith("<svg")
        spec = json.loads((written / "charts" / f"{name}.vl.json").read_text(encoding="utf-8"))
        assert "vega-lite" in spec["$schema"]
        assert spec["config"]["background"] == config("light")["background"]


def test_recommendations_stand_before_the_figures_and_limits_before_the_runs(written: Path) -> None:
    html = (written / "report.html").read_text(encoding="utf-8")
    order = [html.index(f'id="{name}"') for name in ("answer", "recommend", "summary", "methods", "limits", "runs")]
    assert order == sorted(order)


def test_few_seeds_and_rates_that_are_not_bracketed_stand_among_the_limits() -> None:
    results = study((42,))
    higher = ("rates/learning_rate=0.001", "rates/learning_rate=0.005")
    kept = {
        name: getattr(results, name)[~getattr(results, name)["configuration"].isin(higher)]
        for name in ("configurations", "runs", "profiles", "curves")
    }
    fewer = replace(results, **kept)
    told = limits(fewer, analyses(fewer, [AnalysisTable(kind="rates")]))
    assert any("2e-4 has the best mean" in line and "not bracketed" in line for line in told)
    assert any(line.startswith("With only 1 seed") for line in told)
    assert not any(
        "not bracketed" in line for line in limits(results, analyses(results, [AnalysisTable(kind="rates")]))
    )


def test_names_in_text_and_tables_lead_to_their_runs() -> None:
    results = study()
    found = Page(page(results, analyses(results, [AnalysisTable(kind="summary")])))
    targets = {str(attributes["id"]) for _, attributes in found.elements if "id" in attributes}
    links = [str(attributes["href"])[1:] for tag, attributes in found.elements if attributes.get("class") == "run"]
    places = {f"c{at}" for at in range(len(results.configurations))}
    assert places <= set(links)
    assert set(links) <= targets


def test_the_page_warns_answers_and_then_shows(written: Path) -> None:
    html = (written / "report.html").read_text(encoding="utf-8")
    order = [html.index(f'id="{name}"') for name in ("warnings", "answer", "trend-rank-lora-r", "summary", "methods")]
    assert order == sorted(order)


def test_tables_and_charts_can_be_reached_and_read_out(written: Path) -> None:
    found = Page((written / "report.html").read_text(encoding="utf-8"))
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in found.elements if tag == "th")
    scrolling = [
        attributes for _, attributes in found.elements if str(attributes.get("class", "")).startswith("scroll")
    ]
    assert scrolling
    assert all(attributes["tabindex"] == "0" and attributes["aria-label"] for attributes in scrolling)
    assert all(chart["description"] for chart in found.data["charts"].values())


def test_every_run_and_every_configuration_is_on_the_page() -> None:
    results = study()
    text = Page(page(results, [])).text
    assert all(name in text for name in results.configurations["configuration"])
    assert "the loss became NaN at step 61" in text


def test_hostile_text_is_text_on_the_page() -> None:
    results = hostile()
    plain_page, found = Page(page(study(), analyses(study(), []))), Page(page(results, analyses(results, [])))
    tags = {tag for tag, _ in found.elements}
    assert tags <= {tag for tag, _ in plain_page.elements}
    assert sum(tag == "script" for tag, _ in found.elements) == sum(tag == "script" for tag, _ in plain_page.elements)
    assert not any(key.startswith("on") for _, attributes in found.elements for key in attributes)
    for name in (*HOSTILE, "<u>study</u>", "</td><img src=x onerror=alert(2)>"):
        assert name in found.text
    assert found.data["charts"]


def test_a_right_to_left_name_is_isolated_wherever_it_stands() -> None:
    results = hostile()
    html = page(results, analyses(results, []))
    shown = html[: html.index("<script")]
    assert "\u202e" in shown
    assert all(
        before.rfind("<bdi>") > before.rfind("</bdi>") or "aria-label" in before[-200:]
        for before in shown.split("\u202egnp.exe")[:-1]
    )


def test_a_claim_and_a_source_turn_nothing_either() -> None:
    claim = {"text": "it \u202eholds", "one": "rank/r=8", "at_least": 0.5}
    published = {"name": "a \u202ename", "value": 0.7, "source": "a \u202esource"}
    tables = {"claims": (ClaimTable(**claim),), "published": (PublishedTable(**published),)}
    results = replace(study(), **tables)
    html = page(results, analyses(results, [AnalysisTable(kind="rates")]))
    shown = html[: html.index("<script")]
    for text in ("it \u202eholds", "a \u202ename", "a \u202esource"):
        assert shown.count(text) == shown.count(f"<bdi>{text}</bdi>") > 0


def test_hostile_text_is_text_in_the_document() -> None:
    results = hostile()
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(document(results, analyses(results, [])))
    inner = [child for token in tokens for child in token.children or []]
    assert not [token for token in (*tokens, *inner) if token.type in ("html_block", "html_inline", "link_open")]
    assert all(token.attrs["src"].startswith("charts/") for token in inner if token.type == "image")
    text = "".join(token.content for token in inner if token.type == "text" or token.type == "text_special")
    for name in (*HOSTILE[:2], *HOSTILE[3:]):
        assert name in text
    assert "\u202e" not in text
    assert "rank/U+202Egnp.exe" in text


@pytest.mark.parametrize(
    "text", ["1. no list", "- no list", "---", "0.5 %", "# no title", "a\nb", "> no quote", "a@b.example", "snake_case"]
)
def test_plain_text_stays_one_paragraph(text: str) -> None:
    tokens = MarkdownIt("commonmark", {"html": True}).parse(plain(text))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    shown = "".join(child.content for child in tokens[1].children or [])
    assert shown == text.replace("\n", " ")


def test_figures_are_strict_json_with_everything_in_it() -> None:
    results = study()
    found = json.loads(json.dumps(figures(results, analyses(results, [])), allow_nan=False))
    assert found["format_version"] == "1.0"
    assert len(found["runs"]) == len(results.runs)
    lost = next(row for row in found["runs"] if row["outcome"] == "diverged")
    assert lost["test.exact_match"] is None
    rank = next(analysis for analysis in found["analyses"] if analysis["name"] == "trend-rank-lora-r")
    assert [row["value"] for row in rank["tables"][0]["rows"]] == ["1", "2", "4", "8", "16", "32"]
    assert rank["charts"]["trend-rank-lora-r"]["data"]


def test_a_study_without_results_still_has_a_page(tmp_path: Path) -> None:
    files = write_report(empty(), analyses(empty(), []), tmp_path)
    expected = ["report.html", "RESULTS.md", "results.json", "results.tex", "references.bib"]
    assert [file.name for file in files] == expected
    assert "No run has been recorded yet." in Page(files[0].read_text(encoding="utf-8")).text
    json.dumps(figures(empty(), []), allow_nan=False)


def test_a_study_that_has_only_begun_says_what_is_missing() -> None:
    results = study()
    runs = results.runs[["configuration", "sweep", "seed"]].assign(outcome="missing", message="")
    begun = replace(results, runs=runs, profiles=pd.DataFrame(), curves=pd.DataFrame())
    text = Page(page(begun, analyses(begun, []))).text
    assert "55 not run yet" in text
    assert "No trained configuration has a result for exact match yet." in text


def test_the_answer_is_there_without_a_declared_summary() -> None:
    results = study()
    text = Page(page(results, analyses(results, [AnalysisTable(kind="rates")]))).text
    assert "has the highest mean exact match on validation" in text


def test_both_themes_style_the_same_marks() -> None:
    light, dark = config("light"), config("dark")
    assert light["style"].keys() == dark["style"].keys()
    assert light["background"] != dark["background"]


def test_every_style_that_a_chart_names_is_in_the_theme() -> None:
    def styles(spec: Any) -> set[str]:
        inner = spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else []
        own = {spec["style"]} if isinstance(spec, dict) and isinstance(spec.get("style"), str) else set()
        return own.union(*(styles(item) for item in inner))

    charts = [chart for analysis in analyses(study(), []) for chart in analysis.charts.values()]
    named = set().union(*(styles({**chart.to_dict(), "datasets": {}}) for chart in charts))
    assert named <= set(config("light")["style"])
