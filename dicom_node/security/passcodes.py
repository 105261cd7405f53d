"""Users and their hashed passcodes (argon2id, RFC 9106), one a line: ``name:hash``. A hash of ``-`` asks for none.

A check costs the same for a name that is not there, only one runs at a time, and an address that was wrong too
often is turned away without one: a flood of guesses burns no more than a part of one processor.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from secrets import token_bytes

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import HashingError, InvalidHashError, VerificationError

from dicom_node.domain.errors import CertificateError

NO_PASSCODE = "-"
FAILURES = 10
"""So many wrong answers of one address within `WINDOW` seconds, and it must wait until they have passed."""
WINDOW = 60.0
_WAIT = 5.0
_ADDRESSES = 1024
_LONGEST = 64


class Verdict(Enum):
    """What came of a check."""

    RIGHT = "right"
    WRONG = "wrong"
    BUSY = "busy"


class Users:
    """The users of a file, read again when it changes.

    Parameters
    ----------
    path
        The file; see the module.
    elapsed
        Returns seconds that only grow.

    Raises
    ------
    CertificateError
        If the file cannot be used.
    """

    def __init__(self, path: Path, elapsed: Callable[[], float]) -> None:
        self._path = path
        self._elapsed = elapsed
        self._hashing = threading.Semaphore(1)
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._stamp: tuple[int, int] | None = None
        self._users: dict[str, str] = {}
        self._decoy = ""
        self._refresh()

    def knows(self, name: str) -> bool:
        """Return whether there is such a user; only such names are worth a place in a log."""
        return name in self._users

    def check(self, name: str, passcode: bytes | None, address: str) -> Verdict:
        """Return whether a user is who he says.

        Parameters
        ----------
        passcode
            None where only a name was given.
        address
            Where the question comes from.

        Raises
        ------
        CertificateError
            If the file has changed and cannot be used.
        """
        with self._lock:
            self._refresh()
            found, decoy = self._users.get(name), self._decoy
            if self._failed_too_often(address):
                return Verdict.BUSY
        if found == NO_PASSCODE:
            return Verdict.RIGHT
        if passcode is None:
            right = False
        elif not self._hashing.acquire(timeout=_WAIT):
            return Verdict.BUSY
        else:
            try:
                right = matches(found or decoy, passcode) and found is not None
            finally:
                self._hashing.release()
        if right:
            return Verdict.RIGHT
        with self._lock:
            self._note_failure(address)
        return Verdict.WRONG

    def _refresh(self) -> None:
        try:
            seen = self._path.stat()
        except OSError as error:
            raise CertificateError(f"{self._path} cannot be read: {error.strerror or error}") from error
        stamp = (seen.st_mtime_ns, seen.st_ino)
        if stamp != self._stamp:
            self._users = read_users(self._path)
            self._decoy = decoy(self._path, self._users)
            self._stamp = stamp

    def _failed_too_often(self, address: str) -> bool:
        since, count = self._failures.get(address, (0.0, 0))
        if count and self._elapsed() - since >= WINDOW:
            del self._failures[address]
            return False
        return count >= FAILURES

    def _note_failure(self, address: str) -> None:
        since, count = self._failures.pop(address, (self._elapsed(), 0))
        self._failures[address] = (since, count + 1)
        if len(self._failures) > _ADDRESSES:
            self._failures.popitem(last=False)


def hash_passcode(passcode: bytes) -> str:
    """Return what a users file holds of a passcode."""
    return PasswordHasher().hash(passcode)


def read_users(path: Path) -> dict[str, str]:
    """Return the hashes of a users file by name.

    Raises
    ------
    CertificateError
        With the number of the first line that is not as it should be. The line itself is not quoted.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise CertificateError(f"{path} is no text in UTF-8") from error
    users: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, hashed = line.strip().partition(":")
        if not colon or not _is_hash(hashed):
            raise CertificateError(f"{path}: line {number} is not name:hash; `dicom-node user add` writes such")
        users[check_name(name)] = hashed
    return users


def decoy(path: Path, users: dict[str, str]) -> str:
    """Return a hash that takes as long as those of a users file, of a passcode that nobody has.

    Raises
    ------
    CertificateError
        If the file's first hash is one that cannot be computed.
    """
    costs = [hashed for hashed in users.values() if hashed != NO_PASSCODE]
    hasher = PasswordHasher.from_parameters(extract_parameters(costs[0])) if costs else PasswordHasher()
    try:
        return hasher.hash(token_bytes(16))
    except (HashingError, OverflowError) as error:
        raise CertificateError(
            f"{path}: the first hash has parameters that argon2 does not take ({error}); "
            "`dicom-node user add` writes it anew"
        ) from error


def write_users(path: Path, users: dict[str, str]) -> None:
    """Replace a users file at once; only its owner, and the group that it had, may read it.

    Raises
    ------
    CertificateError
        If it cannot be written.
    """
    beside = path.with_name(path.name + ".part")
    try:
        mode = (path.stat().st_mode & 0o640) if path.exists() else 0o600
        beside.unlink(missing_ok=True)
        with os.fdopen(
            os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
        ) as file:
            file.writelines(f"{name}:{hashed}\n" for name, hashed in users.items())
            file.flush()
            os.fchmod(file.fileno(), mode)
            if path.exists():
                os.fchown(file.fileno(), path.stat().st_uid, path.stat().st_gid)
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise CertificateError(f"{path} cannot be written: {error.strerror or error}") from error


def check_name(name: str) -> str:
    """Return a user's name if it may stand in a users file.

    Raises
    ------
    CertificateError
        If it may not.
    """
    if not 1 <= len(name) <= _LONGEST or ":" in name or name.startswith("#") or not name.isprintable():
        raise CertificateError(
            f"a user's name has 1 to {_LONGEST} characters, all printable, no colon, and no # at its beginning"
        )
    if name != name.strip():
        raise CertificateError("a user's name does not begin or end with a space")
    return name


def _is_hash(text: str) -> bool:
    if text == NO_PASSCODE:
        return True
    try:
        extract_parameters(text)
    except InvalidHashError:
        return False
    return True


def matches(hashed: str, passcode: bytes) -> bool:
    """Return whether a passcode is the one that a hash was made of."""
    try:
        return PasswordHasher().verify(hashed, passcode)
    except (VerificationError, InvalidHashError):
        return False
