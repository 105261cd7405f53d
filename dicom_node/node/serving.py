"""Runs the node: the SCP, the schedule, the workers, until it is told to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from dicom_node.domain.audit import AssociationRejected, Party
from dicom_node.node.arriving import arrivals
from dicom_node.node.auditing import audited_run
from dicom_node.node.opening import Node, now
from dicom_node.node.working import SCORING_PROCESS, workers

if TYPE_CHECKING:
    from dicom_node.receive.services import Service

log = logging.getLogger(__name__)


@contextmanager
def receiving(node: Node, services: Sequence[Service] = ()) -> Iterator[tuple[str, int]]:
    """Run the SCP inside the block, with further services; yields the address it listens on."""
    from dicom_node.node import committing, noticing, stepping
    from dicom_node.receive.scp import Scp

    ingest, opened, ended = arrivals(node)
    scp = Scp(
        node.config.receive,
        incoming=node.files.incoming,
        ingest=ingest,
        admit=node.files.require_space,
        opened=opened,
        ended=ended,
        rejected=lambda a, why: node.audit(
            AssociationRejected(now(), Party(a.calling, a.peer_address), a.called, why)
        ),
        clock=now,
        commitment=committing.service(node) if node.config.receive.commitment else None,
        services=[*services, *noticing.services(node), *stepping.services(node)],
    )
    address = scp.start()
    ae_title = node.config.receive.ae_title
    if node.config.receive.plain:
        log.info("listening", extra={"ae_title": ae_title, "address": "{}:{}".format(*address)})
    if node.config.receive.tls.enabled:
        log.info("listening for TLS", extra={"ae_title": ae_title, "address": "{}:{}".format(*scp.tls_address)})
    try:
        yield address
    finally:
        scp.stop()


def run(
    node: Node,
    stop: threading.Event,
    *,
    receive: bool,
    workers_count: int,
    ready: Callable[[str, int], None] = lambda _host, _port: None,
    scoring_process: Sequence[str] = SCORING_PROCESS,
) -> None:
    """Run the node until `stop` is set, then finish what was begun.

    Parameters
    ----------
    receive
        Whether this process listens for associations.
    workers_count
        Worker threads of this process; 0 for none.
    ready
        Told the bound host and port once associations are accepted ("" and 0 without receiving).
    scoring_process
        Command of the process that decodes and scores for one worker.
    """
    from dicom_node.node import backfilling, committing, counting, due, performing, stepping
    from dicom_node.pipeline.schedule import Schedule

    threads: list[threading.Thread] = []
    with ExitStack() as stack:
        # Unwound from the last to the first: nothing more comes in or is scheduled, then work is finished, then
        # the scoring processes end.
        stack.enter_context(audited_run(node.config, node.audit, now))
        scoring = stack.enter_context(ExitStack())
        stack.callback(_join, threads)
        stack.callback(stop.set)
        performers = performing.performers(node, stop)
        duties = [committing.duty(node), *backfilling.duties(node, stop), *performing.duties(performers)]
        duties += [*stepping.duties(node), *due.duties(node), *counting.duties(node)]
        stack.enter_context(Schedule(node.engine, node.files, node.config, now, node.audit, duties))
        ready(
            *(
                stack.enter_context(receiving(node, performing.services(node, performers)))
                if receive
                else ("", 0)
            )
        )
        if receive:
            stack.enter_context(stepping.present(node))
        if receive and node.config.web.enabled:
            from dicom_node.node.web import serving_beside

            stack.enter_context(serving_beside(node))
        # Modalities need not wait until torch is loaded: what they send is safe and queued by now.
        for worker in scoring.enter_context(workers(node, workers_count, scoring_process)):
            threads.append(threading.Thread(target=worker.run, args=(stop,), name=f"worker-{len(threads)}"))
            threads[-1].start()
        stop.wait()
        log.info("stopping: what was begun is finished first")


def _join(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.join()
