"""The configuration: one frozen section per room, and the only place with defaults.

``config.toml`` -> ``DICOM_NODE__SECTION__KEY`` -> flags, merged as what was set, validated once.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from dicom_node.config_sources import fault, merge, parse, put, read_toml
from dicom_node.domain.errors import ConfigError, InvalidIdentifierError
from dicom_node.domain.ids import check_ae_title

ENV_PREFIX = "DICOM_NODE__"


def _ae_title(value: str) -> str:
    try:
        return check_ae_title(value)
    except InvalidIdentifierError as error:
        raise ValueError(str(error)) from error


def _network(value: str) -> str:
    try:
        ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"{value!r} is no IP address or network; write 10.1.2.3 or 10.1.0.0/16") from None
    return value


AETitle = Annotated[str, AfterValidator(_ae_title)]
Network = Annotated[str, AfterValidator(_network)]
Port = Annotated[int, Field(ge=0, le=65535)]
PeerPort = Annotated[int, Field(ge=1, le=65535)]
_YEAR = 366 * 86_400.0  # keeps out infinity, which no clock and no socket takes
Seconds = Annotated[float, Field(ge=0, le=_YEAR)]
PositiveSeconds = Annotated[float, Field(gt=0, le=_YEAR)]


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", str_strip_whitespace=True, coerce_numbers_to_str=True
    )


class Peer(_Section):
    """A modality or PACS that may send. Without `addresses` it may send from anywhere."""

    ae_title: AETitle
    addresses: tuple[Network, ...] = ()


class Receive(_Section):
    """The C-STORE and C-ECHO SCP."""

    ae_title: AETitle = "DICOMNODE"
    host: str = "127.0.0.1"
    port: Port = 11112
    require_called_ae_title: bool = False
    peers: tuple[Peer, ...] = ()
    on_conflict: Literal["accept", "refuse"] = "accept"
    max_associations: Annotated[int, Field(ge=1)] = 32
    maximum_pdu_size: Annotated[int, Field(ge=4096, le=4_194_304)] = 131_072
    network_timeout: PositiveSeconds = 60.0


class Store(_Section):
    """Where received bytes and reports are kept."""

    root: Path = Path("var/store")
    reserve_megabytes: Annotated[int, Field(ge=0)] = 512


class Db(_Section):
    """The database. `password_file` holds the password of a PostgreSQL URL that has none."""

    url: str = "sqlite:///var/node.db"
    password_file: Path | None = None


class Gather(_Section):
    """When a study counts as complete."""

    quiet_seconds: Seconds = 5.0
    open_association_seconds: Seconds = 60.0
    poll_seconds: PositiveSeconds = 0.5


class Queue(_Section):
    """Leases and retries of work items."""

    lease_seconds: PositiveSeconds = 60.0
    poll_seconds: PositiveSeconds = 0.25
    analyse_attempts: Annotated[int, Field(ge=1)] = 3
    deliver_attempts: Annotated[int, Field(ge=1)] = 200
    backoff_seconds: PositiveSeconds = 2.0
    backoff_cap_seconds: PositiveSeconds = 900.0


class Work(_Section):
    """How many workers `serve` runs as threads; 0 leaves the work to ``dicom-node work`` processes."""

    workers: Annotated[int, Field(ge=0, le=64)] = 2


class Eligibility(_Section):
    """Which images are scored; every image that is not gets a stated reason.

    Text is compared in upper case. An empty list allows everything. Body part and view are checked only
    where the image states them, unless the ``require_`` key says otherwise.
    """

    modalities: tuple[str, ...] = ("CR", "DX", "RG")
    body_parts: tuple[str, ...] = ("CHEST", "THORAX", "LUNG", "PORT CHEST")
    require_body_part: bool = False
    view_positions: tuple[str, ...] = ("PA", "AP")
    require_view_position: bool = False
    presentation_intents: tuple[str, ...] = ("FOR PRESENTATION",)
    minimum_pixels: Annotated[int, Field(ge=1)] = 128


Kind = Literal["deep-knn", "salad", "aligned-knn"]
"""Kinds of bank."""


class ScoreSection(_Section):
    """The scorer: the folder of banks, the method and the eligibility rules.

    With "both", an image is scored by a bank of each of the two papers' kinds, with "all" by one of every kind;
    the one that `decides` names decides.
    """

    banks: Path = Path("var/banks")
    method: Literal["deep-knn", "salad", "aligned-knn", "both", "all"] = "deep-knn"
    decides: Kind = "deep-knn"
    threads: Annotated[int, Field(ge=0)] = 0
    maximum_megapixels: Annotated[float, Field(gt=0)] = 100.0
    eligibility: Eligibility = Eligibility()

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of bank that score an image, the one that decides first."""
        if self.method != "both" and self.method != "all":
            return (self.method,)
        several: tuple[Kind, ...] = ("deep-knn", "salad") if self.method == "both" else get_args(Kind)
        return (self.decides, *(kind for kind in several if kind != self.decides))

    @model_validator(mode="after")
    def _one_of_them_decides(self) -> ScoreSection:
        if self.method == "both" and self.decides == "aligned-knn":
            raise ValueError('decides is "aligned-knn", which method "both" does not score with; "all" does')
        return self


def _cron(value: str) -> str:
    if not value:
        return value
    from apscheduler.triggers.cron import CronTrigger

    try:
        CronTrigger.from_crontab(value, timezone="UTC")
    except ValueError as error:
        raise ValueError(
            f"{value!r} is no cron expression of five fields, such as '0 3 * * sun' ({error})"
        ) from None
    if any(character.isdigit() for character in value.split()[4].partition("#")[0]):
        # cron counts weekdays from Sunday, APScheduler from Monday: a number would mean another day to many.
        raise ValueError(f"{value!r} numbers the days of the week; name them, such as sun or mon-fri")
    return value


class BankSchedule(_Section):
    """When the active bank is rebuilt by itself, and from what. `rebuild` is "marked-normal", a folder or a CSV."""

    cron: Annotated[str, AfterValidator(_cron)] = ""
    rebuild: Annotated[str, Field(min_length=1)] = "marked-normal"
    labelled: Path | None = None


class BankSection(_Section):
    """The life of banks."""

    schedule: BankSchedule = BankSchedule()


class ReportSection(_Section):
    """What the report says of the device and the site."""

    manufacturer: str = "dicom_node"
    model_name: str = "dicom-node"
    serial_number: str = "0"
    institution_name: str = ""
    series_description: str = "Chest X-ray anomaly score (research)"


class DestinationSection(_Section):
    """A peer that every report is sent to."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    ae_title: AETitle
    host: Annotated[str, Field(min_length=1)]
    port: PeerPort


class Deliver(_Section):
    """The C-STORE SCU."""

    calling_ae_title: AETitle | None = None
    timeout: PositiveSeconds = 30.0
    maximum_pdu_size: Annotated[int, Field(ge=4096, le=4_194_304)] = 131_072


class Web(_Section):
    """Address of the reading worklist. Nothing listens there yet: the key is agreed, the page is to come."""

    host: str = "127.0.0.1"
    port: Port = 8080


class Log(_Section):
    """The program's own log, on standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"


class Config(_Section):
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
    destinations: tuple[DestinationSection, ...] = ()
    web: Web = Web()
    log: Log = Log()

    @model_validator(mode="after")
    def _destination_names_differ(self) -> Config:
        names = [d.name for d in self.destinations]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"destinations: the names {twice} stand more than once; each needs its own")
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
