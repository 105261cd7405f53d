"""The one error tree. Each class says whether trying again can help, and which DIMSE status answers it.

Messages say what was seen, in which UID, and what would be right; never a patient attribute.
"""

from __future__ import annotations

from typing import ClassVar


class NodeError(Exception):
    """Base of every error this program raises on purpose.

    Attributes
    ----------
    retryable
        Whether the same attempt may succeed later without anyone changing anything.
    dimse_status
        Status that answers a C-STORE which failed for this reason (PS3.4 section B.2.3).
    """

    retryable: ClassVar[bool] = False
    dimse_status: ClassVar[int] = 0x0110


class InvalidIdentifierError(NodeError):
    """A UID or AE title that breaks the standard's syntax."""

    dimse_status = 0xA900


class ConfigError(NodeError):
    """The configuration cannot be used. `faults` lists every fault with its key."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("the configuration has faults:\n" + "\n".join(f"  - {fault}" for fault in faults))
        self.faults = faults


class DatabaseError(NodeError):
    """The database is away or not at the schema this version needs."""

    retryable = True
    dimse_status = 0xA700


class OutOfResourcesError(NodeError):
    """The disk is below its reserve, or another resource is used up for now."""

    retryable = True
    dimse_status = 0xA700


class DataSetMismatchError(NodeError):
    """The data set is not the SOP class or instance that the command named."""

    dimse_status = 0xA900


class CannotUnderstandError(NodeError):
    """The bytes cannot be read as a DICOM data set."""

    dimse_status = 0xC000


class StoreError(NodeError):
    """A stored file is missing or is not what its digest says."""


class CertificateError(NodeError):
    """A certificate, a private key or the file of a secret cannot be used. The message never quotes a secret."""


class LeaseLostError(NodeError):
    """The lease on a work item has expired or belongs to someone else; the acknowledgement changed nothing."""


class IllegalTransitionError(NodeError):
    """A work item was asked to do what its state does not allow."""


class NotFoundError(NodeError):
    """Nothing of that name is held here."""


class CannotDecodeError(NodeError):
    """The pixel data of an image cannot be decoded or have no usable content."""


class PoisonError(NodeError):
    """An image ended, starved or held up the process that decoded and scored it."""


class ScorerAwayError(NodeError):
    """The process that decodes and scores images cannot be started."""

    retryable = True


class BankError(NodeError):
    """A bank is missing, damaged, or does not fit what is asked of it."""


class ReportError(NodeError):
    """A report could not be built from a result."""


class DestinationAwayError(NodeError):
    """The destination did not answer or said it is out of resources; trying again may help."""

    retryable = True


class DestinationRefusedError(NodeError):
    """The destination understood and refused; trying the same again will not help."""


class NotOfferedError(DestinationRefusedError):
    """The destination speaks DICOM but offers none of what was proposed to it."""


class StepRefusedError(NodeError):
    """A request about a procedure step is refused; `status` answers it (PS3.4 annex CC)."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class AccessError(NodeError):
    """Somebody is not let in, or may not do this. The message never says which part of a secret was wrong."""


class SelftestError(NodeError):
    """The node did not do for a phantom what it should do for a patient."""
