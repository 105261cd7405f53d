"""Builds the workers: scorer, report, delivery."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from dicom_node import __version__
from dicom_node.config import REPORT_CLASSES, Config
from dicom_node.domain.errors import ScorerAwayError
from dicom_node.domain.types import Delivery, Destination, Kind
from dicom_node.node.opening import Node, calling_ae_title, now

if TYPE_CHECKING:
    from dicom_node.pipeline.confirm import Confirm
    from dicom_node.pipeline.dispatch import Dispatch, Send
    from dicom_node.pipeline.worker import Handler, Worker
    from dicom_node.report.sr import Equipment
    from dicom_node.score.apart import Apart
    from dicom_node.score.scorer import Analyser

log = logging.getLogger(__name__)


def equipment(node: Node) -> Equipment:
    """Return what reports say of the device that made them."""
    from dicom_node.report.sr import Equipment

    report = node.config.report
    return Equipment(
        device_uid=node.device_uid,
        manufacturer=report.manufacturer,
        model_name=report.model_name,
        serial_number=report.serial_number,
        software_version=__version__,
        institution_name=report.institution_name,
        ae_title=node.config.receive.ae_title,
        series_description=report.series_description,
        language=report.language,
    )


def analyser(config: Config) -> Analyser:
    """Return the scorer of the active banks. torch is imported here, so that receiving alone never loads it."""
    from dicom_node.score.scorer import Analyser

    return Analyser.from_config(config.score)


def sender(node: Node) -> Send:
    """Return the function that delivers one report, in the richest form that the destination takes."""
    from dicom_node.deliver import mllp, scu, stow
    from dicom_node.report import profile

    deliver = node.config.deliver
    stores: dict[str, Callable[..., Delivery]] = {
        "dicom": partial(
            scu.send_first,
            calling_ae_title=calling_ae_title(node.config),
            maximum_pdu_size=deliver.maximum_pdu_size,
        ),
        "stow": stow.send_first,
    }
    sending = (calling_ae_title(node.config), node.config.report.institution_name)

    def send(destination: Destination, content: bytes, also: Sequence[bytes] = ()) -> Delivery:
        if destination.kind == "hl7":
            return mllp.notify(destination, content, sending=sending, timeout=deliver.timeout)
        store = partial(stores[destination.kind], timeout=deliver.timeout)
        own = profile.cut(content, profile.CLASSES[0])
        forms = {sop_class: partial(_form, content, sop_class) for sop_class in destination.report_classes}
        delivery = store(destination, forms or {own.sop_class_uid: lambda: content}, also=also)
        how = next((name for name, uid in REPORT_CLASSES.items() if uid == delivery.sent_as), "")
        said = [part for part in (delivery.comment, f"sent as {how}" if how else "") if part]
        return replace(delivery, sop_instance_uid=own.sop_instance_uid, comment="; ".join(said))

    return send


def confirmation(node: Node) -> Confirm:
    """Return what finds out whether a destination holds what it was sent."""
    from dicom_node.deliver import commitment, find, stow
    from dicom_node.pipeline.confirm import Confirm

    deliver = node.config.deliver
    title = calling_ae_title(node.config)
    queries: dict[str, Callable[..., bool]] = {
        "dicom": partial(find.holds, calling_ae_title=title, maximum_pdu_size=deliver.maximum_pdu_size),
        "stow": stow.holds,
    }

    def holds(destination: Destination, **uids: str) -> bool:
        return queries[destination.kind](destination, **uids, timeout=deliver.timeout)

    return Confirm(
        node.engine,
        partial(
            commitment.request,
            calling_ae_title=title,
            timeout=deliver.timeout,
            maximum_pdu_size=deliver.maximum_pdu_size,
        ),
        holds,
        deliver.confirm_seconds,
        now,
        lambda: f"2.25.{uuid4().int}",
    )


def _form(content: bytes, sop_class_uid: str) -> bytes:
    from dicom_node.report import profile

    return profile.cut(content, sop_class_uid).content


SCORING_PROCESS = (sys.executable, "-m", "dicom_node.pipeline.image")
"""Command of the process that decodes and scores for one worker."""


@contextmanager
def workers(node: Node, count: int, scoring_process: Sequence[str] = SCORING_PROCESS) -> Iterator[list[Worker]]:
    """Make `count` workers that analyse and deliver, and for each destination one that only delivers there.

    These keep results flowing while every other worker is busy with pixels or waits for another destination. Inside
    the block they can work. Each of those that analyse has a scoring process of its own, which is warmed up at the
    beginning of the block and gone at its end.
    """
    from dicom_node.pipeline.process import Analyse
    from dicom_node.score.apart import Apart

    if count == 0:
        yield []
        return
    config = node.config
    dispatch = dispatcher(node)
    with ExitStack() as stack:
        scorers = [Apart(scoring_process, config.score, config.work, config.log.level) for _ in range(count)]
        for scorer in scorers:
            stack.callback(scorer.close)
        _warm_up(scorers)
        made = []
        for number, scorer in enumerate(scorers):
            analyse = Analyse(
                node.engine,
                node.files,
                scorer.analyse,
                equipment(node),
                tuple(node.destinations),
                now,
                config.queue.analyse_attempts,
                {name: destination.objects for name, destination in node.destinations.items()},
                {name: destination.route for name, destination in node.destinations.items()},
            )
            made.append(_worker(node, {Kind.ANALYSE: analyse, Kind.DELIVER: dispatch}, str(number), dispatch))
        yield [*made, *deliverers(node, dispatch)]


def dispatcher(node: Node) -> Dispatch:
    """Return the handler that delivers."""
    from dicom_node.pipeline.dispatch import Dispatch

    return Dispatch(
        node.engine, node.files, sender(node), node.destinations, now, node.audit, confirmation(node)
    )


def deliverers(node: Node, dispatch: Dispatch) -> list[Worker]:
    """Return for each destination a worker that only delivers there."""
    return [
        _worker(node, {Kind.DELIVER: dispatch}, f"deliver {name}", dispatch, name) for name in node.destinations
    ]


def _worker(
    node: Node, handlers: dict[Kind, Handler], name: str, dispatch: Dispatch, destination: str | None = None
) -> Worker:
    from dicom_node.pipeline.worker import Worker

    return Worker(
        node.engine,
        node.config.queue,
        handlers,
        f"{socket.gethostname()}:{os.getpid()}:{name}",
        now,
        limits={one.name: one.limits for one in node.destinations.values()},
        destination=destination,
        left_alone=dispatch.left_alone,
    )


def _warm_up(scorers: Sequence[Apart]) -> None:
    """Start all of them side by side; what is wrong is told once."""
    for scorer in scorers:
        with suppress(ScorerAwayError):  # told, and tried again when there is work
            scorer.start()
    faults = set()
    for scorer in scorers:
        with suppress(ScorerAwayError):
            faults.add(scorer.warm_up())
    for fault in faults - {""}:
        log.error("studies will be answered 'failed' until this is mended", extra={"reason": fault})
