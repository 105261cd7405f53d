"""What the pages ask about the people who use them. The node gives the pages something that does this."""

from __future__ import annotations

from typing import Protocol

from dicom_node.domain.people import Opened, Person, Session
from dicom_node.domain.reading import Role


class People(Protocol):
    """Lets people in."""

    def login(self, name: str, passcode: str, address: str) -> Opened:
        """Begin a session, or raise AccessError."""

    def follow_link(self, token: str, address: str) -> Opened:
        """Begin a session by a one-time link, or raise AccessError."""

    def vouched(self, name: str, subject: str, role: Role, address: str) -> Opened:
        """Begin a session of somebody for whom an identity provider vouches, or raise AccessError.

        `subject` is who it is for the provider, whatever the name.
        """

    def session(self, token: str, *, alive: bool = True) -> Session | None:
        """Return whose session a token is of; `alive` is False where no person did anything, but a page by itself."""

    def program(self, token: str) -> Person | None:
        """Return whose token a program shows."""

    def logout(self, token: str, name: str, address: str) -> None:
        """End a session."""

    def anybody(self) -> bool:
        """Return whether there is anybody who may log in."""
