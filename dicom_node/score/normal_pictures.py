"""Small pictures of a bank's normals, in one file of the bank, so that people can see what an image was compared with.

Owns that file: JPEG bytes by identifier, as uint8 tensors of a safetensors file. A bank carries it only where its
builder was told to: it shows patients' chests. Nothing is decoded here, and nothing is scored with it.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dicom_node.domain.errors import BankError
from dicom_node.score.bank_facts import NAME

FILE = "normals.safetensors"

_LARGEST = 1_000_000
_JPEG = b"\xff\xd8\xff"


def save_normals(pictures: Mapping[str, bytes]) -> bytes:
    """Return the file's content.

    Parameters
    ----------
    pictures
        JPEG by identifier of the image, as `bank.Bank.images` has it.
    """
    return save({name: np.frombuffer(pictures[name], dtype=np.uint8) for name in sorted(pictures)})


class NormalPictures:
    """Finds pictures in a folder of banks. Safe to share between threads.

    Parameters
    ----------
    banks
        The folder; need not exist.
    """

    def __init__(self, banks: Path) -> None:
        self._banks = banks
        self._known: dict[str, tuple[tuple[int, int], frozenset[str]]] = {}
        self._lock = threading.Lock()

    def among(self, bank: str, identifiers: Collection[str]) -> frozenset[str]:
        """Return of which normals a bank has pictures.

        Raises
        ------
        BankError
            If the file cannot be read.
        """
        place = self._place(bank)
        if not identifiers or place is None:
            return frozenset()
        return self._names(bank, place) & frozenset(identifiers)

    def picture(self, bank: str, identifier: str) -> bytes | None:
        """Return the JPEG of a normal; None where the bank has none. Raises as `among`."""
        place = self._place(bank)
        if place is None or identifier not in self._names(bank, place):
            return None
        try:
            with safe_open(place, framework="np") as file:
                content = file.get_tensor(identifier).astype(np.uint8).tobytes()
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            raise BankError(f"bank {bank}: {FILE} cannot be read") from error
        if len(content) > _LARGEST or not content.startswith(_JPEG):
            raise BankError(f"bank {bank}: {FILE} holds something that is no small JPEG")
        return bytes(content)

    def _place(self, bank: str) -> Path | None:
        if not NAME.match(bank):
            return None
        place = self._banks / bank / FILE
        return place if place.is_file() else None

    def _names(self, bank: str, place: Path) -> frozenset[str]:
        try:
            facts = place.stat()
            stamp = (facts.st_mtime_ns, facts.st_size)
            with self._lock:
                known = self._known.get(bank)
                if known is None or known[0] != stamp:
                    with safe_open(place, framework="np") as file:
                        known = (stamp, frozenset(file.keys()))
                    self._known[bank] = known
                return known[1]
        except (OSError, SafetensorError) as error:
            raise BankError(f"bank {bank}: {FILE} cannot be read") from error
