"""The pages by WCAG 2.2 AA in a real browser: axe-core, and what axe-core cannot judge."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.fake_desk import FakeDesk
from tests.fake_views import uid
from tests.reading_room import DESK, PHONE, browser, log_in, look, open_room, violations

pytestmark = [pytest.mark.peer("chromium"), pytest.mark.slow]

PATHS = ("/login", "/", "/?verdict=above+threshold", f"/studies/{uid(0)}", "/banks", "/node", "/keys", "/none")


@pytest.fixture(scope="module")
def page() -> Iterator[Chrome]:
    with browser() as made:
        yield made


def test_axe_finds_nothing_on_any_page_in_both_themes_and_widths_and_nothing_runs_over(page: Chrome) -> None:
    found: list[str] = []
    with open_room(FakeDesk()) as address:
        page.delete_all_cookies()
        for path in PATHS:
            if path == "/":
                log_in(page, address, "admin")
            page.get(address + path)
            for size in (DESK, PHONE):
                for light in (False, True):
                    look(page, size, light=light)
                    found += [
                        f"{path} {size[0]} {'light' if light else 'dark'}: {one}" for one in violations(page)
                    ]
                    wide = page.execute_script("return document.documentElement.scrollWidth")
                    found += [f"{path} is {wide} wide"] if wide > size[0] else []
            found += [f"{path}: {one} is a small target" for one in page.execute_script(SMALL)]
            refused = [
                one["message"] for one in page.get_log("browser") if "Content Security" in one["message"]
            ]
            found += refused
    assert not found, "\n".join(found)


def test_the_focus_goes_to_everything_by_tab_and_is_never_hidden(page: Chrome) -> None:
    """WCAG 2.4.11, and 2.4.3: nothing lies over what has the focus."""
    hidden: list[str] = []
    with open_room(FakeDesk()) as address:
        log_in(page, address, "admin")
        for size in (DESK, PHONE):
            look(page, size, light=False)
            for path in PATHS[1:]:
                page.get(address + path)
                expected = page.execute_script(FOCUSABLE)
                reached = set()
                for _ in range(expected + 10):
                    ActionChains(page).send_keys(Keys.TAB).perform()
                    told = page.execute_script(FOCUSED)
                    if told is None:
                        break
                    reached.add(told["number"])
                    hidden += [] if told["seen"] else [f"{path} {size[0]}: {told['html']}"]
                assert len(reached) >= expected, f"{path} {size[0]}: {len(reached)} of {expected}"
    assert not hidden, "\n".join(hidden)


FOCUSABLE = """
const all = [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, summary, [tabindex='0']")]
  .filter((one) => one.checkVisibility() && !one.disabled && !one.closest("[hidden]"));
all.forEach((one, n) => { one.dataset.number = n; });
return all.length;
"""
FOCUSED = """
const one = document.activeElement;
if (!one || one === document.body) return null;
const box = one.getBoundingClientRect();
const seen = [0.5, 0.1, 0.9].some((across) => [0.5, 0.2, 0.8].some((down) => {
  const at = document.elementFromPoint(box.left + box.width * across, box.top + box.height * down);
  return at && (one.contains(at) || at.contains(one) && at !== document.documentElement && at !== document.body);
}));
return { number: one.dataset.number, seen, html: one.outerHTML.slice(0, 120) };
"""


def test_a_passcode_may_be_pasted_and_what_was_said_once_need_not_be_said_again(page: Chrome) -> None:
    """WCAG 3.3.8 and 3.3.7: no memory test at the door, and the name stays after a failed login."""
    with open_room(FakeDesk()) as address:
        page.delete_all_cookies()
        page.get(f"{address}/login")
        name, passcode = (page.find_element("id", one) for one in ("name", "passcode"))
        assert (name.get_attribute("autocomplete"), passcode.get_attribute("autocomplete")) == (
            "username",
            "current-password",
        )
        name.send_keys("operator")
        ActionChains(page).key_down(Keys.CONTROL).send_keys("ac").key_up(Keys.CONTROL).perform()
        passcode.click()
        ActionChains(page).key_down(Keys.CONTROL).send_keys("v").key_up(Keys.CONTROL).perform()
        assert passcode.get_attribute("value") == "operator"
        passcode.send_keys("x", Keys.ENTER)
        assert page.find_element("css selector", "[role=alert]").text
        assert page.find_element("id", "name").get_attribute("value") == "operator"
        assert page.switch_to.active_element.get_attribute("id") == "passcode"


SMALL = """
return [...document.querySelectorAll("button, select, summary, input:not([type=hidden]), nav a")]
  .map((one) => one.closest("label") ?? one)
  .filter((one) => one.checkVisibility() && one.getBoundingClientRect().height < 24)
  .map((one) => one.outerHTML.slice(0, 100));
"""
