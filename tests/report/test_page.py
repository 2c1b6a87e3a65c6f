"""The page in a real browser: what a reader clicks, types and sees, in both themes and on a phone."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser_fixture import asked, needs_browser, opened, said, show, until
from hostile_fixture import HOSTILE, hostile
from page_fixture import key_of, thousand, told
from results_fixture import study

from lorafile.analysis.registry import analyses
from lorafile.report.figures_json import as_json
from lorafile.report.html import page as html
from lorafile.specs.tables.analysis import AnalysisTable

pytestmark = needs_browser
LONG = "rank/" + "n" * 10_000
RANKS = "#summary table"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = told(study())
    return written(tmp_path_factory.mktemp("report"), results, [])


def written(where: Path, results: Any, kinds: list[str]) -> Path:
    tables = [AnalysisTable.model_validate({"kind": kind}) for kind in kinds]
    file = where / "report.html"
    file.write_text(html(results, analyses(results, tables)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def shown(report: Path) -> Iterator[Any]:
    with opened() as driver:
        show(driver, report)
        yield driver


def cells(driver: Any, table: str, column: int) -> list[str]:
    """Return the text of a column's visible cells, from the top."""
    script = """return [...document.querySelector(arguments[0]).tBodies[0].rows].filter((row) => !row.hidden)
        .map((row) => row.cells[arguments[1]].textContent)"""
    return list(driver.execute_script(script, table, column))


@pytest.mark.parametrize("dark", [False, True])
def test_every_chart_is_drawn_in_either_theme_without_a_word_or_a_request(report: Path, dark: bool) -> None:
    with opened(dark=dark) as driver:
        show(driver, report)
        wanted, drawn, inked = driver.execute_script(
            "return [page.places.length, document.querySelectorAll('[data-chart] svg.marks').length,"
            "page.places.filter((place) => place.querySelectorAll('.mark-symbol path, .mark-rect path').length).length]"
        )
        assert wanted > 10
        assert wanted == drawn
        assert inked > wanted / 2
        assert driver.execute_script("return document.documentElement.dataset.theme") == ("dark" if dark else "light")
        ground = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")
        assert said(driver) == []
        assert [address for address in asked(driver) if not address.startswith(("file:", "data:", "about:"))] == []


def test_a_chart_keeps_its_width_when_the_theme_changes(report: Path) -> None:
    widths = "return page.places.map((place) => Number(place.querySelector('svg.marks').getAttribute('width')))"
    with opened() as driver:
        show(driver, report)
        before = driver.execute_script(widths)
        for _ in range(2):
            driver.execute_script("document.getElementById('theme').click()")
            until(lambda: driver.execute_script("return document.documentElement.dataset.drawn !== undefined"))
        assert driver.execute_script(widths) == before


def test_terms_are_explained_and_what_is_the_same_in_every_row_is_said_once(shown: Any) -> None:
    from selenium.webdriver.common.by import By

    term = shown.find_element(By.XPATH, "//li//abbr[.='exact match']")
    assert "equal the reference" in str(term.get_attribute("title"))
    table = shown.find_element(By.CSS_SELECTOR, "#compare-lora-r .table")
    heads = [head.get_attribute("textContent") for head in table.find_elements(By.TAG_NAME, "th")]
    assert "compared with" not in heads
    assert "compared with rank 8" in str(table.find_element(By.CSS_SELECTOR, ".same").get_attribute("textContent"))


def test_charts_out_of_sight_are_drawn_when_nothing_else_is_to_be_done(report: Path) -> None:
    with opened() as driver:
        show(driver, report, "")
        assert driver.execute_script("return page.places.every((place) => place.querySelector('svg.marks'))")


def test_a_click_sorts_by_raw_figures_and_what_is_missing_comes_last(shown: Any) -> None:
    from selenium.webdriver.common.by import By

    table = "#cost table"
    heads = shown.find_elements(By.CSS_SELECTOR, f"{table} thead th")
    at = next(place for place, head in enumerate(heads) if head.text.startswith("saved size"))
    button = heads[at].find_element(By.TAG_NAME, "button")
    before = cells(shown, table, 0)
    shown.execute_script("arguments[0].click()", button)
    assert heads[at].get_attribute("aria-sort") == "ascending"
    upward = cells(shown, table, at)
    shown.execute_script("arguments[0].click()", button)
    downward = cells(shown, table, at)
    unit = {"KB": 1e3, "MB": 1e6, "GB": 1e9}
    size = [float(text.split()[0]) * unit[text.split()[1]] for text in upward if text != "–"]
    assert size == sorted(size)
    assert len({text.split()[-1] for text in upward if text != "–"}) > 1  # by size, not by the digits that are shown
    assert upward[-1] == downward[-1] == "–"
    assert next(text for text in downward if text != "–") == [text for text in upward if text != "–"][-1]
    shown.execute_script("arguments[0].click()", button)
    assert cells(shown, table, 0) == before
    assert heads[at].get_attribute("aria-sort") == "none"


def test_names_are_sorted_as_people_count(shown: Any) -> None:
    shown.execute_script("document.querySelector('#summary th button').click()")
    ranks = [name for name in cells(shown, RANKS, 0) if name.startswith("rank ")]
    assert ranks == [f"rank {rank}" for rank in (1, 2, 4, 8, 16, 32)]


def test_typing_filters_rows_and_tells_how_many_are_left(shown: Any) -> None:
    from selenium.webdriver.common.by import By

    box = shown.find_element(By.CSS_SELECTOR, "#cost input[type=search]")
    told_ = shown.find_element(By.CSS_SELECTOR, "#cost [role=status]")
    every = len(cells(shown, "#cost table", 0))
    box.send_keys("RANK/")  # by address, too
    assert cells(shown, "#cost table", 0) == [f"rank {rank}" for rank in (1, 2, 4, 8, 16, 32)]
    assert told_.text == f"6 of {every} rows"
    box.clear()
    box.send_keys("no such row")
    assert told_.text == f"0 of {every} rows"
    box.clear()
    box.send_keys(" ")
    assert len(cells(shown, "#cost table", 0)) == every


def test_the_keyboard_reaches_the_answer_sort_buttons_and_runs(report: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    def focus() -> Any:
        return driver.switch_to.active_element

    with opened() as driver:
        show(driver, report)
        driver.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
        assert focus().text == "Skip to the answer"
        assert driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
        for _ in range(200):
            focus().send_keys(Keys.TAB)
            if focus().get_attribute("class") == "sort":
                break
        head = focus().find_element(By.XPATH, "..")
        focus().send_keys(Keys.ENTER)
        assert head.get_attribute("aria-sort") == "ascending"
        story = driver.find_element(By.CSS_SELECTOR, "#c0 details.story")
        driver.execute_script("document.querySelector('#h-c0').setAttribute('tabindex', '-1')")
        driver.execute_script("document.querySelector('#h-c0').focus()")
        focus().send_keys(Keys.TAB)
        focus().send_keys(Keys.ENTER)
        until(lambda: story.get_attribute("open"))


def test_a_name_leads_to_its_runs_and_a_run_tells_what_stands_behind_it(shown: Any) -> None:
    from selenium.webdriver.common.by import By

    link = shown.find_element(By.XPATH, "//section[@id='summary']//tbody//a[.='rank 4'][@title='rank/r=4']")
    place = str(link.get_attribute("href")).partition("#")[2]
    assert shown.find_element(By.CSS_SELECTOR, f"#{place} h3").text == "rank/r=4"
    story = shown.find_element(By.CSS_SELECTOR, f"#{place} details.story")
    shown.execute_script("arguments[0].open = true", story)
    text = until(lambda: story.find_elements(By.CSS_SELECTOR, ".told")) and story.get_attribute("textContent")
    key = key_of("rank/r=4", 42, "train")
    assert key in text
    assert f"lora show {key[:12]}" in text
    assert "The capital of France is" in text
    assert "Paris, <b>surely</b>" in text  # an answer is text, whatever it says
    assert "0.250 nats per token (2 tokens)" in text
    assert '"dtype": "bfloat16"' in text
    assert len(story.find_elements(By.CSS_SELECTOR, "svg polyline")) == 1


def test_brushing_the_frontier_keeps_the_rows_of_its_points(shown: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    chart = shown.find_element(By.CSS_SELECTOR, "#chart-pareto svg.marks")
    shown.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", chart)
    every = set(cells(shown, "#pareto table", 0))
    script = """const box = document.querySelector('#chart-pareto .mark-group.role-frame path.background')
        .getBoundingClientRect(); return [box.x, box.y, box.width, box.height].map(Math.round)"""
    x, y, width, height = shown.execute_script(script)
    drag = ActionChains(shown, duration=50)
    drag.w3c_actions.pointer_action.move_to_location(x + 3, y + 3)
    drag.click_and_hold()
    drag.w3c_actions.pointer_action.move_to_location(x + width // 3, y + height // 2)
    drag.w3c_actions.pointer_action.move_to_location(x + width // 2, y + height - 3)
    drag.release()
    drag.perform()
    told_ = shown.find_element(By.CSS_SELECTOR, "#answer .brushed")
    until(lambda: "Selected" in told_.text)
    left = set(cells(shown, "#pareto table", 0))
    assert left < every
    assert f"Selected: {len(left)} of" in told_.text
    assert {name for name in cells(shown, RANKS, 0) if name in every} <= left  # the tables of all configurations, too
    button = told_.find_element(By.TAG_NAME, "button")
    shown.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
    button.click()
    assert set(cells(shown, "#pareto table", 0)) == every
    until(lambda: shown.execute_script("return document.documentElement.dataset.drawn"))


def test_a_row_that_is_pointed_at_is_ringed_on_the_frontier(shown: Any) -> None:
    def rings() -> int:
        script = "return document.querySelectorAll('#chart-pareto path[stroke-width=\"2.5\"]').length"
        return int(shown.execute_script(script))

    assert rings() == 0
    shown.execute_script("document.querySelector('#pareto tbody a').focus()")
    until(lambda: rings() == 1)
    shown.execute_script("document.activeElement.blur()")
    until(lambda: rings() == 0)


def test_everything_can_be_saved_from_inside_the_file(report: Path, tmp_path: Path) -> None:
    results = told(study())
    with opened() as driver:
        driver.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
        show(driver, report)
        driver.execute_script("document.querySelector('#download-all button').click()")
        driver.execute_script("document.querySelector('#cost .table .tools button').click()")
        driver.execute_script(
            "document.querySelectorAll('#answer figure .tools button').forEach((button) => button.click())"
        )
        names = {"results.json", "cost.csv", "pareto.png", "pareto.svg", "pareto.vl.json"}
        until(lambda: {file.name for file in tmp_path.iterdir()} >= names)
        assert said(driver) == []
    expected = json.loads(json.dumps(as_json(results, analyses(results, []))))
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    by_name = {one["name"]: one for one in found.pop("analyses")}
    for analysis in expected.pop("analyses"):
        assert by_name[analysis["name"]]["tables"] == analysis["tables"]
        assert by_name[analysis["name"]]["sentences"] == analysis["sentences"]
    assert found == expected
    with (tmp_path / "cost.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    cost = next(one for one in by_name.values() if one["name"] == "cost")["tables"][0]["rows"]
    assert [row["configuration"] for row in rows] == [row["configuration"] for row in cost]
    assert float(rows[0]["adapter_bytes"]) == cost[0]["adapter_bytes"]
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "pareto.svg").read_text(encoding="utf-8").startswith("<svg")
    assert json.loads((tmp_path / "pareto.vl.json").read_text(encoding="utf-8"))["$schema"].startswith("https://vega")


@pytest.mark.parametrize("width", [1280, 400])
def test_hostile_and_endless_names_are_text_and_break_no_layout(tmp_path: Path, width: int) -> None:
    results = hostile()
    swap = {HOSTILE[5]: LONG}
    changed = {
        table: getattr(results, table).assign(configuration=getattr(results, table)["configuration"].replace(swap))
        for table in ("configurations", "runs", "profiles", "curves")
    }
    changed["runs"] = changed["runs"].assign(message="line one\nline two \U0001f600 " + "m" * 10_000)
    file = written(tmp_path, replace(results, **changed), ["summary", "pareto", "cost", "curves"])
    with opened(width) as driver:
        show(driver, file)
        assert said(driver) == []
        assert driver.execute_script("return document.querySelectorAll('img, u, s, b').length") == 0
        text = driver.execute_script("return document.body.textContent")
        assert all(name in text for name in (*HOSTILE[:5], LONG, "line one\nline two \U0001f600"))
        assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        tallest = driver.execute_script(
            "return Math.max(...[...document.querySelectorAll('.long')].map((box) => box.clientHeight))"
        )
        assert 0 < tallest < 200
        reach = driver.execute_script(
            "return [...document.querySelectorAll('.long')].every((box) => box.tabIndex === 0 && "
            "(getComputedStyle(box).overflowY === 'auto'))"
        )
        assert reach


def test_on_a_phone_only_tables_and_charts_scroll_sideways(report: Path) -> None:
    with opened(400) as driver:
        show(driver, report)
        assert driver.execute_script("return innerWidth") == 400
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 400
        assert said(driver) == []


def test_a_thousand_runs_stay_below_ten_megabytes_and_are_all_there(tmp_path: Path) -> None:
    results = thousand()
    assert len(results.runs) == 1000
    file = written(tmp_path, results, ["summary", "trend", "pareto", "cost", "curves", "rates"])
    assert file.stat().st_size < 10_000_000
    with opened() as driver:
        show(driver, file, "")
        assert driver.execute_script("return document.querySelectorAll('details.story').length") == 1000
        assert driver.execute_script("return page.places.every((place) => place.querySelector('svg.marks'))")
        assert "first 200 runs" in driver.execute_script("return document.querySelector('#runs').textContent")
