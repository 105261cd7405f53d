"""Takes note of what modalities and archives tell of studies: each message in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine

from dicom_node.db.engine import writing
from dicom_node.domain.expectation import Source, State
from dicom_node.domain.notices import Available, Noted, Performed
from dicom_node.store import expected, notices


class Notices:
    """Keeps the ledger; `domain.notices.Ledger`.

    Parameters
    ----------
    hold_seconds
        How long what was told last holds a study open.
    """

    def __init__(self, engine: Engine, clock: Callable[[], datetime], hold_seconds: float) -> None:
        self._engine = engine
        self._clock = clock
        self._held = timedelta(seconds=hold_seconds)

    def available(self, notice: Available) -> Noted:
        """Note which images of a study there are."""
        uid, study = notice.sop_instance_uid, notice.study_instance_uid
        with writing(self._engine) as conn:
            if notices.of_instance(conn, "ian", uid):
                return Noted.KNOWN_ALREADY
            self._put(conn, "ian", uid, study, "complete", notice.images)
        return Noted.DONE

    def begun(self, step: Performed) -> Noted:
        """Note that images of studies are being made: they are held open."""
        uid = step.sop_instance_uid
        with writing(self._engine) as conn:
            if notices.of_instance(conn, "mpps", uid):
                return Noted.KNOWN_ALREADY
            for study in step.studies:
                self._put(conn, "mpps", uid, study, "open", step.images or frozenset())
        return Noted.DONE

    def went_on(self, step: Performed) -> Noted:
        """Note how the step went on, or that it ended, completed or not: no more images come of it.

        Which images are of which study is not said in it: of a step for several, nothing follows at its end.
        """
        uid = step.sop_instance_uid
        with writing(self._engine) as conn:
            known = notices.of_instance(conn, "mpps", uid)
            if not known:
                return Noted.NEVER_HEARD_OF
            if any(one.state != "open" for one in known.values()):
                return Noted.OVER
            for study, before in known.items():
                images = before.refs if step.images is None else step.images
                state: State = "open"
                if step.state in ("COMPLETED", "DISCONTINUED"):
                    state = "complete" if images and len(known) == 1 else "withdrawn"
                self._put(conn, "mpps", uid, study, state, images)
        return Noted.DONE

    def _put(
        self, conn: Connection, source: Source, uid: str, study: str, state: State, images: frozenset[str]
    ) -> None:
        now = self._clock()
        expected.put(
            conn,
            source=source,
            key=notices.key_of(uid, study),
            study_instance_uid=study,
            at=now,
            state=state,
            refs=images,
            until=now + self._held,
        )
