"""The pages as a browser without a script gets them."""

from __future__ import annotations

import re
from html import unescape

import pytest
from starlette.testclient import TestClient

from dicom_node.domain.reading import Order
from tests.fake_desk import RTL, FakeDesk
from tests.fake_views import SCRIPT, image_uid, uid
from tests.reading_room import CSRF, client

PAGES = ("/", f"/studies/{uid(0)}", "/banks", "/node", "/keys")


def post(browser: TestClient, path: str, **form: object) -> str:
    """Send a form as the page has it, follow to the page that answers, and return what that says."""
    answer = browser.post(path, data={"csrf": CSRF, **form})
    assert answer.status_code == 303, answer.text
    page = browser.get(answer.headers["location"])
    assert page.status_code == 200
    said = re.search(r'<p class="said" role="status">(.*?)</p>', page.text)
    return unescape(said[1]) if said else ""


@pytest.mark.parametrize("path", PAGES)
def test_every_page_says_that_it_is_no_medical_device_and_holds_no_script_or_style_of_its_own(
    path: str,
) -> None:
    page = client(FakeDesk(), "admin").get(path).text
    assert "Not a medical device." in page
    assert not re.search(r"<script(?![^>]*\ssrc=)", page)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=", page)


@pytest.mark.parametrize("path", [*PAGES, "/studies/2.25.1", "/nothing"])
def test_nobody_sees_a_page_without_logging_in(path: str) -> None:
    answer = client(FakeDesk(), "").get(path)
    assert answer.status_code in (303, 404)
    assert "Adams" not in answer.text


def test_hostile_names_are_text_and_are_kept_apart_from_what_stands_beside_them() -> None:
    page = client(FakeDesk()).get("/").text
    assert SCRIPT not in page
    assert "<bdi>&lt;script&gt;" in page
    assert f"<bdi>{RTL}</bdi>" in page
    assert "No name" in page


def test_no_address_and_no_title_has_a_patient() -> None:
    page = client(FakeDesk()).get(f"/studies/{uid(0)}").text
    assert "Adams, Mary" in page
    assert "Adams" not in re.search("<title>(.*?)</title>", page)[1]  # type: ignore[index]
    assert not [
        link
        for link in re.findall(r'(?:href|src|action)="([^"]*)"', page)
        if "P0000" in link or "Adams" in link
    ]


def test_a_search_keeps_its_words_out_of_the_address_and_other_filters_in_it() -> None:
    desk = FakeDesk()
    browser = client(desk)
    answer = browser.post("/search", data={"csrf": CSRF, "term": "Müller", "back": "order=unusual&offset=50"})
    place = answer.headers["location"]
    assert "ller" not in place
    assert "order=unusual" in place
    assert "offset" not in place
    page = browser.get(place).text
    assert desk.asked[-1].search == "Müller"
    assert desk.asked[-1].order is Order.UNUSUAL
    assert "Müller" in page
    assert "Adams" not in page


def test_a_search_is_of_the_person_who_made_it() -> None:
    desk = FakeDesk()
    browser = client(desk)
    place = browser.post("/search", data={"csrf": CSRF, "term": "Müller"}).headers["location"]
    other = TestClient(browser.app, cookies={"dicom-node": "operator"})
    assert "That search is over" in other.get(place).text
    assert desk.asked[-1].search == ""


def test_another_process_that_serves_the_pages_knows_no_search_of_this_one_and_says_so() -> None:
    desk = FakeDesk()
    one, other = client(desk), client(desk)
    place = one.post("/search", data={"csrf": CSRF, "term": "Müller"}).headers["location"]
    assert "That search is over" in other.get(place).text
    assert "That search is over" not in one.get(place).text


def test_filters_left_empty_ask_nothing_and_links_keep_those_that_are_set() -> None:
    desk = FakeDesk()
    page = client(desk).get(
        "/?order=newest&verdict=above+threshold&destination=&since=&minimum_percentile=&limit=2"
    )
    assert page.status_code == 200
    assert desk.asked[-1].verdicts == {"above threshold"}
    assert desk.asked[-1].destination == ""
    further = unescape(re.search(r'rel="next" href="([^"]*)"', page.text)[1])  # type: ignore[index]
    assert "verdict=above+threshold" in further
    assert "offset=2" in further


def test_the_destinations_to_filter_by_are_those_configured_and_the_one_asked_for() -> None:
    def offered(path: str) -> list[tuple[str, str]]:
        chosen = re.search(r'<select name="destination">(.*?)</select>', client(FakeDesk()).get(path).text)
        return re.findall(r"<option( selected)?[^>]*>([^<]*)<", chosen[1]) if chosen else []

    assert offered("/") == [("", "any"), ("", "pacs"), ("", "research")]
    assert offered("/?destination=pacs") == [("", "any"), (" selected", "pacs"), ("", "research")]
    assert offered("/?destination=%3Cb%3E")[3] == (" selected", "&lt;b&gt;")


def test_a_filter_that_is_not_valid_is_told_as_a_page() -> None:
    answer = client(FakeDesk()).get("/?limit=100000")
    assert answer.status_code == 422
    assert "Back to the studies" in answer.text


def test_a_list_without_studies_says_how_one_comes() -> None:
    assert "No study has come yet" in client(FakeDesk(0)).get("/").text
    assert "No study meets this" in client(FakeDesk(0)).get("/?mark=normal").text


def test_the_list_says_how_unusual_each_is_without_colour() -> None:
    page = client(FakeDesk()).get("/").text
    assert "more unusual than 97.4 of 100 normals" in page
    assert "more unusual than all of the normals" in page
    assert "it is a lateral view, which no bank serves" in page
    assert re.search(r"research <span class=\"state\">failed</span>", page)


def test_viewers_see_no_orders_and_operators_none_of_banks() -> None:
    desk = FakeDesk()
    assert "Analyse again" not in client(desk).get(f"/studies/{uid(0)}").text
    assert "Analyse again" in client(desk, "operator").get(f"/studies/{uid(0)}").text
    assert "Activate" not in client(desk, "operator").get("/banks").text
    assert "Activate" in client(desk, "admin").get("/banks").text


def test_a_viewer_who_sends_an_operators_form_is_refused() -> None:
    desk = FakeDesk()
    answer = client(desk).post(f"/studies/{uid(0)}/mark", data={"csrf": CSRF, "mark": "normal"})
    assert answer.status_code == 403
    assert "This is for the role operator" in answer.text
    assert not desk.orders


def test_a_form_without_the_sessions_token_orders_nothing() -> None:
    desk = FakeDesk()
    answer = client(desk, "operator").post(f"/studies/{uid(0)}/mark", data={"mark": "normal"})
    assert answer.status_code == 403
    assert not desk.orders


@pytest.mark.parametrize(
    ("order", "form", "told"),
    [
        ("mark", {"mark": "normal"}, ("mark", uid(0), "normal", "operator")),
        ("rerun", {"bank": "site-b"}, ("rerun", [uid(0)], "site-b", "operator")),
        ("priority", {"priority": 1}, ("prioritise", uid(0), 1, "operator")),
        ("retry", {"item": 60}, ("retry", [60], "operator")),
        ("cancel", {"item": 60}, ("cancel", [60], "operator")),
    ],
)
def test_each_order_reaches_the_desk_with_who_gave_it_and_says_once_that_it_is_done(
    order: str, form: dict[str, object], told: tuple[object, ...]
) -> None:
    desk = FakeDesk()
    browser = client(desk, "operator")
    assert post(browser, f"/studies/{uid(0)}/{order}", **form).startswith("Done: ")
    assert desk.orders == [told]
    assert "Done" not in browser.get(f"/studies/{uid(0)}").text


@pytest.mark.parametrize("order", ["priority", "mark", "retry", "cancel"])
def test_a_form_that_leaves_out_what_its_order_needs_orders_nothing(order: str) -> None:
    desk = FakeDesk()
    answer = client(desk, "operator").post(f"/studies/{uid(0)}/{order}", data={"csrf": CSRF})
    assert answer.status_code == 422
    assert "The form of this order has to say" in answer.text
    assert not desk.orders


def test_an_item_that_no_database_can_number_is_none() -> None:
    desk = FakeDesk()
    form = {"csrf": CSRF, "item": str(10**30)}
    assert client(desk, "operator").post(f"/studies/{uid(0)}/retry", data=form).status_code == 422
    assert not desk.orders


def test_an_order_that_is_refused_says_why() -> None:
    desk = FakeDesk(refuses="item 60 is COMPLETED; only FAILED or CANCELED items are retried")
    said = post(client(desk, "operator"), f"/studies/{uid(0)}/retry", item=60)
    assert said == "Not done: item 60 is COMPLETED; only FAILED or CANCELED items are retried."


def test_admins_change_banks() -> None:
    desk = FakeDesk()
    browser = client(desk, "admin")
    assert post(browser, "/banks/site-b/activate") == "Done: site-b scores from the next study on."
    assert post(browser, "/banks/rollback") == "Done: site-b scores again."
    assert desk.orders == [("activate", "site-b", "admin"), ("rollback", "admin")]


def test_a_study_that_is_not_held_is_told_as_a_page_with_a_way_back() -> None:
    answer = client(FakeDesk()).get("/studies/2.25.1")
    assert answer.status_code == 404
    assert "Study 2.25.1 is not held here." in answer.text
    assert "Back to the studies" in answer.text


def test_the_report_is_given_as_a_file_named_by_its_uid() -> None:
    browser = client(FakeDesk())
    answer = browser.get(f"/studies/{uid(0)}/report.dcm")
    assert answer.content[128:] == b"DICM"
    assert answer.headers["content-disposition"] == 'attachment; filename="2.25.9.dcm"'
    assert answer.headers["cache-control"] == "no-store"
    assert browser.get(f"/studies/{uid(1)}/report.dcm").status_code == 404


def test_normals_that_a_bank_kept_are_shown() -> None:
    browser = client(FakeDesk())
    assert browser.get("/normals/site-a?identifier=n1").headers["content-type"] == "image/jpeg"
    assert browser.get("/normals/site-a?identifier=n9").status_code == 404


def test_each_image_of_a_study_has_its_picture_and_only_one_that_has_a_heat_map_offers_it() -> None:
    page = client(FakeDesk()).get(f"/studies/{uid(0)}").text
    assert f'data-source="/api/v1/images/{image_uid(0)}/image"' in page
    assert f'data-source="/api/v1/images/{image_uid(0, 1)}/image"' in page
    assert page.count("data-heat=") == 1
    assert 'data-outline="84.0,136.0 152.0,136.0 156.0,200.0 88.0,208.0"' in page


def test_a_banks_page_has_its_calibration_its_doubts_and_its_fault() -> None:
    page = client(FakeDesk()).get("/banks").text
    assert "<polyline" in page
    assert "2 normals lie far from the others" in page
    assert "its index does not match" in page


def test_the_queue_is_one_line_for_each_kind_of_work_with_a_count_for_each_state() -> None:
    page = client(FakeDesk()).get("/node").text
    lines = re.findall(r"<tr><td>(analyse|deliver)</td>(.*?)</tr>", page)
    assert [(kind, re.findall(r">(\d+)<", cells)) for kind, cells in lines] == [
        ("analyse", ["12", "0", "0", "0", "0"]),
        ("deliver", ["0", "0", "0", "3", "0"]),
    ]


def test_the_nodes_page_tells_of_queue_peers_disk_traffic_failures_and_what_is_due() -> None:
    page = client(FakeDesk()).get("/node").text
    for told in (
        "SCHEDULED",
        "CR_ROOM1",
        "212.0 GB",
        "4120",
        "refused: 0xA900",
        "missed",
        "connection refused",
    ):
        assert told in page
