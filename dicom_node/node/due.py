"""Builds the duties that follow worklists of scheduled procedures, one for each worklist."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial

from dicom_node.config import ModalityWorklist
from dicom_node.domain.scheduled import ScheduledProcedure
from dicom_node.domain.security import ClientSecurity
from dicom_node.domain.types import Destination
from dicom_node.node.opening import Node, calling_ae_title, now
from dicom_node.pipeline.arriving import secret
from dicom_node.pipeline.due import Ask, follow, forget
from dicom_node.pipeline.schedule import Duty


def duties(node: Node) -> list[Duty]:
    """Return them, and the one that forgets what is long past."""
    forgetting: Duty = ("forget notices", 3600.0, partial(forget, node.engine, now))
    sections = node.config.modality_worklists
    if not sections:
        return [forgetting]
    ask, key = asking(node), secret(node.engine)
    return [
        forgetting,
        *(
            (f"follow worklist {one.name}", one.poll_seconds, partial(follow, node.engine, one, ask, key, now))
            for one in sections
        ),
    ]


def asking(node: Node) -> Ask:
    """Return what asks a worklist for the days that its section names, in this machine's time zone."""
    from dicom_node.deliver import association
    from dicom_node.worklist import mwl

    connect = partial(
        association.associated,
        calling_ae_title=calling_ae_title(node.config),
        maximum_pdu_size=node.config.deliver.maximum_pdu_size,
    )

    def ask(section: ModalityWorklist) -> Sequence[ScheduledProcedure]:
        today = now().astimezone().date()
        return mwl.scheduled(
            connect,
            provider_of(section),
            days=(today - timedelta(days=section.days_back), today + timedelta(days=section.days_ahead)),
            modalities=section.modalities,
            stations=section.station_ae_titles,
            zone=None,
            timeout=section.timeout,
        )

    return ask


def provider_of(section: ModalityWorklist) -> Destination:
    """Return the provider of a worklist as the peer that associations are opened to."""
    tls = section.tls
    security = ClientSecurity(tls.files if tls.enabled else None, tls.server_name or section.host)
    return Destination(section.name, section.ae_title, section.host, section.port, security)
