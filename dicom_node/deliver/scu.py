"""The C-STORE and C-ECHO SCU. Owns what is proposed and how an answer is told; keeps no state.

A status that means *stored* becomes a Delivery; everything else is an error that says whether trying again
can help.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import _config
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.deliver.answers import Meaning, judge_status
from dicom_node.deliver.association import associated, where
from dicom_node.deliver.beside import with_objects
from dicom_node.domain.errors import (
    CannotUnderstandError,
    DestinationAwayError,
    DestinationRefusedError,
    NotOfferedError,
)
from dicom_node.domain.types import Delivery, Destination

# Concerns sending by path only: bytes go out as they are on the disk, not decoded and encoded again.
_config.STORE_SEND_CHUNKED_DATASET = True

_VERIFICATION = "1.2.840.10008.1.1"
_SOP_CLASS_NOT_SUPPORTED = 0x0122
_CONTEXTS = 128


def send(
    destination: Destination,
    content: bytes,
    *,
    calling_ae_title: str,
    timeout: float = 30.0,
    maximum_pdu_size: int = 131_072,
) -> Delivery:
    """Store one object at a destination.

    Its SOP class is proposed in its own transfer syntax and, where the object is not compressed, in Explicit
    and Implicit VR Little Endian; it is encoded again only if its own syntax was not accepted.

    Parameters
    ----------
    content
        A Part 10 file.
    timeout
        Longest wait, in seconds, for the connection and for each answer.

    Returns
    -------
    Delivery
        With status 0x0000, 0x0111, 0xB000, 0xB006 or 0xB007: the destination holds the object.

    Raises
    ------
    DestinationAwayError
        If it cannot be reached, rejects or aborts the association, does not answer in time, or answers 0xA7xx
        or 0x0110. It may nevertheless hold the object; sending the same object again does no harm.
    DestinationRefusedError
        If it does not accept the SOP class or answers any other failure.
    CannotUnderstandError
        If `content` is no Part 10 file.
    """
    data_set = _read(content)
    syntax = data_set.file_meta.TransferSyntaxUID
    syntaxes = [str(syntax)]
    if not syntax.is_compressed and syntax.is_little_endian:
        syntaxes += [str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)]
    contexts = [build_context(str(data_set.SOPClassUID), one) for one in dict.fromkeys(syntaxes)]
    with associated(
        destination,
        contexts,
        calling_ae_title=calling_ae_title,
        timeout=timeout,
        maximum_pdu_size=maximum_pdu_size,
    ) as association:
        answer = _store(destination, association, data_set, timeout)
    return _delivery(destination, str(data_set.SOPInstanceUID), answer)


def send_first(
    destination: Destination,
    alternatives: Mapping[str, Callable[[], bytes]],
    *,
    also: Sequence[bytes] = (),
    calling_ae_title: str,
    timeout: float = 30.0,
    maximum_pdu_size: int = 131_072,
) -> Delivery:
    """Store the first of several forms of one object that a destination takes, and with it what accompanies it.

    All SOP classes are proposed; of those accepted the first is sent, and the next one where the destination answers
    that it does not store the class after all (0x0122, 0xA9xx).

    Parameters
    ----------
    alternatives
        By SOP Class UID, what makes the Part 10 file in Explicit VR Little Endian; the preferred one first.
    also
        Part 10 files that are sent after it on the same association; those that are declined change nothing for it.

    Returns
    -------
    Delivery
        Of the form that was stored; its `sent_as` is that form's class.

    Raises
    ------
    DestinationAwayError, DestinationRefusedError, CannotUnderstandError
        As `send`; refused also where none of the classes is accepted.
    """
    syntaxes = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
    extras = [_read(content) for content in also]
    classes = dict.fromkeys([*alternatives, *(str(one.SOPClassUID) for one in extras)])
    contexts = [build_context(sop_class, syntax) for sop_class in classes for syntax in syntaxes]
    with associated(
        destination,
        contexts,
        calling_ae_title=calling_ae_title,
        timeout=timeout,
        maximum_pdu_size=maximum_pdu_size,
    ) as association:
        accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
        left = [sop_class for sop_class in alternatives if sop_class in accepted]
        for sop_class in left:
            data_set = _read(alternatives[sop_class]())
            answer = _store(destination, association, data_set, timeout)
            if sop_class != left[-1] and _takes_no_such(int(answer.Status)):
                continue
            stored = replace(_delivery(destination, str(data_set.SOPInstanceUID), answer), sent_as=sop_class)
            answers = ((one, _status(destination, association, one, timeout)) for one in extras)
            return with_objects(destination, stored, answers)
    raise NotOfferedError(
        f"{where(destination)} accepted no SOP class of a report; it must accept one of {', '.join(alternatives)}"
    )


def _status(destination: Destination, association: Association, one: Dataset, timeout: float) -> int | None:
    """Return the answer to an object; None where its class was not accepted."""
    if one.SOPClassUID not in {context.abstract_syntax for context in association.accepted_contexts}:
        return None
    return int(_store(destination, association, one, timeout).Status)


def _takes_no_such(status: int) -> bool:
    return status == _SOP_CLASS_NOT_SUPPORTED or status & 0xFF00 == 0xA900


def echo(
    destination: Destination,
    *,
    calling_ae_title: str,
    timeout: float = 30.0,
    maximum_pdu_size: int = 131_072,
) -> None:
    """Verify that a destination answers (C-ECHO, PS3.4 annex A).

    Raises
    ------
    DestinationAwayError, DestinationRefusedError
        As `send`.
    """
    with associated(
        destination,
        [build_context(_VERIFICATION, [str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)])],
        calling_ae_title=calling_ae_title,
        timeout=timeout,
        maximum_pdu_size=maximum_pdu_size,
    ) as association:
        try:
            answer = association.send_c_echo()
        except RuntimeError as error:
            raise _lost(destination, timeout) from error
    if "Status" not in answer:
        raise _lost(destination, timeout)
    if answer.Status != 0:
        raise DestinationRefusedError(
            f"{where(destination)} answered 0x{answer.Status:04X} to C-ECHO; 0x0000 would be right"
        )


def send_files(
    destination: Destination,
    paths: Sequence[Path],
    *,
    calling_ae_title: str,
    timeout: float = 30.0,
    maximum_pdu_size: int = 131_072,
) -> list[int]:
    """Send files as a modality would: one association, each data set byte for byte in its own transfer syntax.

    Returns
    -------
    list of int
        DIMSE status of each file, in order; 0x0122 for one whose SOP class or syntax was not accepted.

    Raises
    ------
    DestinationAwayError, DestinationRefusedError
        If there is no association, or it is lost on the way.
    CannotUnderstandError
        If a file is no Part 10 file, or they need more than 128 presentation contexts.
    """
    kinds = [_kind(path) for path in paths]
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in dict.fromkeys(kinds)]
    if len(contexts) > _CONTEXTS:
        raise CannotUnderstandError(
            f"the files are of {len(contexts)} kinds (SOP class and transfer syntax); one association has room "
            f"for {_CONTEXTS}, send fewer at a time"
        )
    if not contexts:
        return []
    statuses: list[int] = []
    with associated(
        destination,
        contexts,
        calling_ae_title=calling_ae_title,
        timeout=timeout,
        maximum_pdu_size=maximum_pdu_size,
    ) as association:
        accepted = {_names(context) for context in association.accepted_contexts}
        for path, kind in zip(paths, kinds, strict=True):
            if kind in accepted:
                statuses.append(int(_store(destination, association, path, timeout).Status))
            else:
                statuses.append(_SOP_CLASS_NOT_SUPPORTED)
    return statuses


def _store(destination: Destination, association: Association, what: Dataset | Path, timeout: float) -> Dataset:
    try:
        answer = association.send_c_store(what)
    except RuntimeError as error:  # the association ended before it could be used
        raise _lost(destination, timeout) from error
    except ValueError as error:  # its own syntax was not accepted, and it cannot be encoded in another
        raise CannotUnderstandError(f"{where(destination)}: the object cannot be encoded for it") from error
    if "Status" not in answer:
        raise _lost(destination, timeout)
    return answer


def _delivery(destination: Destination, sop_instance_uid: str, answer: Dataset) -> Delivery:
    status = int(answer.Status)
    meaning, name = judge_status(status)
    # The peer's own Error Comment stays out: some archives quote the patient in it.
    if meaning is Meaning.STORED:
        return Delivery(destination.name, sop_instance_uid, status, name if status else "")
    said = f"{where(destination)} answered 0x{status:04X} ({name}) to {sop_instance_uid}"
    if meaning is Meaning.AWAY:
        raise DestinationAwayError(f"{said}; it must have room and be in order to store it")
    raise DestinationRefusedError(f"{said}; find the cause in its log, then retry or cancel")


def _lost(destination: Destination, timeout: float) -> DestinationAwayError:
    return DestinationAwayError(
        f"{where(destination)} aborted the association or did not answer within {timeout:g} s; "
        "whether it stored the object is unknown"
    )


def _read(content: bytes) -> FileDataset:
    try:
        data_set = dcmread(BytesIO(content))
    except (InvalidDicomError, EOFError, ValueError, KeyError) as error:
        raise CannotUnderstandError(f"the object to send is no Part 10 file: {type(error).__name__}") from error
    missing = [keyword for keyword in ("SOPClassUID", "SOPInstanceUID") if keyword not in data_set]
    if missing or "TransferSyntaxUID" not in data_set.file_meta:
        raise CannotUnderstandError(
            f"the object to send lacks {', '.join(missing) or 'TransferSyntaxUID'}; it needs all three"
        )
    return data_set


def _kind(path: Path) -> tuple[str, str]:
    try:
        meta = read_file_meta_info(path)
        return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
    except (OSError, InvalidDicomError, AttributeError) as error:
        raise CannotUnderstandError(
            f"{path.name} is no Part 10 file with complete file meta information ({type(error).__name__})"
        ) from error


def _names(context: PresentationContext) -> tuple[str, str]:
    return str(context.abstract_syntax), str(context.transfer_syntax[0])
