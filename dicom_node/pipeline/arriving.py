"""What a study that counts as complete says of itself: which entry of a worklist it answers, and how urgent it is.

Reads headers only where a rule or an entry asks for them. Owns the keyed hash that stands for an accession number.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom import Dataset
from sqlalchemy import Connection, Engine

from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import CannotUnderstandError
from dicom_node.domain.routing import Facts, Route, takes
from dicom_node.domain.types import Instance
from dicom_node.domain.urgency import LOW, ROUTINE
from dicom_node.pipeline.headers import read_header, text_of
from dicom_node.store import expected, instances, node_facts
from dicom_node.store.files import FileStore

_LOOKED_AT = 20
"""Images of a study whose headers are read."""

Rules = Sequence[tuple[Route, int]]


@dataclass(frozen=True, slots=True)
class Seen:
    """Of one study: hashes of its accession numbers, and the priority that a rule gives it (None where none does)."""

    accession_hashes: frozenset[str] = frozenset()
    priority: int | None = None


NOTHING = Seen()


class Arrivals:
    """Looks at studies.

    Parameters
    ----------
    rules
        Conditions and priorities; the first that is met counts.
    key
        Of the hashes.
    worklists
        Whether there are any whose entries are to be found by accession number.
    """

    def __init__(
        self, engine: Engine, files: FileStore, rules: Rules, key: str, *, worklists: bool = False
    ) -> None:
        self._engine = engine
        self._files = files
        self._rules = tuple(rules)
        self._key = key
        self._worklists = worklists

    def look(self, study_instance_uid: str, revision: int) -> Seen:
        """Return what the images of a revision say."""
        if not (self._rules or self._worklists):
            return NOTHING
        with reading(self._engine) as conn:
            held = instances.of_revision(conn, self._files, study_instance_uid, revision)[:_LOOKED_AT]
        headers = [_header(instance) for instance in held]
        hashes = frozenset(accession_hash(self._key, text_of(header, "AccessionNumber")) for header in headers)
        facts = Facts(
            frozenset(text_of(header, "Modality") for header in headers),
            frozenset(instance.calling_ae_title for instance in held),
            frozenset(text_of(header, "BodyPartExamined") for header in headers),
            "",
            None,
        )
        given = next((priority for route, priority in self._rules if takes(route, facts)), None)
        return Seen(hashes - {""}, given)


def priority(conn: Connection, study_instance_uid: str, seen: Seen) -> int:
    """Return how urgent a study is: as worklists and rules say, the more urgent of both.

    What is LOW, such as a study that is fetched for an archive's sake, stays so whatever a rule says.
    """
    asked = expected.priority(conn, study_instance_uid)
    if seen.priority is None or asked == LOW:
        return asked
    return seen.priority if asked == ROUTINE else min(asked, seen.priority)


def accession_hash(key: str, number: str) -> str:
    """Return what stands for an accession number; "" for none."""
    text = number.strip()
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest() if text else ""


def secret(engine: Engine) -> str:
    """Return the key of the hashes: this node's own, made once."""
    with writing(engine) as conn:
        return node_facts.node_value(conn, "accession_key", secrets.token_hex(32))


def _header(instance: Instance) -> Dataset:
    try:
        return read_header(instance.path)
    except (CannotUnderstandError, OSError):
        return Dataset()
