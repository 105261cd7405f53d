"""A scoring process whose images misbehave as their files' names say. Run as a script, in the place of the node's."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from dicom_node.domain.errors import BankError, CannotDecodeError
from dicom_node.domain.explanation import Explanation, Picture, Region
from dicom_node.domain.types import ImageResult, Refusal
from dicom_node.score.child import Explain, Scoring, Setup, run

_MARKED = "MARKED^PATIENT"


def _analyse(path: Path, bank: str) -> tuple[ImageResult, Explain | None]:
    what = path.stem
    if what == "segfault":
        ctypes.string_at(0)
    elif what == "hang":
        time.sleep(3600)
    elif what == "memory":
        bytearray(300 * 1024 * 1024)
    elif what == "native-memory":
        sys.stderr.write("terminate called after throwing an instance of 'std::bad_alloc'\n")
        sys.stderr.flush()
        os.abort()
    elif what == "noise":
        print(_MARKED, flush=True)
        os.write(2, f"{_MARKED}\n".encode())
    elif what == "unexpected":
        raise ZeroDivisionError(_MARKED)
    elif what == "bank":
        raise BankError("bank x is damaged")
    elif what == "missing":
        path.read_bytes()
    logging.getLogger("decoder").info("looked at", extra={"what": what})
    told = f"{what} with {bank}" if bank else what
    result = ImageResult("1.2", "1.3", "1.4", refusal=Refusal("view", f"{told} by {os.getpid()}"))
    return result, (lambda: _explanation(what)) if what.startswith("explained") else None


EXPLANATION = Explanation(
    sop_instance_uid="1.3",
    rows=3,
    columns=5,
    method="by hand",
    false_positive_rate=0.05,
    region=Region(((0.0, 0.0), (5.0, 0.0), (5.0, 3.0)), 0.5),
    mask=b"\x05\x7f",
    value_range=(0.0, 4095.0),
    picture=Picture(100, 200, bytes(range(256)) * 234 + bytes(96)),
)


def _explanation(what: str) -> Explanation:
    if what == "explained-crash":
        ctypes.string_at(0)
    elif what == "explained-hang":
        time.sleep(3600)
    elif what == "explained-memory":
        bytearray(300 * 1024 * 1024)
    elif what == "explained-not":
        raise CannotDecodeError("the values have no range")
    elif what == "explained-wrong":
        return replace(EXPLANATION, mask=b"\x05")
    return EXPLANATION


def _warm_up(bank: str) -> None:
    if "crash-at-start" in sys.argv:
        sys.stderr.write("libmissing.so: cannot open shared object file\n")
        sys.stderr.flush()
        os._exit(9)
    if "no-bank" in sys.argv or bank == "damaged":
        raise BankError("bank x is damaged")


def _speak_nonsense() -> NoReturn:
    """Answer with a frame that is no JSON, as a decoder might that wrote into the pipe."""
    from dicom_node.score.wire import Answer, receive, send

    receive(0)
    send(1, Answer(kind="ready"))
    while True:
        receive(0)
        send(1, Answer(kind="begun"))
        os.write(1, b"\x00\x00\x00\x05{nan}" if "garbage" in sys.argv else b"\xff\xff\xff\xffHELLO")


def _scoring(_setup: Setup) -> Scoring:
    return Scoring(_warm_up, bool, _analyse)


if __name__ == "__main__":
    if {"garbage", "giant"} & set(sys.argv):
        _speak_nonsense()
    run(_scoring)
