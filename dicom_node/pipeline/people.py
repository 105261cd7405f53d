"""Lets people in: passcodes, sessions, one-time links, tokens of programs. Owns how long each is good for.

Tokens are random and told once; what is kept is their SHA-256. A wrong passcode costs the same for a name that is
not known, and who is wrong often waits longer each time.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Engine

from dicom_node.db.dialect import storable
from dicom_node.db.engine import reading, writing
from dicom_node.domain.audit import Audit, AuditOutcome, UserAuthenticated, unheard
from dicom_node.domain.errors import AccessError, NotFoundError
from dicom_node.domain.people import Known, Opened, Person, Session
from dicom_node.domain.reading import Role
from dicom_node.security import brake
from dicom_node.security.passcodes import check_name, hash_passcode, matches
from dicom_node.store import login_failures, people

LINK_MINUTES = 15
"""A one-time link is good for so long."""
SHORTEST, LONGEST = 10, 1024
"""Characters of a passcode."""

_SEEN_EVERY = timedelta(seconds=30)
_ADDRESS_WAITS, _NAME_WAITS = 900.0, 30.0
# A name waits less: whoever wants to keep somebody out could fail in that name for ever.
_PATIENCE = 5.0
_SESSIONS = 20
# Of one person; the oldest ends.


class People:
    """What the pages ask about people. Safe to share between threads.

    Parameters
    ----------
    session_hours, idle_minutes
        How long a session lasts, and how long without a request.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], datetime],
        *,
        session_hours: float = 12.0,
        idle_minutes: float = 60.0,
        audit: Audit = unheard,
        hash_of: Callable[[bytes], str] = hash_passcode,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._audit = audit
        self._whole, self._idle = timedelta(hours=session_hours), timedelta(minutes=idle_minutes)
        self._hash = hash_of
        self._one_at_a_time = threading.Semaphore(1)
        self._decoy: str = ""

    def login(self, name: str, passcode: str, address: str) -> Opened:
        """Begin a session.

        Raises
        ------
        AccessError
            If name and passcode do not fit, or there were too many wrong ones; the text does not say which part.
        """
        name = storable(name, 64)
        self._turn_away(address, name)
        with reading(self._engine) as conn:
            held = people.get(conn, name)
        if not self._one_at_a_time.acquire(timeout=_PATIENCE):
            raise AccessError("many log in at this moment; try again in a few seconds")
        try:
            self._turn_away(address, name)  # those who were before it may have failed in its name
            right = self._fits(held, passcode)
            if not right:
                with writing(self._engine) as conn:
                    login_failures.add(conn, (_place(address), _named(name)), self._clock())
        finally:
            self._one_at_a_time.release()
        if held is None or not right:
            self._audit_failure(address, "" if held is None else name)  # what was typed there may be a passcode
            raise AccessError("name and passcode do not fit")
        with writing(self._engine) as conn:
            login_failures.forget(conn, _named(name))
        return self.open(held.person, address)

    def _fits(self, held: people.Held | None, passcode: str) -> bool:
        """Say whether a passcode is a person's; that takes as long where there is no such person."""
        if not self._decoy:
            self._decoy = self._hash(secrets.token_bytes(16))
        known = held is not None and held.hashed != people.VOUCHED
        hashed = held.hashed if held is not None and known else self._decoy
        return matches(hashed, passcode.encode()[: 4 * LONGEST]) and known and len(passcode) <= LONGEST

    def _turn_away(self, address: str, name: str | None = None) -> None:
        """Raise AccessError if somebody must wait."""
        counted = [(_place(address), _ADDRESS_WAITS)]
        if name is not None:
            counted.append((_named(name), _NAME_WAITS))
        now = self._clock()
        with reading(self._engine) as conn:
            failed = [(*login_failures.of(conn, who, now), longest) for who, longest in counted]
        wait = max(brake.wait(times, (now - last).total_seconds(), longest) for times, last, longest in failed)
        if wait > 0:
            raise AccessError(f"there were too many failures; try again in {math.ceil(wait)} s")

    def _audit_failure(self, address: str, who: str) -> None:
        self._audit(UserAuthenticated(self._clock(), who, address, outcome=AuditOutcome.MINOR_FAILURE))

    def open(self, person: Person, address: str) -> Opened:
        """Begin a session of somebody who has proved who he is."""
        token, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        now = self._clock()
        with writing(self._engine) as conn:
            people.forget_old(conn, now - self._whole, now - self._idle, now)
            people.open_session(conn, _digest(token), person.name, csrf, now)
            people.end_oldest(conn, person.name, _SESSIONS)
        self._audit(UserAuthenticated(now, person.name, address))
        return Opened(Session(person, csrf), token)

    def follow_link(self, token: str, address: str) -> Opened:
        """Begin a session by a one-time link.

        Raises
        ------
        AccessError
            If it was used, or its time is over.
        """
        self._turn_away(address)
        with writing(self._engine) as conn:
            person = people.key_owner(conn, _digest(token), "link", self._clock())
            taken = person is not None and people.take_key(conn, _digest(token))
        if person is None or not taken:
            with writing(self._engine) as conn:
                login_failures.add(conn, (_place(address),), self._clock())
            self._audit_failure(address, "")
            raise AccessError(
                f"this link was used, or is older than {LINK_MINUTES} minutes; "
                "`dicom-node user link NAME` makes a new one"
            )
        return self.open(person, address)

    def vouched(self, name: str, subject: str, role: Role, address: str) -> Opened:
        """Begin a session of somebody for whom an identity provider vouches; it also says the role.

        Parameters
        ----------
        subject
            Who it is for the provider, whatever the name: its issuer and subject. The first with a name keeps it.

        Raises
        ------
        CertificateError
            If the name cannot be one.
        AccessError
            If that name is another person's here.
        """
        digest = _digest(subject)
        with writing(self._engine) as conn:
            held = people.get(conn, check_name(name))
            if held is None or held.subject == digest:
                people.put(conn, name, role, None, self._clock(), digest)
                held = people.get(conn, name)
            elif held is not None:
                held = None
        if held is None:
            self._audit_failure(address, name)
            raise AccessError(
                f"{name!r} is somebody else here; an administrator can rename one of the two, or remove that one "
                "by `dicom-node user remove`"
            )
        return self.open(held.person, address)

    def session(self, token: str, *, alive: bool = True) -> Session | None:
        """Return whose session a token is of, None where its time is over or there is none.

        It lasts longer only where a person did something (`alive`): a page that is left open keeps nobody logged in.
        """
        now, digest = self._clock(), _digest(token)
        with reading(self._engine) as conn:
            held = people.session(conn, digest)
        if held is None or now - held.started_at >= self._whole or now - held.seen_at >= self._idle:
            return None
        if alive and abs(now - held.seen_at) >= _SEEN_EVERY:
            with writing(self._engine) as conn:
                people.session_seen(conn, digest, now)
        return Session(held.person, held.csrf)

    def program(self, token: str) -> Person | None:
        """Return whose token a program shows, None for an unknown one."""
        with reading(self._engine) as conn:
            return people.key_owner(conn, _digest(token), "token", self._clock())

    def logout(self, token: str, name: str, address: str) -> None:
        """End a session."""
        with writing(self._engine) as conn:
            people.end_session(conn, _digest(token))
        self._audit(UserAuthenticated(self._clock(), name, address, login=False))

    def anybody(self) -> bool:
        """Return whether there is anybody who may log in."""
        with reading(self._engine) as conn:
            return bool(people.listed(conn))

    def put(self, name: str, role: Role, passcode: str | None) -> bool:
        """Add a person, or change role and passcode (None for none); return whether the person is new.

        Whoever is changed is logged out.

        Raises
        ------
        CertificateError, AccessError
            If the name or the passcode cannot be one.
        """
        check_name(name)
        if passcode is not None and not SHORTEST <= len(passcode) <= LONGEST:
            raise AccessError(f"the passcode has {len(passcode)} characters; {SHORTEST} to {LONGEST} are right")
        hashed = people.VOUCHED if passcode is None else self._hash(passcode.encode())
        with writing(self._engine) as conn:
            return people.put(conn, name, role, hashed, self._clock())

    def give_role(self, name: str, role: Role) -> None:
        """Change a person's role and nothing else; sessions end at once. Raises NotFoundError."""
        with writing(self._engine) as conn:
            if people.get(conn, name) is None:
                raise _unknown(name)
            people.put(conn, name, role, None, self._clock())

    def remove(self, name: str) -> None:
        """Remove a person; sessions end at once. Raises NotFoundError."""
        with writing(self._engine) as conn:
            if not people.remove(conn, name):
                raise _unknown(name)

    def listed(self) -> tuple[Known, ...]:
        """Return everybody."""
        with reading(self._engine) as conn:
            return people.listed(conn)

    def link(self, name: str) -> str:
        """Return the token of a new one-time link. Raises NotFoundError."""
        return self._key(name, "link", self._clock() + timedelta(minutes=LINK_MINUTES))

    def token(self, name: str) -> str:
        """Return a new token for programs that act as that person. Raises NotFoundError."""
        return self._key(name, "token", None)

    def revoke(self, name: str) -> int:
        """Take back all tokens of a person's programs; return how many. Raises NotFoundError."""
        with writing(self._engine) as conn:
            if people.get(conn, name) is None:
                raise _unknown(name)
            return people.revoke(conn, name, "token")

    def _key(self, name: str, kind: str, expires_at: datetime | None) -> str:
        token = secrets.token_urlsafe(32)
        with writing(self._engine) as conn:
            if people.get(conn, name) is None:
                raise _unknown(name)
            people.put_key(conn, _digest(token), name, kind, self._clock(), expires_at)
        return token


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _place(address: str) -> str:
    return f"address {brake.neighbourhood(address)}"


def _named(name: str) -> str:
    return f"name {brake.bucket(name)}"


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(f"there is nobody named {name!r}; see `dicom-node user list`")
