"""The reading worklist for tests of its pages: people who are their role, the application, a server, a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from dicom_node.config import Web
from dicom_node.domain.errors import AccessError
from dicom_node.domain.people import Opened, Person, Session
from dicom_node.domain.reading import Role
from dicom_node.web.app import create_app
from dicom_node.web.server import served
from tests.peers import free_port, require

CSRF = "the-sessions-token"
PHONE, DESK = (390, 844), (1280, 900)


class Roles:
    """Lets in who names a role; the passcode is the role too. The session's token is the role's name."""

    def login(self, name: str, passcode: str, address: str) -> Opened:
        if name != passcode or name not in list(Role):
            raise AccessError("name or passcode is wrong")
        return self.vouched(name, name, Role(name), address)

    def follow_link(self, token: str, address: str) -> Opened:
        return self.login(token, token, address)

    def vouched(self, name: str, subject: str, role: Role, address: str) -> Opened:
        return Opened(Session(Person(name, role), CSRF), role.value)

    def session(self, token: str, *, alive: bool = True) -> Session | None:
        return Session(Person(token, Role(token)), CSRF) if token in list(Role) else None

    def program(self, token: str) -> Person | None:
        return None

    def logout(self, token: str, name: str, address: str) -> None:
        pass

    def anybody(self) -> bool:
        return True


def application(desk: Any, port: int = 8080) -> FastAPI:
    return create_app(desk, Roles(), Web(port=port, host_names=("testserver",)))


def client(desk: Any, role: str = "viewer") -> TestClient:
    """Return a browser without a script, logged in."""
    return TestClient(application(desk), cookies={"dicom-node": role} if role else {}, follow_redirects=False)


@contextmanager
def open_room(desk: Any) -> Iterator[str]:
    """Serve the application; yields its address without the last slash."""
    port = free_port()
    with served(application(desk, port), Web(port=port)) as address:
        yield address.rstrip("/")


@contextmanager
def browser(size: tuple[int, int] = DESK, *, light: bool = False) -> Iterator[webdriver.Chrome]:
    """Start Chromium without a window; skips the test where it is not installed."""
    options = webdriver.ChromeOptions()
    options.binary_location = require("chromium")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(require("chromedriver"), env={**os.environ}))
    try:
        driver.set_page_load_timeout(30)
        look(driver, size, light=light)
        yield driver
    finally:
        driver.quit()


def look(driver: webdriver.Chrome, size: tuple[int, int], *, light: bool) -> None:
    """Take another screen and another theme of the system."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False},
    )
    scheme = {"name": "prefers-color-scheme", "value": "light" if light else "dark"}
    still = {"name": "prefers-reduced-motion", "value": "reduce"}  # colours on their way are nobody's to judge
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, still]})


def log_in(driver: webdriver.Chrome, address: str, role: str) -> None:
    """Log in by the form."""
    driver.get(f"{address}/login")
    driver.find_element("id", "name").send_keys(role)
    driver.find_element("id", "passcode").send_keys(role)
    driver.find_element("css selector", ".stack button").click()
    WebDriverWait(driver, 10, 0.05).until(lambda page: not page.current_url.endswith("/login"))


def violations(driver: webdriver.Chrome) -> list[str]:
    """Return what axe-core finds wrong with the page as it is, by WCAG 2.2 AA and good practice, each with where."""
    script = Path(str(files("axe_playwright_python"))) / "axe.min.js"
    driver.execute_script(script.read_text())
    found = driver.execute_async_script(AXE)
    assert "target-size" in found["ran"], "this axe-core knows nothing of WCAG 2.2"
    return [
        f"{one['id']}: {one['help']}: {node['html'][:150]} {node.get('failureSummary', '')[:300]}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


AXE = """
const done = arguments[0];
axe.run({ rules: { "target-size": { enabled: true } } }).then(({ violations, passes, incomplete, inapplicable }) =>
  done({ violations, ran: [violations, passes, incomplete, inapplicable].flat().map((one) => one.id) }));
"""
