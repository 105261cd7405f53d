"""Who looks is told once an hour, and never less than once."""

from __future__ import annotations

import httpx
import pytest
from starlette.testclient import TestClient

from dicom_node.config import Web
from dicom_node.web.app import create_app
from dicom_node.web.looks import AGAIN_SECONDS, Looks
from dicom_node.web.server import served
from tests.fake_desk import FakeDesk
from tests.fake_views import image_uid, uid
from tests.peers import free_port
from tests.reading_room import CSRF, Roles, client

LOOK = ("ann", "session", "192.0.2.1", "2.25.1", "")


def test_a_look_is_told_at_first_and_again_after_an_hour() -> None:
    now = [0.0]
    looks = Looks(lambda: now[0])
    told = []
    for second in range(0, 3 * int(AGAIN_SECONDS), 60):
        now[0] = float(second)
        if looks.due(*LOOK):
            told.append(second)
    assert told == [0, 3600, 7200]


@pytest.mark.parametrize("place", range(len(LOOK)))
def test_another_person_session_address_study_or_search_is_another_look(place: int) -> None:
    looks = Looks(lambda: 0.0)
    assert looks.due(*LOOK)
    assert looks.due(*(f"other {part}" if n == place else part for n, part in enumerate(LOOK)))
    assert not looks.due(*LOOK)


def test_a_look_that_was_forgotten_for_others_is_told_again() -> None:
    looks = Looks(lambda: 0.0, most=2)
    for study in ("1", "2", "3"):
        assert looks.due("ann", study)
    assert not looks.due("ann", "3")
    assert looks.due("ann", "1")


def test_who_sees_a_study_its_report_or_the_list_is_noted_with_his_address_and_not_for_each_fetch() -> None:
    desk = FakeDesk()
    browser = client(desk)
    for _ in range(3):
        browser.get("/")
        browser.get("/?order=unusual")
        browser.get(f"/studies/{uid(3)}")
        browser.get(f"/studies/{uid(0)}/report.dcm")
    seen = [(study, who) for study, who, _ in desk.seen]
    assert seen == [("", "viewer"), (uid(3), "viewer"), (uid(0), "viewer")]
    assert {address for *_, address in desk.seen} == {"testclient"}
    other = TestClient(browser.app, cookies={"dicom-node": "operator"})
    other.get(f"/studies/{uid(3)}")
    assert desk.seen[3:] == [(uid(3), "operator", "testclient")]


@pytest.mark.parametrize(("kind", "noted"), [("thumbnail", []), ("image", [uid(3)]), ("heat-map", [uid(3)])])
def test_who_fetches_an_image_alone_has_seen_its_study(kind: str, noted: list[str]) -> None:
    desk = FakeDesk()
    assert client(desk).get(f"/api/v1/images/{image_uid(3)}/{kind}").status_code == 200
    assert [study for study, *_ in desk.seen] == noted


def test_each_search_is_noted() -> None:
    desk = FakeDesk()
    browser = client(desk)
    for term in ("adams", "yamada"):
        place = browser.post("/search", data={"csrf": CSRF, "term": term}).headers["location"]
        browser.get(place)
        browser.get(place)
    assert len(desk.seen) == 2


@pytest.mark.parametrize(("trusted", "seen"), [(("127.0.0.1",), "203.0.113.9"), ((), "127.0.0.1")])
def test_behind_a_trusted_proxy_and_no_other_the_browsers_address_is_noted(
    trusted: tuple[str, ...], seen: str
) -> None:
    desk, port = FakeDesk(), free_port()
    settings = Web(port=port, trusted_proxies=trusted)
    name = "__Host-dicom-node" if trusted else "dicom-node"
    with served(create_app(desk, Roles(), settings), settings) as address:
        place = f"http://127.0.0.1:{address.rpartition(':')[2]}"
        headers = {"X-Forwarded-For": "203.0.113.9", "Cookie": f"{name}=viewer"}
        assert httpx.get(place, headers=headers).status_code == 200
    assert desk.seen == [("", "viewer", seen)]
