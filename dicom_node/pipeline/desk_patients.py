"""Whose image is whose, from the headers of the images, in memory only: shown beside a study, and searched.

Owns two bounded memories: what headers say, by the image's digest, and what a search looks at, by study. Nothing of
them is ever written. A search forgets a study when its images go.
"""

from __future__ import annotations

import logging
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pydicom import Dataset
from sqlalchemy import Engine

from dicom_node.db import events
from dicom_node.db.engine import reading
from dicom_node.domain.errors import DatabaseError, NodeError
from dicom_node.domain.reading import Patient
from dicom_node.pipeline.headers import READ_ERRORS, read_header
from dicom_node.report import for_people
from dicom_node.store import reading_rows
from dicom_node.store.files import FileStore

log = logging.getLogger(__name__)

SHOWN = 4_000
"""Headers that are remembered for showing."""
SEARCHED = 100_000
"""Studies that a search looks at, the newest; about 40 MB."""
FOUND = 1_000
"""Studies that a search finds at most."""
_LATE = 1_000
"""So many events are looked at again: PostgreSQL numbers one when it is written, and shows it when it is committed."""
_AT_ONCE = 50
"""So many new studies are read while a person waits; more are read in the background."""

NOBODY = Patient()


@dataclass(frozen=True, slots=True)
class Search:
    """The studies found; `complete` says whether all were looked at, `cut` that there were more than are given."""

    studies: tuple[str, ...]
    looked_at: int
    of: int
    cut: bool = False

    @property
    def complete(self) -> bool:
        """Whether every study was looked at."""
        return self.looked_at >= self.of


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str = field(repr=False)
    starts: tuple[str, ...] = field(repr=False)


class Patients:
    """Reads headers when they are asked for, and remembers some. Safe to share between threads.

    Parameters
    ----------
    read
        Returns the header of a file; may raise what `read_header` raises.
    """

    def __init__(self, engine: Engine, files: FileStore, read: Callable[..., Dataset] = read_header) -> None:
        self._engine = engine
        self._files = files
        self._read = read
        self._shown: OrderedDict[str, Patient] = OrderedDict()
        self._searched: OrderedDict[str, _Entry] = OrderedDict()
        self._waiting: dict[str, tuple[str, bool]] = {}
        self._event = -1
        self._lock = threading.Lock()
        self._catching_up = threading.Lock()
        self._filling: threading.Thread | None = None
        self._stop = threading.Event()

    def of(self, digest: str) -> Patient:
        """Return what the header of a held image says; nothing where it cannot be read."""
        with self._lock:
            if (known := self._shown.get(digest)) is not None:
                self._shown.move_to_end(digest)
                return known
        try:
            found = self._look(digest)
        except OSError:
            return NOBODY
        with self._lock:
            self._shown[digest] = found
            while len(self._shown) > SHOWN:
                self._shown.popitem(last=False)
        return found

    def search(self, term: str) -> Search:
        """Return the studies whose patient's name has the term in it, or whose ID, accession or UID begins with it.

        Case, accents and width do not matter; the words of a name may stand in any order. The first search reads
        the headers of all studies, in the background: until that is done, it finds what was read so far.
        """
        self.catch_up()
        words = folded(term).split()
        with self._lock:
            found = [study for study, entry in reversed(self._searched.items()) if _meets(entry, words)]
            looked_at, of = len(self._searched), len(self._searched) + len(self._waiting)
        return Search(tuple(found[:FOUND]), looked_at, of, len(found) > FOUND)

    def catch_up(self) -> None:
        """Take note of the studies that came, changed or went since the last time."""
        with self._catching_up:
            if self._event < 0:
                with reading(self._engine) as conn:
                    self._event = events.last(conn)
                    pairs = reading_rows.first_images(conn)[:SEARCHED]
                self._expect(reversed(pairs), old=True)
            else:
                self._follow()
            with self._lock:
                few = len(self._waiting) <= _AT_ONCE
            if few:
                self._fill()
            elif self._filling is None or not self._filling.is_alive():
                self._filling = threading.Thread(target=self._fill_quietly, name="desk-search", daemon=True)
                self._filling.start()

    def filled(self, timeout: float) -> bool:
        """Wait until every study is looked at; False if that takes longer, in seconds."""
        if self._filling is not None:
            self._filling.join(timeout)
        with self._lock:
            return not self._waiting

    def close(self) -> None:
        """End what goes on in the background, and forget everything."""
        self._stop.set()
        if self._filling is not None:
            self._filling.join()
        with self._lock:
            self._shown.clear()
            self._searched.clear()
            self._waiting.clear()

    def _follow(self) -> None:
        after = max(self._event - _LATE, 0)
        while True:
            with reading(self._engine) as conn:
                last, studies = events.since(conn, after, events.OF_IMAGES)
                held = dict(reading_rows.first_images(conn, studies)) if studies else {}
            with self._lock:
                for study in studies:
                    if study not in held:
                        self._searched.pop(study, None)
                        self._waiting.pop(study, None)
            new = [(study, digest) for study, digest in held.items() if study not in self._searched]
            self._expect(new, old=False)
            if last <= self._event:
                return
            self._event = after = last

    def _expect(self, pairs: Iterable[tuple[str, str]], *, old: bool) -> None:
        with self._lock:
            self._waiting.update((study, (digest, old)) for study, digest in pairs)

    def _fill_quietly(self) -> None:
        try:
            self._fill()
        except DatabaseError as error:
            log.warning("the search index is not complete yet", extra={"reason": str(error)})

    def _fill(self) -> None:
        """Look at the studies that wait, the newest first. Those that cannot be read now wait for the next time."""
        again: dict[str, tuple[str, bool]] = {}
        while not self._stop.is_set():
            with self._lock:
                if not self._waiting:
                    self._waiting.update(reversed(again.items()))
                    return
                study, (digest, old) = next(reversed(self._waiting.items()))
            try:
                entry = _entry(study, self._look(digest))
            except OSError:
                with self._lock:
                    if self._waiting.pop(study, None) is not None:
                        again[study] = (digest, old)
                continue
            with self._lock:
                if self._waiting.pop(study, None) is None:
                    continue  # it went meanwhile
                self._searched[study] = entry
                self._searched.move_to_end(study, last=not old)  # the oldest stands first
                while len(self._searched) > SEARCHED:
                    self._searched.popitem(last=False)

    def _look(self, digest: str) -> Patient:
        """Return what a header says, nothing where it can never be read. Raises OSError where it cannot be now."""
        try:
            return for_people.patient(self._read(self._files.instance_path(digest)))
        except FileNotFoundError:
            return NOBODY
        except OSError:
            raise
        except (NodeError, *READ_ERRORS):
            return NOBODY


def folded(text: str) -> str:
    """Return a text such that spellings of one name are the same: no case, accents, width or punctuation."""
    apart = unicodedata.normalize("NFKD", text).casefold()
    kept = (" " if c in ",^=()" else c for c in apart if not unicodedata.combining(c))
    return " ".join("".join(kept).split())


def _entry(study: str, patient: Patient) -> _Entry:
    starts = tuple(folded(one) for one in (patient.patient_id, patient.accession_number, study) if one)
    return _Entry(folded(patient.name), starts)


def _meets(entry: _Entry, words: list[str]) -> bool:
    if not words:
        return True
    if all(word in entry.name for word in words):
        return True
    whole = " ".join(words)
    return any(start.startswith(whole) for start in entry.starts)
