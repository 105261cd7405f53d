"""A small storage SCP that stands in for a PACS where none is installed: it takes everything and keeps files.

For the demo and for tests. It keeps no index and syncs nothing: nobody's archive.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import build_context
from pynetdicom.transport import ThreadedAssociationServer

from dicom_node.deliver.answers import Meaning, judge_status
from dicom_node.domain.errors import InvalidIdentifierError, OutOfResourcesError
from dicom_node.domain.ids import check_uid

log = logging.getLogger(__name__)

_VERIFICATION = "1.2.840.10008.1.1"


class StorageSink:
    """Storage SCP for every storage SOP class and transfer syntax.

    Parameters
    ----------
    folder
        Files are written here, named ``<SOP Instance UID>.dcm``; made if absent.
    respond
        Returns the status for a SOP Instance UID; without it everything is stored. What is answered with a
        failure is not kept.
    """

    def __init__(
        self,
        folder: Path,
        ae_title: str = "SINK",
        host: str = "127.0.0.1",
        port: int = 0,
        respond: Callable[[str], int] | None = None,
    ) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self._address = (host, port)
        self._respond = respond
        self._server: ThreadedAssociationServer | None = None

    def start(self) -> tuple[str, int]:
        """Listen, and return the address bound.

        Raises
        ------
        OutOfResourcesError
            If the address cannot be bound.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        entity = ApplicationEntity(self.ae_title)
        entity.maximum_pdu_size = 131_072
        entity.maximum_associations = 64
        contexts = [
            build_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
            for context in AllStoragePresentationContexts
        ]
        contexts.append(build_context(_VERIFICATION))
        try:
            self._server = entity.start_server(
                self._address,
                block=False,
                contexts=contexts,
                evt_handlers=[(evt.EVT_C_STORE, self._on_store)],
            )
        except OSError as error:
            raise OutOfResourcesError(
                f"cannot listen on {self._address[0]}:{self._address[1]}: {error.strerror or error}"
            ) from error
        if self._server is None:
            raise OutOfResourcesError("the storage SCP did not start")
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def stop(self) -> None:
        """Abort every association and free the port."""
        if self._server is not None:
            self._server.ae.shutdown()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on now."""
        if self._server is None:
            raise OutOfResourcesError("the storage SCP is not listening; start it first")
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    @property
    def files(self) -> list[Path]:
        """Files kept so far, by name."""
        return sorted(self.folder.glob("*.dcm"))

    def _on_store(self, event: evt.Event) -> int | Dataset:
        try:
            uid = check_uid(str(getattr(event.request, "AffectedSOPInstanceUID", "")), "SOP Instance UID")
        except InvalidIdentifierError as error:
            return error.dimse_status
        status = self._respond(uid) if self._respond else 0x0000
        if judge_status(status)[0] is Meaning.STORED:
            partial = self.folder / f"{uid}.part-{event.assoc.ident}"
            try:
                partial.write_bytes(event.encoded_dataset())
                partial.replace(self.folder / f"{uid}.dcm")
            except OSError as error:
                log.warning("object not kept", extra={"sop_instance_uid": uid, "reason": error.strerror})
                partial.unlink(missing_ok=True)
                return 0xA700
        return status
