"""Who looks at the reading worklist, as values. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from dicom_node.domain.reading import Role

RANK = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}
"""Each may do what those below may."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may look."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Return whether this person may do what asks for a role."""
        return RANK[self.role] >= RANK[role]


@dataclass(frozen=True, slots=True)
class By:
    """Who looks or orders, as the audit trail names it: a person, and the address of the person's browser."""

    name: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is logged in. `csrf` goes into every form; "" where a program shows a token of its own."""

    person: Person
    csrf: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """A session that has just begun, with the token that is told once."""

    session: Session
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Known:
    """A row of the list of people. `passcode` is False where somebody else vouches; `tokens` are those of programs."""

    name: str
    role: Role
    passcode: bool
    sessions: int
    tokens: int
    created_at: datetime
