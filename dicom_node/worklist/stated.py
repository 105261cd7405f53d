"""What the Conformance Statement tells of retrieval and worklists as a user, made from what this room goes by. Pure."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_node.domain.errors import DestinationAwayError, NodeError
from dicom_node.domain.retrieval import Archive
from dicom_node.domain.statement import Table
from dicom_node.worklist.mwl import MODALITY_WORKLIST
from dicom_node.worklist.query import STUDY_ROOT_FIND
from dicom_node.worklist.retrieve_get import STUDY_ROOT_GET
from dicom_node.worklist.retrieve_move import STUDY_ROOT_MOVE
from dicom_node.worklist.suboperations import Suboperations, judge
from dicom_node.worklist.ups import PULL, WATCH

_SYNTAXES = "Explicit VR Little Endian, Implicit VR Little Endian"
_FINAL = {
    "0x0000": "sub-operations complete",
    "0xB000": "sub-operations complete, one or more failures or warnings",
    "0xFE00": "canceled",
    "0xA701": "out of resources, number of matches",
    "0xA702": "out of resources, sub-operations",
    "0xA801": "move destination unknown",
    "0xA900": "identifier does not match SOP class",
    "0xC000": "unable to process (0xCxxx)",
    "0x0122": "SOP class not supported",
    "0x0124": "not authorised",
}


def retrieval_classes() -> Table:
    """Return the SOP classes of query and retrieval that are proposed to archives."""
    uids = (STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET)
    return Table(("SOP class", "UID", "transfer syntaxes"), tuple((UID(u).name, u, _SYNTAXES) for u in uids))


def worklist_classes() -> Table:
    """Return the SOP classes of worklists that are proposed to their providers."""
    uids = (MODALITY_WORKLIST, PULL, WATCH)
    return Table(("SOP class", "UID", "transfer syntaxes"), tuple((UID(u).name, u, _SYNTAXES) for u in uids))


def retrieval_statuses() -> Table:
    """Return how the final status of a C-GET or C-MOVE is taken where no image was stored."""
    rows = tuple((status, meaning, taken_as(int(status, 16))) for status, meaning in _FINAL.items())
    return Table(("status", "meaning", "taken as"), rows)


def taken_as(status: int) -> str:
    """Return how a final status is taken where no image was stored."""
    answer = Dataset()
    answer.Status = status
    try:
        judge(Archive("archive", "ARCHIVE", "localhost", 104), "C-GET", Suboperations(), answer, None)
    except DestinationAwayError:
        return "tried again later"
    except NodeError:
        return "refused"
    return "done; what came is compared with what was found"
