"""Nobody gets further than the login page without a role, and no other site's page gets anything done."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.routing import Mount, Route

from dicom_node.config import Db, Web
from dicom_node.db.engine import open_engine
from dicom_node.db.migrate import upgrade
from dicom_node.domain.errors import DatabaseError
from dicom_node.domain.reading import Role
from dicom_node.pipeline.people import People
from dicom_node.web import frame
from dicom_node.web.app import create_app
from tests.fake_desk import SCRIPT, FakeDesk, uid
from tests.fakes import ManualClock

PASSCODE = "correct horse"
OPEN = {"/login", "/login/link", "/health", "/static"}
"""What needs no login: the login itself, a monitor's question, the pages' own files."""
_cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("db") / "node.db"
    engine = open_engine(Db(url=f"sqlite:///{path}"))
    upgrade(engine)
    engine.dispose()
    return path


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def people(template, tmp_path, clock) -> Iterator[People]:
    (tmp_path / "node.db").write_bytes(template.read_bytes())
    engine = open_engine(Db(url=f"sqlite:///{tmp_path / 'node.db'}"))
    people = People(engine, clock, hash_of=_cheap.hash)
    for role in Role:
        people.put(role.value, role, PASSCODE)
    yield people
    engine.dispose()


def application(people: People, **settings: object) -> FastAPI:
    return create_app(FakeDesk(), people, Web(host_names=("testserver",), **settings))


def browser(app: FastAPI, base: str = "http://testserver") -> TestClient:
    return TestClient(app, base_url=base, follow_redirects=False, raise_server_exceptions=False)


@pytest.fixture
def client(people) -> TestClient:
    return browser(application(people))


def log_in(client: TestClient, name: str = "operator", passcode: str = PASSCODE, **form: str):
    return client.post("/login", data={"name": name, "passcode": passcode, **form})


def csrf_of(client: TestClient) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/keys").text)
    assert found is not None
    return found[1]


def _routes(app: FastAPI) -> Iterator[tuple[str, object]]:
    """Yield every path of the application with the role that it asks for, None where it asks for none."""
    waiting = list(app.routes)
    while waiting:
        route = waiting.pop()
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        if inner is not None and not isinstance(route, (Route, Mount)):
            waiting += inner.routes
        elif isinstance(route, (Route, Mount)):
            dependencies = getattr(getattr(route, "dependant", None), "dependencies", ())
            roles = [getattr(one.call, "role", None) for one in dependencies]
            yield route.path, next((role for role in roles if role is not None), None)
        else:
            raise AssertionError(f"a route of an unknown kind: {route!r}")


def test_every_route_asks_for_a_role_or_is_one_of_the_few_that_need_none(people):
    routes = list(_routes(application(people)))
    assert len(routes) > 20
    assert {path for path, role in routes if role is None} == OPEN | {"/logout"}  # which asks for it itself


@pytest.mark.parametrize("path", ["/", "/banks", "/node", "/keys", f"/studies/{uid(0)}"])
def test_a_browser_is_led_to_the_login_page_and_back(client, path):
    answer = client.get(path)
    assert answer.status_code == 303
    assert SCRIPT not in answer.text
    form = client.get(answer.headers["location"])
    back = re.search(r'name="next" value="([^"]+)"', form.text)[1]
    assert log_in(client, next=back).headers["location"] == path
    assert client.get(path).status_code == 200


def test_a_program_without_a_token_is_told_what_it_needs(client):
    answer = client.get("/api/v1/openapi.json")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "dicom-node user token" in answer.json()["detail"]


def test_a_program_with_a_token_has_its_persons_role_and_needs_no_csrf(client, people):
    headers = {"Authorization": f"Bearer {people.token('operator')}"}
    assert client.get("/api/v1/openapi.json", headers=headers).status_code == 200
    assert client.post(f"/studies/{uid(0)}/mark", data={"mark": "normal"}, headers=headers).status_code == 303
    assert client.post("/banks/rollback", headers=headers).status_code == 403
    people.revoke("operator")
    assert client.get("/api/v1/openapi.json", headers=headers).status_code == 401


def test_a_viewer_orders_nothing_and_an_operator_changes_no_bank(client):
    log_in(client, "viewer")
    token = csrf_of(client)
    answer = client.post(f"/studies/{uid(0)}/mark", data={"mark": "normal", "csrf": token})
    assert (answer.status_code, "operator" in answer.text) == (403, True)
    log_in(client, "operator")
    assert client.post("/banks/rollback", data={"csrf": csrf_of(client)}).status_code == 403
    log_in(client, "admin")
    assert client.post("/banks/rollback", data={"csrf": csrf_of(client)}).status_code == 303


def test_without_the_sessions_token_nothing_is_done(client, people):
    log_in(client)
    order = f"/studies/{uid(0)}/mark"
    other = browser(application(people))
    log_in(other)
    for form in ({}, {"csrf": ""}, {"csrf": "wrong"}, {"csrf": csrf_of(other)}):
        assert client.post(order, data={"mark": "normal", **form}).status_code == 403
    assert client.post("/logout").status_code == 403
    assert client.post("/search", data={"term": "x"}).status_code == 403
    assert client.post(order, data={"mark": "normal", "csrf": csrf_of(client)}).status_code == 303
    header = {"X-CSRF-Token": csrf_of(client)}
    assert client.post(order, data={"mark": "normal"}, headers=header).status_code == 303


@pytest.mark.parametrize(
    "sent",
    [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}],
)
def test_another_site_gets_nothing_done_even_with_the_token_and_logs_nobody_in(client, sent):
    assert client.post("/login", data={"name": "viewer", "passcode": PASSCODE}, headers=sent).status_code == 403
    log_in(client)
    data = {"mark": "normal", "csrf": csrf_of(client)}
    assert client.post(f"/studies/{uid(0)}/mark", data=data, headers=sent).status_code == 403


def test_a_page_that_hides_where_it_is_logs_nobody_in(client):
    answer = client.post("/login", data={"name": "viewer", "passcode": PASSCODE}, headers={"Origin": "null"})
    assert answer.status_code == 403
    assert (
        client.get("/login").headers["referrer-policy"] == "same-origin"
    )  # so that the own form is not hidden


def test_a_session_that_was_there_before_the_login_is_not_used_and_ends(client, people):
    client.cookies.set("dicom-node", "planted", domain="testserver.local", path="/")
    log_in(client)
    first = client.cookies["dicom-node"]
    assert first != "planted"
    log_in(client)
    second = client.cookies["dicom-node"]
    assert second != first
    assert people.session(first) is None
    assert people.session(second) is not None


def test_logging_out_ends_the_session_and_takes_the_cookie(client, people):
    log_in(client)
    token = client.cookies["dicom-node"]
    answer = client.post("/logout", data={"csrf": csrf_of(client)})
    assert answer.headers["location"] == "/login"
    assert people.session(token) is None
    assert "dicom-node" not in client.cookies
    client.cookies.set("dicom-node", token)
    assert client.get("/").status_code == 303


def test_a_session_ends_by_itself(client, clock):
    log_in(client)
    assert client.get("/keys").status_code == 200
    clock.forward(61 * 60)
    assert client.get("/keys").status_code == 303


def test_a_page_that_is_left_open_keeps_nobody_logged_in(client, clock):
    log_in(client)
    for asked_by in ("document", "empty", "image", "empty"):
        clock.forward(25 * 60)
        status = client.get("/keys", headers={"Sec-Fetch-Dest": asked_by}).status_code
    assert status == 303


def test_a_lower_role_counts_from_the_next_request_on(client, people):
    log_in(client, "admin")
    token = csrf_of(client)
    people.give_role("admin", Role.VIEWER)
    assert client.post("/banks/rollback", data={"csrf": token}).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example",
        "javascript:alert(1)", "evil.example", "/%0d%0aSet-Cookie:x=y\r\nx: y", "",
    ],
)  # fmt: skip
def test_the_login_leads_to_no_other_site(client, path):
    location = log_in(client, next=path).headers["location"]
    assert location == "/"
    assert "evil" not in client.get("/login", params={"next": path}).text


def test_the_cookie_is_out_of_reach_of_scripts_and_over_tls_bound_to_this_host(people):
    plain = log_in(browser(application(people))).headers["set-cookie"]
    assert plain.startswith("dicom-node=")
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(plain.split("; "))
    behind = browser(application(people, trusted_proxies=("10.0.0.1",)), "https://testserver")
    secure = log_in(behind).headers["set-cookie"]
    assert secure.startswith("__Host-dicom-node=")
    assert {"HttpOnly", "SameSite=lax", "Path=/", "Secure"} <= set(secure.split("; "))
    assert "Domain" not in secure
    gone = behind.post("/logout", data={"csrf": csrf_of(behind)}).headers["set-cookie"]
    assert {"Secure", "Path=/", "Max-Age=0"} <= set(gone.split("; "))


def test_who_is_wrong_too_often_waits(client):
    for _ in range(5):
        assert "Name and passcode do not fit." in log_in(client, passcode="wrong").text
    answer = log_in(client)
    assert (answer.status_code, "try again in 2 s" in answer.text) == (401, True)


def test_what_was_typed_comes_back_escaped_and_the_passcode_not_at_all(client):
    page = log_in(client, name=SCRIPT, passcode="<b>marked").text
    assert "<script>document" not in page
    assert "&lt;script&gt;" in page
    assert "marked" not in page


def test_a_link_is_used_up_by_a_person_and_not_by_what_only_looks_at_it(client, people):
    link = f"/login/link?token={people.link('viewer')}"
    page = client.get(link).text
    client.get(link)
    token = re.search(r'name="token" value="([^"]+)"', page)[1]
    assert client.post("/login/link", data={"token": token}).headers["location"] == "/"
    assert client.get("/").status_code == 200
    assert client.post("/login/link", data={"token": token}).status_code == 401


def test_the_login_page_tells_how_the_first_person_gets_in(template, tmp_path, clock):
    (tmp_path / "empty.db").write_bytes(template.read_bytes())
    engine = open_engine(Db(url=f"sqlite:///{tmp_path / 'empty.db'}"))
    client = browser(application(People(engine, clock)))
    assert "dicom-node user add NAME --role admin" in client.get("/login").text
    assert client.get("/").status_code == 303
    engine.dispose()


def test_every_answer_has_the_headers_that_keep_other_sites_out(people):
    behind = browser(application(people, trusted_proxies=("10.0.0.1",)), "https://testserver")
    log_in(behind)
    for path in (
        "/",
        "/login",
        "/health",
        "/nowhere",
        "/static/style.css",
        "/static/nothing",
        "/api/v1/nothing",
    ):
        headers = behind.get(path).headers
        policy = headers["content-security-policy"]
        assert {"default-src 'self'", "frame-ancestors 'none'", "object-src 'none'"} <= set(policy.split("; "))
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] in ("no-referrer", "same-origin")
        assert headers["strict-transport-security"].startswith("max-age=")
        assert headers["cache-control"] == (
            "no-cache" if path == "/static/style.css" else headers["cache-control"]
        )
        assert headers["cache-control"] == "no-store" or path.startswith("/static/")
    assert "strict-transport-security" not in browser(application(people)).get("/login").headers


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "[::2]:80", "testserver.evil.example", ""]
)
def test_another_name_for_this_address_is_refused(client, host):
    assert client.get("/login", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["testserver", "TESTSERVER:8080", "localhost:1", "127.0.0.1", "[::1]:8080"])
def test_its_own_names_are_taken(client, host):
    assert client.get("/login", headers={"Host": host}).status_code == 200


def test_a_request_that_brings_too_much_is_refused_whether_it_says_so_or_not(client):
    assert client.post("/login", content=b"x" * (frame.LARGEST_BODY + 1)).status_code == 413
    assert client.post("/login", headers={"Content-Length": "-1"}).status_code == 413
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    pieces = (b"name=" + b"x" * 100_000 for _ in range(11))
    assert client.post("/login", content=pieces, headers=form).status_code == 413


def test_health_says_no_more_than_whether_it_is_well(people, monkeypatch):
    app = application(people)
    assert browser(app).get("/health").json() == {"status": "ok"}

    def away(_after: int) -> None:
        raise DatabaseError("postgresql://node:secret@db is away")

    monkeypatch.setattr(app.state.desk, "changes", away)
    answer = browser(app).get("/health")
    assert (answer.status_code, answer.json()) == (503, {"status": "not ok"})


def test_the_log_has_the_route_and_neither_address_nor_what_was_typed(client, caplog):
    caplog.set_level(logging.DEBUG, "dicom_node")
    log_in(client, passcode="marked-passcode")
    log_in(client)
    client.get(f"/studies/{uid(3)}")
    client.get("/login/link?token=marked-token")
    client.post("/search", data={"term": "marked-name", "csrf": csrf_of(client)})
    records = [record for record in caplog.records if record.message == "request"]
    assert {"/studies/{study}", "/login", "/search"} <= {record.route for record in records}
    of_the_node = [
        record for record in caplog.records if not record.name.startswith("httpx")
    ]  # the client here
    told = " ".join(str(vars(record)) for record in of_the_node)
    assert not [word for word in ("marked", uid(3), client.cookies["dicom-node"]) if word in told]


def test_a_mistake_of_ours_is_told_without_its_words_and_with_all_headers(people, monkeypatch):
    app = application(people)
    client = browser(app)
    log_in(client)

    def broken() -> None:
        raise ValueError("marked-patient")

    monkeypatch.setattr(app.state.desk, "health", broken)
    answer = client.get("/node")
    assert answer.status_code == 500
    assert "marked" not in answer.text
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_below_a_path_of_a_proxy_everything_stays_below_it(people):
    client = browser(application(people, base_path="/worklist"))
    answer = client.get(f"/worklist/studies/{uid(0)}")
    assert answer.headers["location"] == f"/worklist/login?next=/studies/{uid(0)}"
    answer = client.post("/worklist/login", data={"name": "viewer", "passcode": PASSCODE, "next": "/banks"})
    assert answer.headers["location"] == "/worklist/banks"
    assert client.get("/worklist/static/style.css").headers["cache-control"] == "no-cache"
    assert 'action="/worklist/logout"' in client.get("/worklist/keys").text
