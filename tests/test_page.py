"""The page in a real browser: every chart is drawn, in light and dark, and nothing breaks."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import results_fixture

from lorafile.analysis import analyses
from lorafile.report import write_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("report")
    results = results_fixture.study()
    return next(file for file in write_report(results, analyses(results, []), where) if file.name == "report.html")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_chart_is_drawn_without_a_word_on_the_console(page: Path, theme: str, tmp_path: Path) -> None:
    command = [
        str(BROWSER),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--enable-logging=stderr",
        "--virtual-time-budget=20000",
        "--dump-dom",
        f"{page.as_uri()}#{theme}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    wanted = len(re.findall(r"data-chart=", page.read_text(encoding="utf-8")))
    assert wanted > 5
    assert len(re.findall(r"<svg[^>]*marks", done.stdout)) == wanted
    assert f'data-theme="{theme}"' in done.stdout
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert said == []
