"""User identity negotiation on the listening side (PS3.7 D.3.3.7)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from dicom_node.deliver import scu
from dicom_node.domain.errors import CertificateError
from dicom_node.domain.security import ClientSecurity
from dicom_node.domain.types import Destination
from dicom_node.receive.contexts import VERIFICATION
from dicom_node.receive.scp import Scp
from dicom_node.security.passcodes import FAILURES, write_users
from tests.peers import dcmtk
from tests.unit.receive.conftest import rejection

FAILED = (1, 2, 1)
LATER = (2, 3, 1)


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("users") / "users"
    cheap = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    write_users(path, {"cr1": cheap.hash(b"open sesame"), "anyone": "-"})
    return path


@pytest.fixture
def guarded(serve: Callable[..., Scp], users: Path) -> Callable[..., Scp]:
    def start(*, required: bool = True) -> Scp:
        return serve(identity={"users_file": users, "required": required})

    return start


def _associate(
    scp: Scp, kind: int = 0, name: str = "", passcode: str = "", *, respond: bool = False
) -> Association:
    entity = ApplicationEntity("CR1")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
    entity.add_requested_context(VERIFICATION.uid)
    items = []
    if kind:
        item = UserIdentityNegotiation()
        item.user_identity_type = kind
        item.positive_response_requested = respond
        item.primary_field = name.encode()
        if kind == 2:
            item.secondary_field = passcode.encode()
        items.append(item)
    association = entity.associate(*scp.address, ae_title="DICOMNODE", ext_neg=items)
    if association.is_established:
        assert association.send_c_echo().Status == 0
        association.release()
        association.answered = association.acceptor.user_identity  # type: ignore[attr-defined]
    return association


def _outcome(association: Association) -> object:
    if association.is_released:
        return "taken"
    return rejection(association)


@pytest.mark.parametrize(
    ("stated", "outcome", "outcome_where_optional"),
    [
        ((2, "cr1", "open sesame"), "taken", "taken"),
        ((2, "cr1", "open sesam"), FAILED, FAILED),
        ((2, "nobody", "open sesame"), FAILED, FAILED),
        ((1, "cr1"), FAILED, FAILED),
        ((1, "anyone"), "taken", "taken"),
        ((2, "anyone", "whatever"), "taken", "taken"),
        ((4, "<saml/>"), FAILED, "taken"),
        ((), FAILED, "taken"),
    ],
)
def test_who_is_taken(stated, outcome, outcome_where_optional, guarded):
    assert _outcome(_associate(guarded(), *stated)) == outcome
    assert _outcome(_associate(guarded(required=False), *stated)) == outcome_where_optional


def test_nobody_is_asked_without_a_users_file(serve):
    assert _outcome(_associate(serve(), 2, "cr1", "anything")) == "taken"


@pytest.mark.parametrize("respond", [True, False])
def test_a_positive_response_comes_where_it_was_requested(respond, guarded):
    answered = _associate(guarded(), 2, "cr1", "open sesame", respond=respond).answered  # type: ignore[attr-defined]
    assert (answered is not None) is respond
    assert answered is None or answered.server_response == b""


def test_guesses_from_one_address_are_turned_away_for_a_while(guarded):
    scp = guarded()
    for _ in range(FAILURES):
        assert _outcome(_associate(scp, 1, "cr1")) == FAILED
    assert _outcome(_associate(scp, 2, "cr1", "open sesame")) == LATER


def test_no_passcode_and_no_unknown_name_is_in_the_log(guarded, caplog):
    caplog.set_level("DEBUG")
    scp = guarded()
    _associate(scp, 2, "cr1", "wrong-passcode-1")
    _associate(scp, 2, "typed-in-the-wrong-field", "wrong-passcode-2")
    _associate(scp, 2, "cr1", "open sesame")
    text = "\n".join(str(record.__dict__) for record in caplog.records)
    assert "user 'cr1', with a wrong passcode" in text
    for secret in ("wrong-passcode-1", "wrong-passcode-2", "typed-in-the-wrong-field", "open sesame", "argon2"):
        assert secret not in text


def test_our_own_client_is_taken_by_name_and_passcode(guarded, tmp_path):
    passcode = tmp_path / "passcode"
    passcode.write_text("open sesame\n")
    security = ClientSecurity(username="cr1", passcode_file=passcode)
    scu.echo(Destination("node", "DICOMNODE", *guarded().address, security), calling_ae_title="CR1")


def test_a_peer_without_identity_is_rejected_and_dcmtk_says_so(guarded):
    host, port = guarded().address
    done = subprocess.run(
        [dcmtk("echoscu"), host, str(port)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "Reason: No Reason" in done.stderr + done.stdout
    scp = guarded(required=False)
    command = [dcmtk("echoscu"), scp.address[0], str(scp.address[1])]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def test_a_users_file_that_cannot_be_used_keeps_the_node_from_starting(serve, tmp_path):
    (tmp_path / "users").write_text("cr1:open sesame\n")
    with pytest.raises(CertificateError, match="line 1") as refused:
        serve(identity={"users_file": tmp_path / "users"})
    assert "sesame" not in str(refused.value)


def test_a_check_that_fails_itself_lets_nobody_in(serve: Callable[..., Scp], tmp_path: Path) -> None:
    users = tmp_path / "users"
    hashed = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(b"open sesame")
    write_users(users, {"cr1": hashed})
    scp = serve(identity={"users_file": users})
    write_users(users, {"cr1": hashed.replace("m=64", "m=1")})  # less memory than argon2 can do with
    assert _outcome(_associate(scp, 2, "cr1", "wrong")) == LATER
