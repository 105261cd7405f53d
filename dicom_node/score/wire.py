"""What a worker and its scoring process say to each other: JSON in frames of a stated length, over pipes.

Owns framing and messages. Each side treats what it reads as the other's claim: lengths are bounded, and what is
no message is a fault of the pipe, never an answer.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from dicom_node.config import ScoreSection
from dicom_node.domain.explanation import Explanation, Picture, Region
from dicom_node.domain.types import ImageResult

LARGEST = 16 * 1024 * 1024
"""Bytes of the longest frame; a result of the largest bank has some thousands."""

_HEAD = 4
_PNG = b"\x89PNG\r\n\x1a\n"


class Gone(Exception):  # noqa: N818 - it ends a conversation; nobody outside the two sides meets it
    """The other side has closed the pipe."""


class Garbled(Exception):  # noqa: N818 - as above
    """What the other side sent is no message."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Setup(_Message):
    """The first message, to the child: what to score with, and its limits.

    `megabytes` is what one image may need beyond the warmed-up process; `parent` is the process id whose end
    ends the child.
    """

    score: ScoreSection
    megabytes: int
    level: str
    parent: int


class Request(_Message):
    """Score the stored file at `path`; `fields` are bound to everything the child logs meanwhile.

    `bank` is the name of the one to score with; "" leaves it to those that are active.
    """

    path: str
    bank: str = ""
    fields: dict[str, JsonValue] = Field(default_factory=dict)


class PictureSetup(_Message):
    """The first message to the process that draws pictures: its limit and its parent, as in Setup."""

    megabytes: int
    parent: int


class PictureAsked(_Message):
    """Draw the stored file at `path`, whose preamble and file meta it has, as a picture of some kind."""

    path: str
    kind: Literal["thumbnail", "image"]


class PictureTold(_Message):
    """What became of it: a picture, in the next frame, or why there is none."""

    reason: str = ""


class Explained(_Message):
    """An Explanation without its largest parts: mask, picture and layer follow it, each in a frame of its own."""

    sop_instance_uid: str
    rows: int
    columns: int
    method: str
    false_positive_rate: float
    region: Region | None
    value_range: tuple[float, float]
    picture_rows: int
    picture_columns: int


class Answer(_Message):
    """What the child says.

    "ready" once, when it is warmed up (`reason` is why no bank could be loaded, or ""); then for each request
    "begun" when banks are loaded and the image's time begins, and one of: "result"; "memory", the image needed
    more than its limit; "bank" or "store", with the reason, where bank or file cannot be used. A "result"
    that `explains` is followed by an "explanation", which is None where there is a `reason` for that.
    """

    kind: Literal["ready", "begun", "result", "memory", "bank", "store", "explanation"]
    reason: str = ""
    result: ImageResult | None = None
    explains: bool = False
    explanation: Explained | None = None


def send(pipe: int, message: _Message) -> None:
    """Write one message.

    Raises
    ------
    Gone
        If nobody reads it any more.
    """
    send_bytes(pipe, message.model_dump_json().encode())


def send_explanation(pipe: int, one: Explanation) -> None:
    """Write an "explanation" with its large parts; raises Gone, and Garbled where they are too large."""
    if max(len(one.mask), len(one.picture.rgb), len(one.layer)) > LARGEST:
        raise Garbled
    told = Explained(
        sop_instance_uid=one.sop_instance_uid,
        rows=one.rows,
        columns=one.columns,
        method=one.method,
        false_positive_rate=one.false_positive_rate,
        region=one.region,
        value_range=one.value_range,
        picture_rows=one.picture.rows,
        picture_columns=one.picture.columns,
    )
    send(pipe, Answer(kind="explanation", explanation=told))
    for part in (one.mask, one.picture.rgb, one.layer):
        send_bytes(pipe, part)


def explanation(told: Explained, mask: bytes, rgb: bytes, layer: bytes) -> Explanation:
    """Return the explanation that was written; raises Garbled where its parts do not fit together."""
    rows, columns = told.picture_rows, told.picture_columns
    whole = len(mask) == (told.rows * told.columns + 7) // 8 and len(rgb) == rows * columns * 3
    whole = whole and layer[:8] in (b"", _PNG)
    if not whole or min(told.rows, told.columns, rows, columns) < 1:
        raise Garbled
    return Explanation(
        sop_instance_uid=told.sop_instance_uid,
        rows=told.rows,
        columns=told.columns,
        method=told.method,
        false_positive_rate=told.false_positive_rate,
        region=told.region,
        mask=mask,
        value_range=told.value_range,
        picture=Picture(rows, columns, rgb),
        layer=layer,
    )


def send_bytes(pipe: int, content: bytes) -> None:
    """Write one frame; raises Gone."""
    left = memoryview(len(content).to_bytes(_HEAD, "big") + content)
    try:
        while left:
            left = left[os.write(pipe, left) :]
    except BrokenPipeError as error:
        raise Gone from error


def receive(pipe: int, seconds: float | None = None, monotonic: Callable[[], float] = time.monotonic) -> bytes:
    """Return the next frame's content.

    Parameters
    ----------
    seconds
        To wait for all of it; None waits for ever.

    Raises
    ------
    Gone
        If the pipe is closed first.
    Garbled
        If the frame is longer than any message.
    TimeoutError
        If it does not come in time.
    """
    until = None if seconds is None else monotonic() + seconds
    length = int.from_bytes(_exactly(pipe, _HEAD, until, monotonic), "big")
    if length > LARGEST:
        raise Garbled
    return _exactly(pipe, length, until, monotonic)


def answer(content: bytes) -> Answer:
    """Return the answer that a frame holds.

    Raises
    ------
    Garbled
        If it holds none.
    """
    try:
        read = Answer.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise Garbled from error
    if (read.kind == "result") != (read.result is not None):
        raise Garbled
    return read


def _exactly(pipe: int, count: int, until: float | None, monotonic: Callable[[], float]) -> bytes:
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    got = bytearray()
    while len(got) < count:
        if until is not None and not poll.poll(max(0.0, until - monotonic()) * 1000):
            raise TimeoutError
        part = os.read(pipe, min(count - len(got), 65536))
        if not part:
            raise Gone
        got += part
    return bytes(got)
