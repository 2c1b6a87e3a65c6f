"""How long does a reader wait for the page of a made-up study of 1,000 runs, and how many bytes is it?

Run `python benchmarks/page.py` where Chromium and its chromedriver are installed; it prints a table and writes
`benchmarks/results/DATE-page.json`.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "fixtures"))
TURNS = 5

SEEN = """const drawn = (place) => place.querySelector('svg.marks') !== null;
const sight = ({ top, bottom }) => bottom > 0 && top < innerHeight;
const { places } = page;
return [places.filter((place) => sight(place.getBoundingClientRect())).every(drawn), places.every(drawn)]"""


def made(file: Path) -> dict[str, float]:
    """Write the page of 1,000 runs with every analysis, and return how long its parts took."""
    from page_fixture import thousand

    from lorafile.analysis.registry import analyses
    from lorafile.report.html import page

    results = thousand()
    began = time.perf_counter()
    found = analyses(results, [])
    analysed = time.perf_counter()
    file.write_text(page(results, found), encoding="utf-8")
    return {"analyse_seconds": analysed - began, "write_seconds": time.perf_counter() - analysed}


def turn(driver: Any, file: Path) -> dict[str, float]:
    """Return the seconds from asking for the page to its tables, to the charts in sight, and to every chart."""
    driver.get("about:blank")
    began = time.perf_counter()
    driver.get(file.as_uri())
    found = {"tables": time.perf_counter() - began}
    while "every_chart" not in found:
        seen, every = driver.execute_script(SEEN)
        now = time.perf_counter() - began
        if seen:
            found.setdefault("charts_in_sight", now)
        if every:
            found["every_chart"] = now
        time.sleep(0.02)
    return found


def main() -> None:
    from browser_fixture import opened

    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "report.html"
        parts = made(file)
        size = file.stat().st_size
        with opened() as driver:
            turns = [turn(driver, file) for _ in range(TURNS + 1)][1:]
            browser = driver.capabilities["browserVersion"]
    seconds = {name: statistics.median(one[name] for one in turns) for name in turns[0]}
    print(f"{'bytes':16} {size:12,}")
    for name, value in {**parts, **seconds}.items():
        print(f"{name:16} {value:10.2f} s")
    about = {"date": datetime.now(UTC).date().isoformat(), "machine": platform.processor() or platform.machine()}
    about |= {"cores": os.cpu_count(), "load": os.getloadavg()[0], "chromium": browser, "turns": TURNS}
    about |= {"python": platform.python_version(), "lorafile": version("lorafile"), "runs": 1000}
    out = HERE / "results"
    out.mkdir(exist_ok=True)
    found = {**about, "bytes": size, **parts, "median_seconds_until": seconds}
    (out / f"{about['date']}-page.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
