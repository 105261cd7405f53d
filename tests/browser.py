"""A real browser (Debian's Chromium) for tests, without a screen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.peers import require

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


@contextmanager
def browser(profile: Path, width: int = 1280, height: int = 900, *, dark: bool = True) -> Iterator[Chrome]:
    """Run a browser inside the block; `profile` is an empty folder."""
    driver, chromium = require("chromedriver"), require("chromium")
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    made = Chrome(options, Service(driver))
    try:
        made.set_page_load_timeout(60)
        made.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        made.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        yield made
    finally:
        made.quit()
        shutil.rmtree(profile, ignore_errors=True)
