"""Every route of the API's description, by real people with sessions and tokens, with what is right and what is not.

Who has not got a route's role gets no further; whatever is sent, the answer is no fault of the node's and says in the
form of RFC 9457 what would be right. Schemathesis would do this too; the part of it that is needed is below.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient
from httpx import Response
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_node.config import Db, Web
from dicom_node.db.engine import open_engine
from dicom_node.db.migrate import upgrade
from dicom_node.domain.reading import Role
from dicom_node.pipeline.people import People
from dicom_node.web.api_models import Problem
from dicom_node.web.app import create_app
from tests.desks import Desk
from tests.integration.test_pipeline import Site
from tests.phantoms import chest_dataset
from tests.structure.test_openapi import described

PASSCODE = "correct horse"
STUDY, IMAGE = "2.25.11", "2.25.12"
RIGHT = {
    "study": STUDY,
    "image": IMAGE,
    "kind": "thumbnail",
    "bank": "site-a",
    "series": "2.25.1",
    "instance": "2.25.2",
}
BODIES: dict[str, dict[str, Any]] = {
    "/api/v1/orders/cancel": {"items": [999]},
    "/api/v1/orders/retry": {"items": [999]},
    "/api/v1/orders/rerun": {"studies": ["2.25.404"]},
    "/api/v1/studies/search": {"search": "x"},
    "/api/v1/studies/{study}/mark": {"mark": "normal"},
    "/api/v1/studies/{study}/priority": {"priority": "high"},
}
OPERATIONS = [(method.upper(), path) for path, methods in described()["paths"].items() for method in methods]
SAFE_BUT_POST = "/api/v1/studies/search"
_cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def role_of(method: str, path: str) -> Role:
    """Return the role that a route is for, as the runbook has it."""
    if method == "GET" or path == SAFE_BUT_POST:
        return Role.VIEWER
    return Role.ADMIN if path.startswith("/api/v1/banks") else Role.OPERATOR


class Api:
    """The application over a real database and store, and people who log in."""

    def __init__(self, folder: Path) -> None:
        engine = open_engine(Db(url=f"sqlite:///{folder / 'node.db'}"))
        upgrade(engine)
        self.site = Site(engine, folder / "store")
        self.site.receive(chest_dataset(seed=1, StudyInstanceUID=STUDY, SOPInstanceUID=IMAGE))
        self.site.pass_quiet_time()
        self.site.work()
        self.desk = Desk(engine, self.site.files, self.site.clock)
        self.people = People(engine, self.site.clock, hash_of=_cheap.hash)
        for role in Role:
            self.people.put(role.value, role, PASSCODE)
        self.app = create_app(self.desk.desk, self.people, Web(host_names=("testserver",)))
        self.tokens = {role: self.people.token(role.value) for role in Role}

    def client(self) -> TestClient:
        return TestClient(self.app, follow_redirects=False, raise_server_exceptions=False)

    def logged_in(self, role: Role) -> tuple[TestClient, str]:
        """Return a browser in which somebody has logged in, and the token of the session's forms."""
        browser = self.client()
        self.site.clock.forward(1)  # of a person's many sessions the oldest ends
        done = browser.post("/login", data={"name": role.value, "passcode": PASSCODE})
        assert done.status_code == 303
        found = re.search(r'name="csrf" value="([^"]+)"', browser.get("/keys").text)
        assert found is not None
        return browser, found[1]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    made = Api(tmp_path_factory.mktemp("api"))
    yield made
    made.desk.desk.close()


def ask(client: TestClient, method: str, path: str, **headers: str) -> Response:
    """Send what is right for a route; a stream is asked for wrongly, as it would never end."""
    query = "?after=-7" if path.endswith("/events") else ""
    body = BODIES.get(path)
    sent = {} if body is None else {"json": body}
    return client.request(method, path.format(**RIGHT) + query, headers=headers, **sent)


def is_problem(answer: Response) -> bool:
    """Say whether an answer is a problem document with its own status in it."""
    if answer.headers.get("content-type") != "application/problem+json":
        return False
    return Problem.model_validate(answer.json()).status == answer.status_code


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_a_route_serves_those_who_have_its_role_and_nobody_else(method: str, path: str, api: Api) -> None:
    needed = list(Role).index(role_of(method, path))
    nobody = ask(api.client(), method, path)
    assert (nobody.status_code, is_problem(nobody)) == (401, True)
    assert ask(api.client(), method, path, Authorization="Bearer wrong").status_code == 401
    for number, role in enumerate(Role):
        allowed = number >= needed
        answer = ask(api.client(), method, path, Authorization=f"Bearer {api.tokens[role]}")
        browser, csrf = api.logged_in(role)
        of_browser = ask(browser, method, path, **{"X-CSRF-Token": csrf})
        for one in (answer, of_browser):
            assert (one.status_code not in (401, 403), one.status_code < 500) == (allowed, True), one.text
            assert one.status_code < 400 or is_problem(one)
        if method != "GET":
            assert ask(browser, method, path).status_code == 403, "without the session's token nothing is done"
            other_site = {"X-CSRF-Token": csrf, "Origin": "https://evil.example"}
            assert ask(browser, method, path, **other_site).status_code == 403


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_a_route_takes_no_other_method(method: str, path: str, api: Api) -> None:
    taken = {one for one, where in OPERATIONS if where == path}
    for other in {"POST", "PUT", "PATCH", "DELETE"} - taken:
        answer = api.client().request(
            other, path.format(**RIGHT), headers={"Authorization": f"Bearer {api.tokens[Role.ADMIN]}"}
        )
        assert answer.status_code in (404, 405)
        assert is_problem(answer)


TEXT = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        (
            STUDY,
            "",
            ".",
            "..",
            "%00",
            "1." * 40,
            "-1",
            "0",
            "9" * 30,
            "nan",
            "null",
            "2026-01-01",
            "x" * 3000,
            "\u202e",
        )
    ),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=8,
)


def near(right: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return bodies that are wrong, or right but for one value."""
    changed = st.tuples(st.sampled_from(sorted(right) or ["x"]), JSON).map(
        lambda one: {**right, one[0]: one[1]}
    )
    return st.one_of(JSON, changed)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_whatever_is_sent_the_answer_is_no_fault_and_says_what_would_be_right(
    method: str, path: str, api: Api
) -> None:
    operation = described()["paths"][path][method.lower()]
    parameters = operation.get("parameters", ())
    names = {kind: [one["name"] for one in parameters if one["in"] == kind] for kind in ("path", "query")}
    client = api.client()
    headers = {"Authorization": f"Bearer {api.tokens[Role.ADMIN]}"}

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(
        st.fixed_dictionaries({name: st.one_of(TEXT, st.just(RIGHT[name])) for name in names["path"]}),
        st.dictionaries(st.one_of(st.sampled_from(names["query"] or ["limit"]), TEXT), TEXT, max_size=4),
        near(BODIES.get(path, {})),
        st.sampled_from(("application/json", "text/plain", "multipart/form-data; boundary=", "")),
    )
    def walk(parts: dict[str, str], query: dict[str, str], body: Any, kind: str) -> None:
        if path.endswith("/events"):
            query = {**query, "after": "-7"}
        named = {name: quote(value, safe="") if value.strip(".") else "x" for name, value in parts.items()}
        target = path.format(**named)  # a client takes dots away by itself
        sent = (
            {}
            if method == "GET"
            else {"content": json.dumps(body), "headers": {**headers, "Content-Type": kind}}
        )
        answer = client.request(method, target, **{"params": query, "headers": headers, **sent})
        assert answer.status_code < 500, answer.text
        assert answer.status_code < 400 or is_problem(answer), answer.text

    walk()


def test_what_is_no_json_at_all_is_a_problem_too(api: Api) -> None:
    headers = {"Authorization": f"Bearer {api.tokens[Role.ADMIN]}", "Content-Type": "application/json"}
    for content in (
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 50_000,
        b'{"search": "\\ud800"}',
        b"1e999",
        b'{"items": [NaN]}',
    ):
        for path in BODIES:
            method = next(one for one, where in OPERATIONS if where == path)
            answer = api.client().request(method, path.format(**RIGHT), content=content, headers=headers)
            assert 400 <= answer.status_code < 500, content[:20]
            assert is_problem(answer)
