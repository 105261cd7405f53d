"""Builds the provider of procedure steps: what the receiver answers, what is told to subscribers, what is fetched."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from dicom_node.domain import procedure_steps as ups
from dicom_node.domain.errors import NodeError
from dicom_node.domain.retrieval import Fetch
from dicom_node.node.committing import address_of
from dicom_node.node.opening import Node, now
from dicom_node.node.retrieving import archives_of, fetcher
from dicom_node.pipeline.schedule import Duty
from dicom_node.pipeline.step_inputs import fetch_inputs
from dicom_node.pipeline.step_keeping import prune_steps
from dicom_node.pipeline.step_outputs import Places
from dicom_node.pipeline.step_said import Said
from dicom_node.pipeline.step_telling import POLL_SECONDS, tell_events
from dicom_node.pipeline.step_watching import Watching
from dicom_node.pipeline.steps import Steps
from dicom_node.receive.procedure_steps import ProcedureStepService

if TYPE_CHECKING:
    from dicom_node.config import Web

log = logging.getLogger(__name__)

_LAST_WORD_SECONDS = 5.0
"""How long a stop waits for one subscriber to take what it is told of it."""


def steps(node: Node) -> Steps:
    """Return the steps of this node."""
    receive = node.config.receive
    return Steps(
        node.engine,
        node.files,
        _said(node),
        now,
        device_uid=node.device_uid,
        codes=receive.procedure_step_codes,
        archives={one.ae_title: name for name, one in archives_of(node.config).items() if one.ae_title},
        keep=timedelta(days=receive.procedure_step_days),
    )


def watching(node: Node) -> Watching:
    """Return who watches them."""
    return Watching(
        node.engine,
        node.files,
        _said(node),
        now,
        keep=timedelta(days=node.config.receive.procedure_step_days),
        reachable=lambda ae_title, address: address_of(node.config, ae_title, address) is not None,
    )


def own_dicomweb(web: Web) -> str:
    """Return the address of this node's DICOMweb, "" where none is sure: it needs TLS of its own and a host name."""
    if not (web.enabled and web.tls.enabled and web.host_names) or web.trusted_proxies:
        return ""
    port = "" if web.port == 443 else f":{web.port}"
    return f"https://{web.host_names[0]}{port}{web.base_path}/dicomweb"


def services(node: Node) -> list[ProcedureStepService]:
    """Return the service, if it is switched on."""
    if not node.config.receive.procedure_steps:
        return []
    return [ProcedureStepService(steps(node), watching(node), node.audit, now)]


def duties(node: Node) -> list[Duty]:
    """Return the periodic duties: follow the queue, tell subscribers, fetch input; and let steps go, in any case."""
    keeping: Duty = ("prune procedure steps", 3600.0, partial(prune, node))
    if not node.config.receive.procedure_steps:
        return [keeping]
    archives = archives_of(node.config)

    def fetch(archive: str, study_instance_uid: str) -> bool:
        if archive not in archives:  # taken out of the configuration since
            return False
        return fetcher(node)(archives[archive], Fetch(study_instance_uid)).complete

    return [
        keeping,
        ("follow procedure steps", POLL_SECONDS, steps(node).follow),
        ("tell procedure step events", POLL_SECONDS, _telling(node, node.config.deliver.timeout)),
        ("fetch for procedure steps", POLL_SECONDS, lambda: fetch_inputs(node.engine, fetch, now)),
    ]


def prune(node: Node, *, dry_run: bool = False) -> int:
    """Remove the steps whose time is over; return how many go, or would."""
    keep = timedelta(days=node.config.receive.procedure_step_days)
    return prune_steps(node.engine, node.files, watching(node), now, keep, dry_run=dry_run)


@contextmanager
def present(node: Node) -> Iterator[None]:
    """Tell who watches all steps that the provider is there inside the block, and that it goes at its end."""
    if not node.config.receive.procedure_steps:
        yield
        return
    watchers = watching(node)
    _tell_status(watchers, ups.RESTARTED)
    try:
        yield
    finally:
        if _tell_status(watchers, ups.GOING_DOWN):
            try:
                _telling(node, _LAST_WORD_SECONDS, (ups.SCP_STATUS_CHANGE,))()
            except NodeError as error:
                log.warning("subscribers were not told of the stop", extra={"reason": str(error)})


def _tell_status(watchers: Watching, status: str) -> int:
    try:
        return watchers.change_status(status)
    except NodeError as error:
        log.warning("an SCP Status Change cannot be told", extra={"reason": str(error)})
        return 0


def _telling(node: Node, timeout: float, kinds: Sequence[int] = ()) -> Callable[[], int]:
    from dicom_node.deliver import step_events

    tell = partial(
        step_events.tell,
        calling_ae_title=node.config.receive.ae_title,
        timeout=timeout,
        maximum_pdu_size=node.config.deliver.maximum_pdu_size,
    )
    reach, watchers = partial(address_of, node.config), watching(node)
    return lambda: tell_events(node.engine, reach, tell, watchers, now, kinds)


def _said(node: Node) -> Said:
    from dicom_node.report import profile

    places = Places(node.destinations, own_dicomweb(node.config.web), profile.cut_uid)
    return Said(node.engine, node.files, node.config.receive.ae_title, places)
