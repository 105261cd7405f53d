"""The composition root: from a Config to a running node. The only place that builds things; owns the clock."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from dicom_node import __version__
from dicom_node.config import Config
from dicom_node.db import migrate
from dicom_node.db.engine import Engine, open_engine, writing
from dicom_node.domain.errors import ConfigError, NodeError
from dicom_node.domain.types import Delivery, Destination, ImageResult, Kind
from dicom_node.pipeline.custody import Associations
from dicom_node.pipeline.ingest import Ingest
from dicom_node.store import node_facts
from dicom_node.store.files import FileStore

# Rooms that load torch, highdicom or a network are imported where they are used: receiving alone needs none.
if TYPE_CHECKING:
    from dicom_node.pipeline.readiness import Finding
    from dicom_node.pipeline.selftest import Passed
    from dicom_node.pipeline.worker import Handler, Worker
    from dicom_node.report.sr import Equipment
    from dicom_node.score.scorer import Analyser

log = logging.getLogger(__name__)


def now() -> datetime:
    """Return the current moment: the node's only clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Node:
    """A node's durable parts, opened: the database at its newest schema, the store, the node's identity."""

    config: Config
    engine: Engine
    files: FileStore
    device_uid: str
    destinations: dict[str, Destination]


def calling_ae_title(config: Config) -> str:
    """Return the AE title that the node uses as a client."""
    return config.deliver.calling_ae_title or config.receive.ae_title


def destinations_of(config: Config) -> dict[str, Destination]:
    """Return the configured destinations by name."""
    return {d.name: Destination(d.name, d.ae_title, d.host, d.port) for d in config.destinations}


@contextmanager
def open_node(config: Config) -> Iterator[Node]:
    """Open database and store, bring the schema up to date, and close them at the end.

    Raises
    ------
    ConfigError, DatabaseError, OutOfResourcesError
        If one of them cannot be used.
    """
    engine = open_engine(config.db)
    try:
        migrate.upgrade(engine)
        files = FileStore(config.store.root, config.store.reserve_megabytes * 1_000_000)
        with writing(engine) as conn:
            device_uid = node_facts.node_value(conn, "device_uid", f"2.25.{uuid4().int}")
        yield Node(config, engine, files, device_uid, destinations_of(config))
    finally:
        engine.dispose()


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
    )


def analyser(config: Config) -> Analyser:
    """Return the scorer of the active banks. torch is imported here, so that receiving alone never loads it."""
    from dicom_node.score.scorer import Analyser

    return Analyser.from_config(config.score)


def sender(node: Node) -> Callable[[Destination, bytes], Delivery]:
    """Return the function that delivers one object."""
    from dicom_node.deliver import scu

    deliver = node.config.deliver
    return partial(
        scu.send,
        calling_ae_title=calling_ae_title(node.config),
        timeout=deliver.timeout,
        maximum_pdu_size=deliver.maximum_pdu_size,
    )


def workers(node: Node, count: int) -> list[Worker]:
    """Return `count` workers that analyse and deliver, and one that only delivers.

    The last keeps results flowing while every other worker is busy with pixels.
    """
    from dicom_node.pipeline.dispatch import Dispatch
    from dicom_node.pipeline.process import Analyse
    from dicom_node.pipeline.worker import Worker

    if count == 0:
        return []
    scorer = analyser(node.config)
    try:
        scorer.warm_up()
    except NodeError as error:
        log.error("studies will be answered 'failed' until this is mended", extra={"reason": str(error)})  # noqa: TRY400 - the reason says it all
    analyse = Analyse(
        node.engine,
        node.files,
        scorer.analyse,
        equipment(node),
        tuple(node.destinations),
        now,
    )
    dispatch = Dispatch(node.engine, node.files, sender(node), node.destinations, now)
    everything: dict[Kind, Handler] = {Kind.ANALYSE: analyse, Kind.DELIVER: dispatch}
    host = f"{socket.gethostname()}:{os.getpid()}"
    made = [
        Worker(node.engine, node.config.queue, everything, f"{host}:{number}", now) for number in range(count)
    ]
    made.append(Worker(node.engine, node.config.queue, {Kind.DELIVER: dispatch}, f"{host}:deliver", now))
    return made


@contextmanager
def receiving(node: Node) -> Iterator[tuple[str, int]]:
    """Run the SCP inside the block; yields the address it listens on."""
    from dicom_node.receive.scp import Scp

    associations = Associations(node.engine, now)
    scp = Scp(
        node.config.receive,
        incoming=node.files.incoming,
        ingest=Ingest(node.engine, node.files, node.device_uid, now),
        admit=node.files.require_space,
        opened=lambda a: associations.opened(a.id, a.calling, a.called, a.peer_address, a.at),
        ended=associations.ended,
        clock=now,
    )
    address = scp.start()
    log.info("listening", extra={"ae_title": node.config.receive.ae_title, "address": "{}:{}".format(*address)})
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
    """
    from dicom_node.pipeline.schedule import Schedule

    threads: list[threading.Thread] = []
    with ExitStack() as stack:
        # Unwound from the last to the first: nothing more comes in or is scheduled, then work is finished.
        stack.callback(_join, threads)
        stack.callback(stop.set)
        stack.enter_context(Schedule(node.engine, node.files, node.config, now))
        ready(*(stack.enter_context(receiving(node)) if receive else ("", 0)))
        # Modalities need not wait until torch is loaded: what they send is safe and queued by now.
        for worker in workers(node, workers_count):
            threads.append(threading.Thread(target=worker.run, args=(stop,), name=f"worker-{len(threads)}"))
            threads[-1].start()
        stop.wait()
        log.info("stopping: what was begun is finished first")


def _join(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


def check(config: Config) -> list[Finding]:
    """Look at everything a start depends on; see `readiness`."""
    from dicom_node.deliver import scu
    from dicom_node.pipeline import health, readiness
    from dicom_node.pipeline.readiness import Finding

    findings = [Finding("configuration", True, "valid")]
    try:
        with open_node(config) as node:
            findings.append(Finding("database", True, f"answers, schema {migrate.current(node.engine)}"))
            findings.append(readiness.store(node.files.root, node.files.require_space))
            findings.append(readiness.queue(health.snapshot(node.engine, node.files.root, now())))
    except ConfigError:
        raise
    except NodeError as error:
        findings.append(Finding("database and store", False, str(error)))
    findings += readiness.banks(config.score.banks, config.score.kinds)
    echo = partial(scu.echo, calling_ae_title=calling_ae_title(config), timeout=config.deliver.timeout)
    return findings + readiness.destinations(destinations_of(config).values(), echo)


def selftest(config: Config, *, deliver: bool, timeout: float) -> Passed:
    """Send a phantom to the running node of this configuration; see `pipeline.selftest`."""
    from dicom_node.pipeline import selftest as test
    from dicom_node.score.bank_store import BankStore

    if config.receive.port == 0:
        raise ConfigError(["receive.port: is 0, a free port that only the running node knows; name one"])
    host = "127.0.0.1" if config.receive.host in {"0.0.0.0", "::"} else config.receive.host  # noqa: S104 - compared, not bound
    port = Destination("the node itself", config.receive.ae_title, host, config.receive.port)
    active = list(BankStore(config.score.banks).active_hashes().values())
    with open_node(config) as node:
        return test.run(
            node.engine,
            node.files,
            port,
            active,
            tuple(node.destinations) if deliver else (),
            timeout,
        )


def score_files(config: Config, paths: Sequence[Path], bank: str | None) -> Iterator[ImageResult]:
    """Score files one by one with the named or the active bank."""
    scorer = analyser(config)
    for path in paths:
        yield scorer.analyse_file(path, bank)


def explain_file(config: Config, path: Path, bank: str | None) -> tuple[ImageResult, bytes]:
    """Score a file and draw where it lies far from normal; see `Analyser.explain_file`."""
    return analyser(config).explain_file(path, bank)
