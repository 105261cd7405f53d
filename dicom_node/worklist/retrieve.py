"""Fetches a study, or a part of it, out of an archive, in whichever of three ways: the `Fetcher` of the domain.

First the archive is asked what it holds, so that what came can be compared with it, what is held here is not fetched
again, and reports, and what this node made itself, are left where they are. Where it does not say, the whole study is
asked for. Tells nothing of a patient.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dicom_node.domain.errors import DestinationAwayError, NotOfferedError
from dicom_node.domain.ids import check_uid
from dicom_node.domain.retrieval import Archive, Fetch, Fetched
from dicom_node.domain.types import Ingested
from dicom_node.worklist import messages_in, plan, query, query_web
from dicom_node.worklist.connect import Connect, Web, peer_of, where
from dicom_node.worklist.found import ImageFound, StudyFound
from dicom_node.worklist.intake import Intakes
from dicom_node.worklist.retrieve_get import get
from dicom_node.worklist.retrieve_move import await_arrival, move
from dicom_node.worklist.retrieve_wado import wado
from dicom_node.worklist.suboperations import Suboperations

log = logging.getLogger(__name__)

_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Retrieve:
    """Callable that fetches.

    Attributes
    ----------
    connect, web
        Reach a peer by DIMSE or on the web.
    intakes
        Where images go that come on an association, or in an answer, of this node's own.
    held
        Returns the SOP Instance UIDs of a study that are safe here.
    own
        Returns those that this node made itself.
    ae_title
        Where C-MOVE sends: the title of this node's SCP; "" where images cannot come that way.
    transfer_syntaxes
        In which images are taken.
    pause
        Waits for so many seconds.
    """

    connect: Connect
    web: Web
    intakes: Intakes
    transfer_syntaxes: Sequence[str]
    held: Callable[[str], frozenset[str]] = lambda _study: _NONE
    own: Callable[[str], frozenset[str]] = lambda _study: _NONE
    ae_title: str = ""
    pause: Callable[[float], object] = field(default=time.sleep)

    def __call__(self, archive: Archive, what: Fetch) -> Fetched:
        """Fetch; see `domain.retrieval.Fetcher`."""
        study = check_uid(what.study_instance_uid, "Study Instance UID")
        on_offer = self.images(archive, study)
        if on_offer is None:
            fetched = self._all(archive, what)
        else:
            images = plan.wanted(on_offer, what, self.own(study))
            fetched = self._missing(archive, what, on_offer, images)
        log.info(
            "images fetched",
            extra={
                "archive": archive.name,
                "study_instance_uid": study,
                "stored": fetched.stored,
                "failed": fetched.failed,
                "expected": fetched.expected,
                "reason": fetched.reason,
            },
        )
        return fetched

    def find(
        self, archive: Archive, keys: Mapping[str, str], most: int = query.MOST
    ) -> tuple[list[StudyFound], bool]:
        """Find studies in an archive; see `query.studies`."""
        if archive.how == "wado":
            return query_web.studies(self.web, archive, keys, most)
        return query.studies(self.connect, archive, keys, most)

    def images(self, archive: Archive, study_instance_uid: str) -> list[ImageFound] | None:
        """Return what an archive holds of a study, images and others; None where it cannot be asked.

        Raises
        ------
        DestinationAwayError, DestinationRefusedError
            As `query.studies`.
        """
        try:
            if archive.how == "wado":
                return query_web.images(self.web, archive, study_instance_uid)
            with self.connect(peer_of(archive), [query.find_context()], timeout=archive.timeout) as association:
                messages_in.install(association)
                return [
                    image
                    for series in query.find_series(archive, association, study_instance_uid)
                    for image in query.find_images(archive, association, study_instance_uid, series)
                ]
        except NotOfferedError:
            return None

    def count(self, archive: Archive, study_instance_uid: str) -> int | None:
        """Return how many images of a study an archive holds that would be fetched; None where it does not say.

        Raises
        ------
        DestinationAwayError, DestinationRefusedError
            As `query.studies`.
        """
        images = self.on_offer(archive, study_instance_uid)
        return None if images is None else len(images)

    def on_offer(self, archive: Archive, study_instance_uid: str) -> frozenset[str] | None:
        """Return the SOP Instance UIDs of the images of a study that would be fetched; as `count`."""
        images = self.images(archive, check_uid(study_instance_uid, "Study Instance UID"))
        if images is None:
            return None
        wanted = plan.wanted(images, Fetch(study_instance_uid), self.own(study_instance_uid))
        return frozenset(image.sop_instance_uid for image in wanted)

    def _missing(
        self, archive: Archive, what: Fetch, on_offer: Sequence[ImageFound], images: Sequence[ImageFound]
    ) -> Fetched:
        study = what.study_instance_uid
        if not images:
            others = f" (but {len(on_offer)} objects of other kinds, or made here)" if on_offer else ""
            return Fetched(0, 0, 0, f"{where(archive)} has no image of {study}{others}")
        uids = {image.sop_instance_uid for image in images}
        here = self.held(study)
        missing = [image for image in images if image.sop_instance_uid not in here]
        if not missing:
            return Fetched(len(uids), 0, len(uids))
        parts = plan.parts(on_offer, missing)
        taken, result = self._fetch(archive, study, parts, {image.sop_instance_uid for image in missing})
        ours = {one for one, became in taken.items() if became is Ingested.OWN}
        expected = uids - ours
        stored = expected & (here | (taken.keys() - ours) | self.held(study))
        failed = len(expected) - len(stored)
        return Fetched(len(stored), failed, len(expected), _reason(archive, failed, len(expected), result))

    def _all(self, archive: Archive, what: Fetch) -> Fetched:
        """Fetch from an archive that does not say what it holds."""
        study = what.study_instance_uid
        before = self.held(study)
        taken, result = self._fetch(archive, study, plan.unplanned(what), None)
        stored = {one for one, became in taken.items() if became is not Ingested.OWN} | (
            self.held(study) - before
        )
        if not stored and result is not None and result.failed == 0 and before:
            return Fetched(len(before), 0, None)
        failed = result.failed if result is not None else 0
        expected = len(stored) + failed or None
        return Fetched(len(stored), failed, expected, _reason(archive, failed, expected or 0, result))

    def _fetch(
        self, archive: Archive, study: str, parts: Sequence[plan.Part], missing: set[str] | None
    ) -> tuple[dict[str, Ingested], Suboperations | None]:
        if archive.how == "c-move":
            return self._move(archive, study, parts, missing)
        with self.intakes(archive, study) as intake:
            result: Suboperations | None = None
            try:
                if archive.how == "wado":
                    wado(
                        self.web, archive, [path for part in parts for path in plan.paths(study, part)], intake
                    )
                else:
                    identifiers = [plan.identifier(study, part) for part in parts]
                    result = get(self.connect, archive, identifiers, intake, self.transfer_syntaxes)
            except DestinationAwayError as error:
                intake.require_space()
                raise DestinationAwayError(
                    f"{error}; {len(intake.taken)} images were taken before that"
                ) from error
            if len(intake.taken) < len(missing or ()) or (result is not None and result.failed):
                intake.require_space()
            return dict(intake.taken), result

    def _move(
        self, archive: Archive, study: str, parts: Sequence[plan.Part], missing: set[str] | None
    ) -> tuple[dict[str, Ingested], Suboperations]:
        if not self.ae_title:
            raise NotOfferedError(
                f'{where(archive)} is set to how = "c-move", which brings images into the node itself; '
                'here "c-get" or "wado" is needed'
            )
        before = self.held(study)

        def arrived() -> int:
            now = self.held(study)
            return len(now & missing) if missing is not None else len(now - before)

        result = move(self.connect, archive, [plan.identifier(study, part) for part in parts], self.ae_title)
        sent = result.sent if missing is None else min(result.sent, len(missing))
        await_arrival(arrived, sent, archive.timeout, self.pause)
        return {}, result


def _reason(archive: Archive, failed: int, expected: int, result: Suboperations | None) -> str:
    if not failed:
        return ""
    said = f"; it answered 0x{result.status:04X}" if result is not None and result.status else ""
    claimed = ""
    if result is not None and result.sent and not result.failed:
        claimed = f"; it says that it sent {result.sent}"
        if archive.how == "c-move":
            claimed += ", so look whether it knows this node's AE title at the right host and port"
    return f"{where(archive)} did not bring {failed} of {expected} images{said}{claimed}"
