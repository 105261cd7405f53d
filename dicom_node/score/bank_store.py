"""The folder of banks, and which of them are in use; activation is one atomic rename and is remembered.

Owns ``active.json``. Knows nothing of what is in a bank beyond its name and hash.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from dicom_node.domain.errors import BankError
from dicom_node.score.bank import MANIFEST, NAME, check_name, read_manifest, to_json
from dicom_node.score.durable import sync_folder, write_synced
from dicom_node.score.manifest import Manifest

ACTIVE = "active.json"

_REMEDY = "`dicom-node bank activate NAME` writes it anew, `dicom-node bank list` names the banks"


class BankStore:
    """The folder of banks and which of them are active.

    Parameters
    ----------
    root
        The folder; need not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> tuple[str, ...]:
        """Return the names of all banks, sorted, damaged ones included."""
        if not self.root.is_dir():
            return ()
        return tuple(
            sorted(p.name for p in self.root.iterdir() if NAME.match(p.name) and (p / MANIFEST).is_file())
        )

    def path(self, name: str) -> Path:
        """Return the folder of a bank, whether it exists or not.

        Raises
        ------
        BankError
            If the name is unfit, e.g. holds a path.
        """
        return self.root / check_name(name)

    def manifest(self, name: str) -> Manifest:
        """Return the manifest of a bank; see `read_manifest`."""
        return read_manifest(self.path(name))

    def verify(self, name: str) -> str:
        """Check every file of a bank and return its hash; raises BankError as `load_bank` does."""
        # Slow to import, and nobody who only asks which banks there are has need of it.
        from dicom_node.score.aligned_bank import load_aligned_bank
        from dicom_node.score.bank import load_bank
        from dicom_node.score.salad_bank import load_salad_bank

        folder = self.path(name)
        kind = read_manifest(folder).kind
        if kind == "salad":
            return load_salad_bank(folder).bank_hash
        return (load_aligned_bank(folder) if kind == "aligned-knn" else load_bank(folder)).bank_hash

    def active(self) -> tuple[str, ...]:
        """Return the names of the active banks, in the order in which they are asked."""
        return tuple(entry["name"] for entry in self._state()["active"])

    def active_hashes(self) -> dict[str, str]:
        """Return the hash that each active bank had when it was activated, by name, in order."""
        return {entry["name"]: entry["bank_hash"] for entry in self._state()["active"]}

    def history(self) -> tuple[tuple[str, ...], ...]:
        """Return the sets of names that were active before, latest last."""
        return tuple(tuple(entry["name"] for entry in past["active"]) for past in self._state()["history"])

    def activate(self, *names: str, at: datetime | None = None) -> tuple[str, ...]:
        """Make these banks the active ones, in this order; what was active before is remembered, and returned.

        A damaged ``active.json`` is written anew; what it said is lost.

        Parameters
        ----------
        names
            An image is scored by the first bank whose population admits it.
        at
            The moment, for the record; must be timezone-aware.

        Raises
        ------
        BankError
            If one is missing or damaged; nothing changes then.
        """
        if not names or len(set(names)) != len(names):
            raise BankError(f"banks to activate are {list(names)}; name at least one, each once")
        entries = [{"name": name, "bank_hash": self.verify(name)} for name in names]
        with self._locked():
            try:
                state = self._state()
            except BankError:
                state = {"active": [], "history": []}
            self._enter(state, entries, at)
        return tuple(entry["name"] for entry in state["active"])

    def replace(self, old: str, old_hash: str, new: str, at: datetime | None = None) -> None:
        """Put a bank into the place of an active one; the others stay, in their order.

        Raises
        ------
        BankError
            If the old one is not active any more with that hash, or the new one is active already, missing or
            damaged; nothing changes then.
        """
        entry = {"name": new, "bank_hash": self.verify(new)}
        with self._locked():
            state = self._state()
            if {"name": old, "bank_hash": old_hash} not in state["active"]:
                raise BankError(
                    f"bank {old} of hash {old_hash} is not active any more; {new} was not activated"
                )
            entries = [entry if one["name"] == old else one for one in state["active"]]
            if len({one["name"] for one in entries}) != len(entries):
                raise BankError(f"bank {new} is active already beside {old}")
            self._enter(state, entries, at)

    def rollback(self) -> tuple[str, ...]:
        """Make active again what was active before the last activation, and return its names.

        Raises
        ------
        BankError
            If nothing was active before, or one of those banks is missing or damaged.
        """
        with self._locked():
            state = self._state()
            if not state["history"]:
                raise BankError("no bank was active before; there is nothing to go back to")
            entries = state["history"][-1]["active"]
            for entry in entries:
                if self.verify(entry["name"]) != entry["bank_hash"]:
                    raise BankError(f"bank {entry['name']} is not the one that was active before")
            self._write({"active": entries, "history": state["history"][:-1]})
        return tuple(entry["name"] for entry in entries)

    def remove(self, name: str) -> None:
        """Delete a bank that is not active: it is gone from the list at once, and from the disk soon after.

        Raises
        ------
        BankError
            If it is active or cannot be removed.
        """
        folder = self.path(name)
        gone = self.root / f".{name}.removed-{os.getpid()}"
        with self._locked():
            if name in self.active():
                raise BankError(f"bank {name} is active; activate another one first")
            try:
                folder.rename(gone)
            except OSError as error:
                raise BankError(f"bank {name} cannot be removed: {error.strerror}") from error
            sync_folder(self.root)
        shutil.rmtree(gone, ignore_errors=True)

    def _enter(self, state: dict[str, Any], entries: list[dict[str, str]], at: datetime | None) -> None:
        if entries == state["active"]:
            return
        for entry in entries:  # verified before the lock was held: it may have been removed since
            if entry not in state["active"] and self.manifest(entry["name"]).bank_hash != entry["bank_hash"]:
                raise BankError(f"bank {entry['name']} changed while it was being activated")
        past = [*state["history"], {"active": state["active"], "until": None if at is None else at.isoformat()}]
        self._write({"active": entries, "history": past if state["active"] else state["history"]})

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time read and write ``active.json``; those who only read need no lock."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f".{ACTIVE}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _state(self) -> dict[str, Any]:
        try:
            state = json.loads((self.root / ACTIVE).read_bytes())
            if all(check_name(e["name"]) and e["bank_hash"] for e in state["active"]) and "history" in state:
                return dict(state)
        except FileNotFoundError:
            return {"active": [], "history": []}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BankError(f"{ACTIVE} cannot be read: {error}; {_REMEDY}") from error
        raise BankError(f"{ACTIVE} does not say which banks are active; {_REMEDY}")

    def _write(self, state: dict[str, Any]) -> None:
        staging = self.root / f".{ACTIVE}.writing-{os.getpid()}"
        write_synced(staging, to_json(state))
        staging.replace(self.root / ACTIVE)
        sync_folder(self.root)
