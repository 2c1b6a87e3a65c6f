"""A headless Chromium that asks the network for nothing, and tells what a page said and asked for."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
)
WAIT = 120.0  # seconds for a loaded machine; nobody is held to them

needs_browser = pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="no Chromium with its chromedriver here: the page is tested in a browser"
)


@contextmanager
def opened(width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Any]:
    """Open a browser of a size, with the operating system's theme as asked."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        if width < 500:  # the window itself cannot be as narrow as a phone
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        yield driver
    finally:
        driver.quit()


def show(driver: Any, page: Path, hash_: str = "all") -> None:
    """Show a page and wait until all of its charts are drawn."""
    driver.get("about:blank")
    driver.get(f"{page.as_uri()}#{hash_}")
    until(lambda: driver.execute_script("return document.documentElement.dataset.drawn"))


def until(true: Any) -> Any:
    """Wait until something is true, and return it."""
    end = time.monotonic() + WAIT
    while not (found := true()):
        assert time.monotonic() < end, "it never became so"
        time.sleep(0.05)
    return found


def said(driver: Any) -> list[str]:
    """Return what the page wrote to the console since somebody last asked, whatever its level."""
    # A legend of the loss curves names twelve lines, and the caption says so.
    meant = "Symbol legend count exceeds limit"
    return [entry["message"] for entry in driver.get_log("browser") if meant not in entry["message"]]


def asked(driver: Any) -> list[str]:
    """Return every address that the page asked for since somebody last asked."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
