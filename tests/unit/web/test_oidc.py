"""An identity provider vouches for people; whatever else it or a browser brings lets nobody in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient

from dicom_node.config import Web
from dicom_node.config.web import Oidc
from dicom_node.domain.errors import AccessError
from dicom_node.domain.people import Opened, Person, Session
from dicom_node.domain.reading import Role
from dicom_node.web.app import create_app
from dicom_node.web.oidc import role_of
from tests.fake_desk import FakeDesk
from tests.identity_provider import CLIENT, SECRET, IdentityProvider, provided


@dataclass
class Door:
    """Lets in whom a provider vouches for, and remembers them."""

    came: list[tuple[str, str, Role]] = field(default_factory=list)

    def vouched(self, name: str, subject: str, role: Role, address: str) -> Opened:
        if name == "taken":
            raise AccessError("'taken' is somebody else here")
        self.came.append((name, subject, role))
        return Opened(Session(Person(name, role), "csrf"), "token")

    def session(self, token: str, *, alive: bool = True) -> Session | None:
        return Session(Person("kim", Role.VIEWER), "csrf") if token == "token" and self.came else None  # noqa: S105

    def logout(self, token: str, name: str, address: str) -> None:
        pass

    def anybody(self) -> bool:
        return True


@pytest.fixture(scope="module")
def running() -> Iterator[IdentityProvider]:
    with provided() as provider:
        yield provider


@pytest.fixture
def provider(running) -> IdentityProvider:
    running.claims = {"preferred_username": "kim", "roles": ["dicom-node-viewer"]}
    running.forged = running.unsigned = False
    return running


@pytest.fixture
def door() -> Door:
    return Door()


def client_of(door: Door, issuer: str, tmp_path, **settings: object) -> TestClient:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    oidc = Oidc(issuer=issuer, client_id=CLIENT, client_secret_file=secret)
    app = create_app(FakeDesk(), door, Web(host_names=("testserver",), oidc=oidc, **settings))
    return TestClient(app, follow_redirects=False, raise_server_exceptions=False)


@pytest.fixture
def client(door, provider, tmp_path) -> TestClient:
    return client_of(door, provider.issuer, tmp_path)


def come(client: TestClient, provider: IdentityProvider):
    left = client.get("/login/oidc")
    assert left.status_code == 302
    return client.get(provider.authorize(left.headers["location"]))


def test_who_the_provider_vouches_for_is_let_in_with_its_role(client, provider, door):
    assert 'href="/login/oidc"' in client.get("/login").text
    answer = come(client, provider)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert door.came == [("kim", f"{provider.issuer} kim-1", Role.VIEWER)]
    assert client.get("/").status_code == 200


def test_the_browser_carries_neither_the_secret_nor_a_token_of_the_provider(client, provider):
    left = client.get("/login/oidc").headers["location"]
    asked = parse_qs(urlsplit(left).query)
    assert len(asked["nonce"][0]) >= 20
    assert len(asked["state"][0]) >= 20
    assert SECRET not in left
    answer = client.get(provider.authorize(left))
    assert SECRET not in str(answer.headers)
    assert "id_token" not in str(answer.headers)


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another-client"},
        {"iss": "https://evil.example"},
        {"nonce": "another-logins"},
        {"exp": 1_000_000_000},
        {"preferred_username": None},
        {"sub": None},
    ],
    ids=["audience", "issuer", "nonce", "expired", "no name", "no subject"],
)
def test_a_token_for_another_client_login_or_time_lets_nobody_in(client, provider, door, claims):
    provider.claims |= claims
    answer = come(client, provider)
    assert (answer.status_code, door.came) == (401, [])
    assert "did not vouch for you" in answer.text


@pytest.mark.parametrize("how", ["forged", "unsigned"])
def test_a_token_that_the_provider_did_not_sign_lets_nobody_in(client, provider, door, how):
    setattr(provider, how, True)
    provider.claims |= {"roles": ["dicom-node-admin"]}
    assert (come(client, provider).status_code, door.came) == (401, [])


def test_an_answer_that_this_browser_did_not_ask_for_lets_nobody_in(client, provider, door, tmp_path):
    theirs = provider.authorize(client.get("/login/oidc").headers["location"])
    victim = client_of(door, provider.issuer, tmp_path)
    assert victim.get(theirs).status_code == 401
    assert client.get("/login/oidc/back?code=x&state=y").status_code == 401
    assert client.get("/login/oidc/back").status_code == 401
    assert door.came == []


def test_an_answer_serves_once(client, provider, door):
    back = provider.authorize(client.get("/login/oidc").headers["location"])
    assert [client.get(back).status_code for _ in range(2)] == [303, 401]
    assert len(door.came) == 1


def test_a_refusal_of_the_provider_is_told_without_its_words(client):
    answer = client.get("/login/oidc/back?error=access_denied&error_description=<script>alert(1)</script>")
    assert (answer.status_code, "alert(1)" in answer.text) == (401, False)


def test_who_has_no_role_here_is_told_so(client, provider, door):
    provider.claims |= {"roles": ["email"]}
    answer = come(client, provider)
    assert (answer.status_code, door.came) == (401, [])
    assert "gives you no role here" in answer.text


def test_who_has_the_name_of_somebody_else_is_told_so(client, provider):
    provider.claims |= {"preferred_username": "taken"}
    answer = come(client, provider)
    assert (answer.status_code, "is somebody else here" in answer.text) == (401, True)


def test_a_provider_that_is_away_is_told_so_and_the_passcode_still_serves(door, tmp_path):
    client = client_of(door, "http://127.0.0.1:1", tmp_path)
    answer = client.get("/login/oidc")
    assert (answer.status_code, "does not answer" in answer.text) == (401, True)
    assert 'name="passcode"' in answer.text


def test_below_a_path_of_a_proxy_the_provider_leads_back_below_it(door, provider, tmp_path):
    client = client_of(door, provider.issuer, tmp_path, base_path="/worklist")
    left = client.get("/worklist/login/oidc").headers["location"]
    assert parse_qs(urlsplit(left).query)["redirect_uri"] == ["http://testserver/worklist/login/oidc/back"]
    assert client.get(provider.authorize(left)).headers["location"] == "/worklist/"


@pytest.mark.parametrize(
    ("claim", "claims", "role"),
    [
        ("roles", {"roles": ["x", "dicom-node-viewer", "dicom-node-admin"]}, Role.ADMIN),
        ("scope", {"scope": "openid dicom-node-operator"}, Role.OPERATOR),
        ("realm_access.roles", {"realm_access": {"roles": ["dicom-node-viewer"]}}, Role.VIEWER),
        ("roles", {"roles": ["DICOM-NODE-ADMIN", "dicom-node-administrator"]}, None),
        ("roles", {"roles": [["dicom-node-admin"], {"dicom-node-admin": 1}, 7, None]}, None),
        ("roles.x", {"roles": ["dicom-node-admin"]}, None),
        ("roles", {}, None),
    ],
)
def test_the_highest_role_of_the_claim_counts_and_nothing_like_it(claim, claims, role):
    assert role_of(Oidc(role_claim=claim), claims) is role
