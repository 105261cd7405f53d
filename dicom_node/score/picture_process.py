"""The process that draws pictures: its own side, and that of the one who asks.

Pixels of hostile images are decoded there and nowhere else. It loads no torch, so it begins at once; whatever an image
does to it costs that picture alone. Reads data sets by a function that is given in.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError
from pydicom import Dataset

from dicom_node.domain.errors import CannotDecodeError, CannotUnderstandError, OutOfResourcesError, PoisonError
from dicom_node.score import limits, picture
from dicom_node.score.attributes import integer, positive, text
from dicom_node.score.child import own_pipes
from dicom_node.score.picture_voi import voi_curve
from dicom_node.score.pixels import MAXIMUM_PIXELS, to_grey, value_range
from dicom_node.score.wire import (
    Garbled,
    Gone,
    PictureAsked,
    PictureSetup,
    PictureTold,
    receive,
    send,
    send_bytes,
)

_WAITING = 100
"""So many may wait for a picture; more are told to come again."""


def run(read: Callable[[Path], Dataset]) -> NoReturn:
    """Be the process that draws. Does not return."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # meant for the parent, whose end is ours
    limits.offer_to_be_killed()
    limits.no_core_dump()
    requests, answers = own_pipes()
    try:
        setup = PictureSetup.model_validate_json(receive(requests))
        limits.die_with(setup.parent)
        limits.limit_memory(setup.megabytes)
        while True:
            asked = PictureAsked.model_validate_json(receive(requests))
            drawn, reason = _draw(read, asked)
            send(answers, PictureTold(reason=reason))
            if not reason:
                send_bytes(answers, drawn)
    except Gone:
        os._exit(0)


def _draw(read: Callable[[Path], Dataset], asked: PictureAsked) -> tuple[bytes, str]:
    try:
        ds = read(Path(asked.path))
        grey = to_grey(ds, maximum_pixels=MAXIMUM_PIXELS)
        if asked.kind == "thumbnail":
            return picture.thumbnail(grey), ""
        least, most = value_range(ds, maximum_pixels=MAXIMUM_PIXELS)
        values = (most, least) if _inverted(ds) else (least, most)
        deep = integer(ds, "BitsStored", positive(ds, "BitsAllocated")) > 8
        return picture.whole(grey, values, deep=deep, curve=voi_curve(ds, least, most)), ""
    except (CannotDecodeError, CannotUnderstandError) as error:
        return b"", str(error)
    except MemoryError:
        return b"", "it needs too much memory"
    except OSError as error:
        return b"", f"its file cannot be read: {error.strerror or 'unknown'}"


def _inverted(ds: Dataset) -> bool:
    """Say whether the largest value is shown black, as `to_grey` does."""
    return (
        text(ds, "PhotometricInterpretation") == "MONOCHROME1" or text(ds, "PresentationLUTShape") == "INVERSE"
    )


class PictureProcess:
    """The asking side. Safe to share between threads: one picture is drawn at a time, the others wait.

    Parameters
    ----------
    command
        Starts the process; it is started when it is first needed, and again when an image has ended it.
    seconds, megabytes
        For one picture.
    """

    def __init__(self, command: Sequence[str], seconds: float = 30.0, megabytes: int = 2048) -> None:
        self._command = tuple(command)
        self._seconds = seconds
        self._megabytes = megabytes
        self._lock = threading.Lock()
        self._places = threading.Semaphore(_WAITING)
        self._process: subprocess.Popen[bytes] | None = None
        self._used = 0.0

    def draw(self, path: Path, kind: str) -> bytes:
        """Return a picture of a stored file.

        Raises
        ------
        CannotDecodeError
            If there is nothing to show.
        PoisonError
            If the image ended the process, or held it up.
        OutOfResourcesError
            If too many wait, or the process cannot be started.
        """
        if not self._places.acquire(blocking=False):
            raise OutOfResourcesError(f"{_WAITING} pictures are waited for already; ask again in a moment")
        try:
            with self._lock:
                return self._drawn(path, kind)
        finally:
            self._places.release()

    def rest(self, seconds: float) -> bool:
        """End the process if nobody has asked for a picture for so long; say whether there is none now."""
        with self._lock:
            if time.monotonic() - self._used >= seconds:
                self._end()
            return self._process is None

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _drawn(self, path: Path, kind: str) -> bytes:
        try:
            process = self._started()
            send(_fileno(process.stdin), PictureAsked.model_validate({"path": str(path), "kind": kind}))
            until = time.monotonic() + self._seconds
            told = PictureTold.model_validate_json(receive(_fileno(process.stdout), self._seconds))
            if told.reason:
                raise CannotDecodeError(f"there is no picture: {told.reason}")
            return receive(_fileno(process.stdout), max(0.0, until - time.monotonic()))
        except (Gone, Garbled, ValidationError):
            self._end()
            raise PoisonError("the image ended the process that draws pictures") from None
        except TimeoutError:
            self._end()
            raise PoisonError(f"the picture took longer than {self._seconds:g} s") from None
        finally:
            self._used = time.monotonic()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._process is None:
            self._process = self._start()
            send(_fileno(self._process.stdin), PictureSetup(megabytes=self._megabytes, parent=os.getpid()))
        return self._process

    def _start(self) -> subprocess.Popen[bytes]:
        """Start it from a thread that lives as long as it does: it ends with its parent, and that is a thread."""
        begun: queue.Queue[subprocess.Popen[bytes] | OSError] = queue.Queue()

        def hold() -> None:
            try:
                process = subprocess.Popen(  # noqa: S603 - our own module
                    self._command,
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,  # a decoder's words may quote an image
                    process_group=0,
                )
            except OSError as error:
                begun.put(error)
            else:
                begun.put(process)
                process.wait()

        threading.Thread(target=hold, name="picture-process", daemon=True).start()
        process = begun.get()
        if isinstance(process, OSError):
            raise OutOfResourcesError(f"pictures cannot be drawn: {process.strerror or process}") from process
        return process

    def _end(self) -> None:
        if self._process is None:
            return
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.kill()
        self._process.wait()
        self._process = None


def _fileno(pipe: object) -> int:
    return int(pipe.fileno())  # type: ignore[attr-defined]  # Popen types its pipes as optional
