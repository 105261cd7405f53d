"""The configuration: one frozen section per room, and the only place with defaults.

``config.toml`` -> ``DICOM_NODE__SECTION__KEY`` -> flags, merged as what was set, validated once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from dicom_node.config.archive import ArchiveFetched
from dicom_node.config.audit import AuditSection, Syslog
from dicom_node.config.bank import BankSchedule, BankSection
from dicom_node.config.deliver import (
    REPORT_CLASSES,
    AnyDestination,
    Deliver,
    DestinationSection,
    DicomDestination,
    Hl7Destination,
    StowDestination,
)
from dicom_node.config.log import Log
from dicom_node.config.modality_worklist import ModalityWorklist
from dicom_node.config.priorities import PriorityRule
from dicom_node.config.receive import Peer, Receive
from dicom_node.config.report import ReportSection
from dicom_node.config.score import Eligibility, Explain, Kind, ScoreSection
from dicom_node.config.store import Db, Store
from dicom_node.config.tls import DestinationTls, Identity, ReceiveTls
from dicom_node.config.ups import UpsSourceSection
from dicom_node.config.values import Section
from dicom_node.config.web import Web
from dicom_node.config.work import Gather, Queue, Work
from dicom_node.config_sources import fault, merge, parse, put, read_toml
from dicom_node.domain.errors import ConfigError

__all__ = [
    "ENV_PREFIX",
    "REPORT_CLASSES",
    "ArchiveFetched",
    "AuditSection",
    "BankSchedule",
    "BankSection",
    "Config",
    "Db",
    "Deliver",
    "DestinationSection",
    "DestinationTls",
    "DicomDestination",
    "Eligibility",
    "Explain",
    "Gather",
    "Hl7Destination",
    "Identity",
    "Kind",
    "Log",
    "ModalityWorklist",
    "Peer",
    "PriorityRule",
    "Queue",
    "Receive",
    "ReceiveTls",
    "ReportSection",
    "ScoreSection",
    "Store",
    "StowDestination",
    "Syslog",
    "UpsSourceSection",
    "Web",
    "Work",
    "load",
]

ENV_PREFIX = "DICOM_NODE__"


class Config(Section):
    """The whole configuration, valid by construction."""

    receive: Receive = Receive()
    store: Store = Store()
    db: Db = Db()
    gather: Gather = Gather()
    queue: Queue = Queue()
    work: Work = Work()
    score: ScoreSection = ScoreSection()
    bank: BankSection = BankSection()
    report: ReportSection = ReportSection()
    deliver: Deliver = Deliver()
    destinations: tuple[AnyDestination, ...] = ()
    archives: tuple[ArchiveFetched, ...] = ()
    ups_sources: tuple[UpsSourceSection, ...] = ()
    modality_worklists: tuple[ModalityWorklist, ...] = ()
    priorities: tuple[PriorityRule, ...] = ()
    web: Web = Web()
    log: Log = Log()
    audit: AuditSection = AuditSection()

    @model_validator(mode="after")
    def _names_differ(self) -> Config:
        for section in ("destinations", "archives", "ups_sources", "modality_worklists"):
            names = [one.name for one in getattr(self, section)]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{section}: the names {twice} stand more than once; each needs its own")
        return self

    @model_validator(mode="after")
    def _named_are_there(self) -> Config:
        archives = [archive.name for archive in self.archives]
        destinations = [destination.name for destination in self.destinations]
        if (asked := self.gather.count_archive) and asked not in archives:
            raise ValueError(f"gather.count_archive: {asked!r} is none of the archives {archives}")
        for number, source in enumerate(self.ups_sources):
            where = f"ups_sources[{number}]"
            if source.archive and source.archive not in archives:
                raise ValueError(f"{where}.archive: {source.archive!r} is none of the archives {archives}")
            unknown = sorted(set(source.wait_for_delivery or ()) - set(destinations))
            if unknown:
                raise ValueError(
                    f"{where}.wait_for_delivery: {unknown} are none of the destinations {destinations}"
                )
        return self


def load(
    path: Path | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Merge file, environment and flags, and validate the result once.

    Parameters
    ----------
    path
        A TOML file; None uses the defaults. Relative paths in the configuration are taken from the current
        folder.
    env
        Environment, of which ``DICOM_NODE__SECTION__KEY`` is read; values are JSON where they parse as such
        (numbers, true, lists, tables), else text.
    flags
        Nested mapping of what the command line set, e.g. ``{"receive": {"port": 0}}``.

    Raises
    ------
    ConfigError
        With every fault and its key.
    """
    faults: list[str] = []
    merged: dict[str, Any] = {}
    if path is not None:
        merged = read_toml(path)
    for name, value in sorted((env or {}).items()):
        if name.startswith(ENV_PREFIX):
            keys = name.removeprefix(ENV_PREFIX).lower().split("__")
            if not all(keys):
                faults.append(f"{name}: the name has an empty part; write {ENV_PREFIX}SECTION__KEY")
                continue
            put(merged, keys, parse(value))
    merge(merged, flags or {})
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        faults += [fault(detail) for detail in error.errors()]
    if faults:
        raise ConfigError(faults)
    return config
