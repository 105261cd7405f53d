"""User identity negotiation (PS3.7 D.3.3.7) on the listening side: who a peer says it is, and whether that holds.

Knows username (type 1) and username with passcode (type 2). Kerberos, SAML and JSON Web Tokens are not supported:
such an identity counts as none, as the standard asks of who does not support it. No passcode is kept or logged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pynetdicom.pdu_primitives import UserIdentityNegotiation

from dicom_node.config import Identity
from dicom_node.domain.errors import CertificateError
from dicom_node.receive.guard import Rejection
from dicom_node.security.passcodes import FAILURES, WINDOW, Users, Verdict

_USERNAME, _USERNAME_AND_PASSCODE = 1, 2
FAILED = (1, 2, 1)
"""Rejected permanently, by the service provider (ACSE), no reason given: what PS3.7 D.3.3.7 asks for."""
_LATER = (2, 3, 1)


@dataclass(frozen=True, slots=True)
class Identified:
    """A peer that may go on.

    Attributes
    ----------
    user
        Whose identity was verified; empty where none was asked for or stated.
    answer
        The positive response, if one was requested.
    """

    user: str = ""
    answer: UserIdentityNegotiation | None = None


class IdentityCheck:
    """Judges what a request says of its user.

    Parameters
    ----------
    config
        The `receive.identity` section.
    elapsed
        Returns seconds that only grow.

    Raises
    ------
    CertificateError
        If there is a users file and it cannot be used.
    """

    def __init__(self, config: Identity, elapsed: Callable[[], float]) -> None:
        self._required = config.required
        self._users = None if config.users_file is None else Users(config.users_file, elapsed)

    def __call__(self, stated: UserIdentityNegotiation | None, address: str) -> Identified | Rejection:
        """Return who it is, or why the association is rejected. Takes as long as a hash takes."""
        if self._users is None:
            return Identified()
        if stated is None or stated.user_identity_type not in {_USERNAME, _USERNAME_AND_PASSCODE}:
            if self._required:
                return Rejection(
                    *FAILED, "no user identity of type 1 or 2; receive.identity.required asks for one"
                )
            return Identified()
        name = _text(stated.primary_field)
        with_passcode = stated.user_identity_type == _USERNAME_AND_PASSCODE
        try:
            verdict = self._users.check(name, stated.secondary_field or b"" if with_passcode else None, address)
        except CertificateError as error:
            return Rejection(*_LATER, f"the users cannot be read: {error}")
        if verdict is Verdict.BUSY:
            why = f"{FAILURES} wrong ones came from there within {WINDOW:g} s, or too many at once"
            return Rejection(*_LATER, f"the user identity was not checked: {why}")
        if verdict is Verdict.WRONG:
            # A name that nobody has may be a passcode in the wrong field.
            who = (
                f"user {name!r}"
                if self._users.knows(name)
                else "a user that is not in receive.identity.users_file"
            )
            how = "a wrong passcode" if with_passcode else "no passcode"
            return Rejection(*FAILED, f"{who}, with {how}")
        return Identified(name, _positive() if stated.positive_response_requested else None)


def _text(field: bytes | None) -> str:
    return (field or b"").decode("utf-8", "replace")


def _positive() -> UserIdentityNegotiation:
    answer = UserIdentityNegotiation()
    answer.server_response = b""  # of no length for types 1 and 2 (PS3.7 table D.3-15)
    return answer
