"""What can be told of banks without loading one: manifest, calibration, review, card, and whether each file is whole.

Reads the folder that `bank_store` and `training` write, and changes nothing. Imports neither torch nor faiss, so that a
process that only shows banks holds neither.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dicom_node.domain.errors import BankError

MANIFEST, CALIBRATION, ACTIVE = "manifest.json", "calibration.json", "active.json"
REVIEW, CARD = "review.csv", "MODEL_CARD.md"
NAME = re.compile(r"(?!\.)[A-Za-z0-9_.-]{1,64}\Z")
_LARGEST = 16 * 1024 * 1024
_LARGEST_CARD = 64 * 1024
_FLAGGED = 200
PERCENTS = (0.0, 1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 100.0)


@dataclass(frozen=True, slots=True)
class BankFacts:
    """One bank as its files tell of it.

    Attributes
    ----------
    manifest
        As JSON, its hash checked; empty where `fault` says why it cannot be read.
    percentiles
        (percent, calibration score) at `PERCENTS`: the smallest score that at least so many do not exceed.
    flagged
        (identifier, distance from the other normals) of those that a person should look at, the farthest first.
    card
        The model card as Markdown, "" where there is none.
    fault
        Why the bank would not load, "" where every file is what its hash says.
    """

    name: str
    manifest: dict[str, Any] = field(default_factory=dict)
    bank_hash: str = ""
    percentiles: tuple[tuple[float, float], ...] = ()
    flagged: tuple[tuple[str, float], ...] = ()
    card: str = ""
    fault: str = ""


class BankFolder:
    """The folder of banks, for looking. What was read once is not read again while its files stay the same.

    Parameters
    ----------
    root
        The folder; need not exist.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, tuple[tuple[Any, ...], BankFacts]] = {}
        self._lock = threading.Lock()

    def names(self) -> tuple[str, ...]:
        """Return the names of all banks, sorted, damaged ones included."""
        if not self._root.is_dir():
            return ()
        return tuple(
            sorted(p.name for p in self._root.iterdir() if NAME.match(p.name) and (p / MANIFEST).is_file())
        )

    def active(self) -> tuple[str, ...]:
        """Return the names of the active banks, in the order in which they are asked.

        Raises
        ------
        BankError
            If the record of them is damaged.
        """
        try:
            state = json.loads(_read(self._root / ACTIVE))
            return tuple(str(entry["name"]) for entry in state["active"])
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BankError(
                f"{ACTIVE} cannot be read: {error}; `dicom-node bank activate NAME` writes it anew"
            ) from error

    def bank(self, name: str) -> BankFacts:
        """Return the facts of one bank, a fault among them.

        Raises
        ------
        BankError
            If there is no such bank.
        """
        if name not in self.names():
            raise BankError(f"there is no bank {name[:80]!r}; there are: {', '.join(self.names()) or 'none'}")
        stamp = _stamp(self._root / name)
        with self._lock:
            known = self._known.get(name)
            if known is None or known[0] != stamp:
                known = (stamp, _facts(self._root / name))
                self._known[name] = known
        return known[1]


def _facts(folder: Path) -> BankFacts:
    try:
        manifest = json.loads(_read(folder / MANIFEST))
        stated = str(manifest.pop("bank_hash"))
        files = dict(manifest["files"])
        counts = (int(manifest["normal_images"]), int(manifest["calibration_images"]))
        float(manifest["threshold"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        return BankFacts(folder.name, fault=f"{MANIFEST} cannot be read: {error}")
    fault = (
        "" if manifest.get("name") == folder.name else f"the manifest is that of bank {manifest.get('name')}"
    )
    seen = hashlib.sha256(_canonical(manifest)).hexdigest()
    if seen != stated:
        fault = f"{MANIFEST} hashes to {seen}, it names {stated}; it was changed"
    fault = fault or next(filter(None, (_wrong(folder, name, files[name]) for name in sorted(files))), "")
    percentiles: tuple[tuple[float, float], ...] = ()
    try:
        scores = sorted(float(score) for score in json.loads(_read(folder / CALIBRATION))["scores"])
        percentiles = tuple((percent, _quantile(scores, percent)) for percent in PERCENTS)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        fault = fault or f"{CALIBRATION} cannot be read: {error}"
    else:
        if len(scores) != counts[1]:
            fault = fault or f"{CALIBRATION} has {len(scores)} scores; the manifest says {counts[1]}"
    return BankFacts(folder.name, manifest, stated, percentiles, _flagged(folder), _card(folder), fault)


def _wrong(folder: Path, name: str, expected: str) -> str:
    if "/" in name or name.startswith("."):
        return f"{name[:80]!r} is no file of a bank"
    try:
        with (folder / name).open("rb") as file:
            seen = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    return "" if seen == expected else f"{name} has SHA-256 {seen}; the manifest says {expected}"


def _quantile(scores: list[float], percent: float) -> float:
    needed = -(-len(scores) * percent // 100)
    return scores[max(int(needed) - 1, 0)]


def _flagged(folder: Path) -> tuple[tuple[str, float], ...]:
    """Return what the review flags; it is no part of the bank's word, so one that cannot be read is none."""
    try:
        rows = csv.DictReader(io.StringIO(_read(folder / REVIEW).decode()))
        found = [(str(row["image"]), float(row["distance"])) for row in rows if row.get("flagged") == "yes"]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return ()
    return tuple(found[:_FLAGGED])


def _card(folder: Path) -> str:
    try:
        return _read(folder / CARD)[:_LARGEST_CARD].decode("utf-8", "replace")
    except OSError:
        return ""


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"{path.name} has more than {_LARGEST} bytes")
    return content


def _stamp(folder: Path) -> tuple[Any, ...]:
    found = []
    for path in sorted(folder.iterdir()):
        facts = path.lstat()
        found.append((path.name, facts.st_ino, facts.st_mtime_ns, facts.st_size))
    return tuple(found)


def _canonical(values: dict[str, Any]) -> bytes:
    """Return what `score.manifest` hashes."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
