"""What a destination's answer means: stored, try again, or refused. Pure; knows nothing of sockets."""

from __future__ import annotations

from enum import Enum

_STORED = {
    0x0000: "success",
    0x0111: "it holds this object already",
    0xB000: "stored, data elements coerced",
    0xB006: "stored, elements discarded",
    0xB007: "stored, data set does not match its SOP class",
}
_AWAY = {
    0x0110: "processing failure",
    0x0213: "resource limitation",
}
_REFUSED = {
    0x0117: "invalid object instance",
    0x0118: "no such SOP class",
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0x0210: "duplicate invocation",
    0x0211: "unrecognised operation",
    0x0212: "mistyped argument",
}


class Meaning(Enum):
    """What follows from a status."""

    STORED = "stored"
    AWAY = "away"
    REFUSED = "refused"


def judge_status(status: int) -> tuple[Meaning, str]:
    """Return what a C-STORE status means (PS3.4 table B.2-1, PS3.7 annex C), and its name.

    Processing failure (0x0110) counts as *away*: it is what archives say when their database or disk is down.
    A status that the standard does not know counts as refused, so that a person looks at it.
    """
    if status in _STORED:
        return Meaning.STORED, _STORED[status]
    if 0xA700 <= status <= 0xA7FF:
        return Meaning.AWAY, "out of resources"
    if status in _AWAY:
        return Meaning.AWAY, _AWAY[status]
    if 0xA900 <= status <= 0xA9FF:
        return Meaning.REFUSED, "data set does not match SOP class"
    if 0xC000 <= status <= 0xCFFF:
        return Meaning.REFUSED, "cannot understand"
    return Meaning.REFUSED, _REFUSED.get(status, "a status the Storage Service Class does not define")


_REJECTIONS = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognised",
    (1, 7): "called AE title not recognised",
    (2, 1): "no reason given by its ACSE",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}
_NEVER = {(1, 2), (2, 2)}


def judge_rejection(result: int, source: int, diagnostic: int) -> tuple[Meaning, str]:
    """Return what an A-ASSOCIATE-RJ means (PS3.8 table 9-21), and its reason.

    An AE title that is not recognised counts as *away* although the peer calls it permanent: a PACS
    administrator adds the title some day, and the reports of the time before must then go out by themselves.
    Only a peer that does not speak DICOM's protocol is taken at its word.
    """
    kind = "for now" if result == 2 else "permanently"
    reason = _REJECTIONS.get((source, diagnostic), f"reason {diagnostic} of source {source}")
    meaning = Meaning.REFUSED if (source, diagnostic) in _NEVER else Meaning.AWAY
    return meaning, f"{reason} ({kind})"
