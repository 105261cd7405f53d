"""Builds what performs procedure steps of other providers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from dicom_node.config import Config, UpsSourceSection
from dicom_node.domain.performing import UpsSource
from dicom_node.domain.security import ClientSecurity
from dicom_node.node.opening import Node, calling_ae_title, now
from dicom_node.node.retrieving import archives_of, fetcher
from dicom_node.pipeline.perform import TICK_SECONDS, Perform, ask_to_cancel
from dicom_node.pipeline.perform_states import States
from dicom_node.pipeline.schedule import Duty

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from dicom_node.receive.services import Service


def sources_of(config: Config) -> tuple[UpsSource, ...]:
    """Return the configured providers of procedure steps."""
    return tuple(_source(section) for section in config.ups_sources)


def performers(node: Node, stop: threading.Event) -> list[Perform]:
    """Return one performer for each provider."""
    if not node.config.ups_sources:
        return []
    from dicom_node.deliver import association
    from dicom_node.report import profile
    from dicom_node.worklist.ups import Ups

    config = node.config
    connect = partial(
        association.associated,
        calling_ae_title=calling_ae_title(config),
        maximum_pdu_size=config.deliver.maximum_pdu_size,
    )
    title = config.receive.ae_title
    provider, fetch, archives = Ups(connect, title), fetcher(node), archives_of(config)
    made = []
    for source in sources_of(config):
        states = States(
            node.engine,
            source,
            provider,
            fetch,
            now,
            archives=archives,
            destinations=node.destinations,
            station=(title, "L", title),
            renamed=profile.cut_uid,
        )
        made.append(
            Perform(
                node.engine,
                source,
                provider,
                states,
                now,
                lambda: f"2.25.{uuid4().int}",
                stop.is_set,
                config.queue.lease_seconds,
            )
        )
    return made


def duties(performing: list[Perform]) -> list[Duty]:
    """Return the periodic duty of each."""
    return [(f"perform steps of {one.source.name}", TICK_SECONDS, one) for one in performing]


def services(node: Node, performing: list[Perform]) -> list[Service]:
    """Return the service that takes event reports, if there is anything to be told of."""
    if not any(one.source.mode == "subscribe" for one in performing):
        return []
    from dicom_node.receive.step_events import StepEvents

    return [StepEvents(partial(noted, node.engine, now, performing))]


def noted(
    engine: Engine,
    clock: Callable[[], datetime],
    performing: list[Perform],
    sop_instance_uid: str,
    *,
    cancel: bool,
    restarted: bool,
) -> None:
    """Take note of an event report: have providers asked, and remember that a cancellation is asked for."""
    if cancel:
        ask_to_cancel(engine, sop_instance_uid, clock())
    for one in performing:
        if one.source.mode == "subscribe":
            one.wake(subscribe=restarted)


def _source(section: UpsSourceSection) -> UpsSource:
    tls = section.tls.files if section.tls.enabled else None
    return UpsSource(
        section.name,
        section.ae_title,
        section.host,
        section.port,
        ClientSecurity(tls, section.tls.server_name or section.host, section.username, section.passcode_file),
        section.timeout,
        section.mode,
        section.poll_seconds,
        section.work_items,
        section.station_names,
        section.station_classes,
        section.archive,
        section.wait_for_delivery,
        section.items_at_a_time,
        section.input_attempts,
    )
