"""What a radiologist and an operator do in a real browser, on a node with 5 000 studies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from dicom_node.config import Web
from dicom_node.domain.people import By, Session
from dicom_node.web.app import create_app
from dicom_node.web.server import served
from tests import synthetic
from tests.fake_desk import FakeDesk
from tests.peers import free_port
from tests.reading_room import Roles, browser, log_in
from tests.reading_site import HOSTILE, STUDIES, Site, reading_site

pytestmark = [pytest.mark.peer("chromium"), pytest.mark.slow]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with reading_site(tmp_path_factory.mktemp("site")) as made:
        yield made


def test_a_radiologist_finds_the_most_unusual_study_by_keyboard_alone_and_comes_back(site: Site) -> None:
    page = site.go("/")
    assert page.find_element("css selector", ".count strong").text == str(STUDIES)
    page.find_element("tag name", "body").send_keys("o")
    site.until("location.search.includes('order=unusual')")
    page.find_element("tag name", "body").send_keys("j")
    first = page.switch_to.active_element
    assert first.find_element("xpath", "ancestor::tr").get_attribute("id") == "s1"
    page.switch_to.active_element.send_keys("jk")
    assert page.switch_to.active_element == first
    first.send_keys(Keys.ENTER)
    site.until("location.pathname.startsWith('/studies/')")
    assert "more unusual than 99" in page.find_element("id", "study").text
    page.find_element("tag name", "body").send_keys("u")
    site.until("location.search.includes('order=unusual') && location.pathname === '/'")


def test_a_name_that_attacks_the_page_is_only_a_name(site: Site) -> None:
    page = site.go(f"/studies/{synthetic.study_uid(6)}")
    assert HOSTILE in page.find_element("tag name", "h1").text
    page.get(site.address + "/")
    assert HOSTILE in page.find_element("id", "studies").text
    assert page.title == "Studies · dicom-node"


def test_a_search_finds_a_patient_and_leaves_no_trace_in_the_address(site: Site) -> None:
    page = site.go("/")
    page.find_element("tag name", "body").send_keys("/")
    page.switch_to.active_element.send_keys("müll", Keys.ENTER)
    site.until("location.search.includes('found=')")
    assert "ll" not in page.current_url.partition("?")[2].partition("found=")[0]
    assert "m%C3%BC" not in page.current_url

    def found(_: Chrome) -> bool:
        page.refresh()  # while headers are still being read, the page says so
        return bool(page.find_elements("css selector", ".open"))

    WebDriverWait(page, 15, 0.5).until(found)
    names = [one.text for one in page.find_elements("css selector", ".open")]
    assert all("Müller" in name for name in names)


def test_an_operator_says_what_he_reads_and_an_order_that_matters_is_asked_about_first(site: Site) -> None:
    page = site.go(f"/studies/{synthetic.study_uid(7)}", "operator")
    page.find_element("css selector", "button[value=abnormal]").click()
    site.until("document.querySelector('.said')?.textContent.includes('Done: marked abnormal')")
    assert "read as abnormal" in page.find_element("id", "study").text
    page.find_element("css selector", "form[action$='/rerun'] button").click()
    page.switch_to.alert.dismiss()
    assert not site.page.find_elements("xpath", "//p[@class='said'][contains(., 'Done: revision')]")
    assert page.current_url.partition("?")[0].endswith(synthetic.study_uid(7))


def test_an_operator_tries_a_failed_delivery_again(site: Site) -> None:
    page = site.go(f"/studies/{synthetic.study_uid(10)}", "operator")
    page.find_element("css selector", "form[action$='/retry'] button").click()
    site.until("document.querySelector('.said')?.textContent.startsWith('Done')")
    assert not page.find_elements("css selector", "form[action$='/retry'] button")


def test_the_list_changes_where_it_stands_and_what_is_new_waits_for_the_person(site: Site) -> None:
    page = site.go("/")
    site.until("document.getElementById('pulse').textContent === 'live'")
    row = page.find_element("css selector", f"tr[data-study='{synthetic.study_uid(0)}']")
    link = row.find_element("css selector", ".open")
    page.execute_script("arguments[0].focus()", link)
    site.desk.desk.mark(synthetic.study_uid(0), "normal", By("somebody else"))
    WebDriverWait(page, 10, 0.1).until(lambda _: "read as normal" in row.text)
    assert page.switch_to.active_element == link
    synthetic.fill(site.engine, 1, first=-1)
    site.until("!document.getElementById('fresh').hidden")
    assert "1 new study: show" in page.find_element("id", "fresh").text
    assert not page.find_elements("css selector", f"tr[data-study='{synthetic.study_uid(-1)}']")
    page.find_element("id", "fresh").click()
    site.until(f"document.querySelector(\"tr[data-study='{synthetic.study_uid(-1)}']\")")


def test_a_page_whose_session_is_over_says_that_it_has_to_be_loaded_again() -> None:
    class Over(Roles):
        """A page is still shown; what it fetches by itself comes when the session is over."""

        def session(self, token: str, *, alive: bool = True) -> Session | None:
            return super().session(token) if alive else None

    settings = Web(port=free_port())
    with served(create_app(FakeDesk(), Over(), settings), settings) as address, browser() as page:
        log_in(page, address.rstrip("/"), "viewer")
        pulse = page.find_element("id", "pulse")
        WebDriverWait(page, 30, 0.1).until(lambda _: pulse.text)
        assert pulse.text == "not live: load the page again"


def test_keys_are_shown_over_the_page_and_can_be_switched_off(site: Site) -> None:
    page = site.go("/")
    page.find_element("tag name", "body").send_keys("?")
    site.until("document.querySelector('dialog[open]')")
    page.find_element("id", "single").click()
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    site.until("!document.querySelector('dialog')")
    page.find_element("tag name", "body").send_keys("j")
    assert not page.find_elements("css selector", "tr.now")
    page.execute_script("localStorage.clear()")
