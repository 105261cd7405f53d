"""What a browser keeps of the pages: pictures that it asks for again each time, and the program's own files."""

from __future__ import annotations

import re

from starlette.testclient import TestClient

from tests.fake_desk import FakeDesk
from tests.fake_views import image_uid
from tests.reading_room import CSRF, client


def test_a_picture_travels_once_and_who_may_look_is_asked_each_time() -> None:
    browser = client(FakeDesk())
    for place in (f"/api/v1/images/{image_uid(0)}/thumbnail", "/normals/site-a?identifier=n1"):
        first = browser.get(place)
        assert (first.status_code, first.headers["cache-control"]) == (200, "private, no-cache")
        tag = first.headers["etag"]
        again = browser.get(place, headers={"If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert browser.get(place, headers={"If-None-Match": '"other"'}).content == first.content
        stranger = TestClient(browser.app, follow_redirects=False)
        assert stranger.get(place, headers={"If-None-Match": tag}).status_code in (303, 401)


def test_with_the_session_the_pictures_that_a_browser_kept_go() -> None:
    answer = client(FakeDesk()).post("/logout", data={"csrf": CSRF})
    assert answer.status_code == 303
    assert answer.headers["clear-site-data"] == '"cache"'


def test_what_the_program_itself_brings_is_kept_until_its_version_changes() -> None:
    browser = client(FakeDesk())
    page = browser.get("/").text
    named = re.findall(r'(?:href|src)="(/static/[^"]*)"', page)
    assert len(named) == 5
    for place in named:
        assert browser.get(place).headers["cache-control"] == "public, max-age=31536000, immutable"
    assert browser.get("/static/nothing.js?1").headers["cache-control"] == "no-cache"
