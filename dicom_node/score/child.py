"""The scoring process: reads paths from its standard input, answers with results, until that ends.

`apart` starts it, one for each worker. Whatever an image does to the decoders, it does to this process alone.
Owns the conversation and the limits; what scores is handed to it. Opens no database and no socket; logs JSON lines
to standard error, which the parent takes into its own log.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from dicom_node.domain.errors import BankError, CannotDecodeError
from dicom_node.domain.explanation import Explanation
from dicom_node.domain.types import ImageResult
from dicom_node.observe.context import bound
from dicom_node.observe.logs import set_up
from dicom_node.score import limits
from dicom_node.score.wire import Answer, Garbled, Gone, Request, Setup, receive, send, send_explanation

__all__ = ["Scoring", "Setup", "run"]

log = logging.getLogger(__name__)


Explain = Callable[[], Explanation]
"""Finds out where an image lies far from normal."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """What scores. Each is given the name of a bank, or "" for those that are active.

    Attributes
    ----------
    warm_up
        Loads what is asked for and computes once; raises BankError where it cannot.
    changed
        Says whether that is anything else than what is loaded.
    analyse
        Scores one stored file or says why not; may raise BankError, MemoryError and OSError. With the result comes
        what tells where the image lies far from normal, or None; it may raise CannotDecodeError and MemoryError.
    """

    warm_up: Callable[[str], None]
    changed: Callable[[str], bool]
    analyse: Callable[[Path, str], tuple[ImageResult, Explain | None]]


def run(make: Callable[[Setup], Scoring]) -> NoReturn:
    """Be the scoring process; `make` builds what scores. Does not return."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # meant for the parent, which ends us when our work is done
    limits.offer_to_be_killed()
    limits.no_core_dump()
    requests, answers = own_pipes()
    sys.excepthook = _told
    faulthandler.enable()
    try:
        setup = Setup.model_validate_json(receive(requests))
    except Gone:
        os._exit(0)
    limits.die_with(setup.parent)
    set_up(setup.level, "json")
    try:
        _serve(make(setup), setup, requests, answers)
    except Gone:
        os._exit(0)  # the parent is done with us, or gone; nothing here needs tidying up


def _serve(scoring: Scoring, setup: Setup, requests: int, answers: int) -> NoReturn:
    send(answers, Answer(kind="ready", reason=_load(scoring, setup, "")))
    while True:
        request = Request.model_validate_json(receive(requests))
        with bound(**request.fields):
            if scoring.changed(request.bank):
                # Where it fails, `analyse` tells so of the images that need a bank.
                _load(scoring, setup, request.bank)
            send(answers, Answer(kind="begun"))
            said, explain = _answer(scoring, Path(request.path), request.bank)
            send(answers, said)
            if explain is not None:
                _explain(answers, explain)


def _load(scoring: Scoring, setup: Setup, bank: str) -> str:
    """Load what is asked for; a bank may be of any size, so the limit is for what comes beyond it."""
    limits.limit_memory(None)
    try:
        scoring.warm_up(bank)
    except BankError as error:
        return str(error)
    finally:
        limits.limit_memory(setup.megabytes)
    return ""


def _answer(scoring: Scoring, path: Path, bank: str) -> tuple[Answer, Explain | None]:
    try:
        result, explain = scoring.analyse(path, bank)
    except BankError as error:
        return Answer(kind="bank", reason=str(error)), None
    except MemoryError:
        return Answer(kind="memory"), None
    except RuntimeError as error:
        if _ALLOCATE not in str(error):
            raise
        return Answer(kind="memory"), None
    except OSError as error:
        return Answer(kind="store", reason=f"the stored file cannot be read: {error.strerror}"), None
    if result.refusal is not None and result.refusal.code == "memory":
        return Answer(kind="memory"), None
    return Answer(kind="result", result=result, explains=explain is not None), explain


_ALLOCATE = "allocate memory"
"""In torch's RuntimeError that stands for a MemoryError."""


def _explain(answers: int, explain: Explain) -> None:
    """Tell where an image lies far from normal, or why that cannot be told; its score is told already."""
    why = "it needed too much memory"
    try:
        send_explanation(answers, explain())
    except (BankError, CannotDecodeError) as error:
        why = str(error)
    except Garbled:
        why = "the image is too large"
    except MemoryError:
        pass
    except RuntimeError as error:
        if _ALLOCATE not in str(error):
            raise
    else:
        return
    send(answers, Answer(kind="explanation", reason=why))


def own_pipes() -> tuple[int, int]:
    """Take both pipes away from whatever else reads or prints: a library's words must not look like answers."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def _told(kind: type[BaseException], _error: BaseException, where: TracebackType | None) -> None:
    # The frames without the message: a library's message may quote the value of an element.
    frames = "".join(traceback.format_tb(where))
    log.error("the scoring process ends by an error", extra={"error": kind.__name__, "where": frames})
