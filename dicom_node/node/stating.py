"""Writes the Conformance Statement: the prose of ``conformance.md.in``, filled with what each room tells of itself.

Owns which fact stands at which blank. A blank is ``{{ name }}``; ``{{ config KEY }}`` is a value of the configuration.
"""

from __future__ import annotations

import re
from importlib.resources import files

from dicom_node import __version__
from dicom_node.config import REPORT_CLASSES, Config, DicomDestination
from dicom_node.config import stated as of_config
from dicom_node.domain.statement import Table
from dicom_node.node.opening import calling_ae_title
from dicom_node.security.contexts import CIPHER_SUITES

_BLANK = re.compile(r"\{\{ ([^{}]+) \}\}")
_CONFIRMED_BY = {"auto": ("commitment", "find"), "none": ()}


def conformance_statement(config: Config) -> str:
    """Return the Conformance Statement (PS3.2) of a node with this configuration, as Markdown.

    With the defaults it is the product's own statement; with a site's configuration it also tells that site's titles,
    peers, limits and destinations, never a file, a user or a secret.
    """
    template = (files("dicom_node.node") / "conformance.md.in").read_text(encoding="utf-8")
    facts = _facts(config)

    def fill(blank: re.Match[str]) -> str:
        name = blank[1]
        if name.startswith("config "):
            return of_config.value(config, name.removeprefix("config "))
        return facts[name]

    return _BLANK.sub(fill, template)


def _facts(config: Config) -> dict[str, str]:
    from dicom_node.deliver import stated as of_deliver
    from dicom_node.receive import stated as of_receive
    from dicom_node.report import codes, encoding
    from dicom_node.report import stated as of_report
    from dicom_node.worklist import stated as of_worklist

    proposed = of_deliver.proposed(_sent(config, of_report.DISPLAY_CLASSES), _confirmed_by(config))
    tables = {
        "services": _services(
            of_receive.sop_classes(config.receive),
            proposed,
            of_worklist.retrieval_classes(),
            of_worklist.worklist_classes(),
        ),
        "retrieval classes": of_worklist.retrieval_classes(),
        "worklist classes": of_worklist.worklist_classes(),
        "retrieval statuses": of_worklist.retrieval_statuses(),
        "accepted classes": of_receive.sop_classes(config.receive),
        "transfer syntaxes": of_receive.transfer_syntaxes(),
        "association": of_receive.association(config.receive),
        "rejections": of_receive.rejections(),
        "store statuses": of_receive.statuses(),
        "action statuses": of_receive.action_statuses(),
        "event statuses": of_receive.event_statuses(),
        "step statuses": of_receive.step_statuses(),
        "proposed classes": proposed,
        "taken statuses": of_deliver.statuses(),
        "parameters": of_config.parameters(config),
        "report classes": of_report.report_classes(),
        "display objects": of_report.display_objects(),
        "private codes": of_report.private_codes(),
    }
    return {
        **{name: str(table) for name, table in tables.items()},
        "version": __version__,
        "cipher suites": ", ".join(CIPHER_SUITES),
        "coding schemes": of_report.schemes(),
        "private scheme": codes.SCHEME,
        "private scheme UID": codes.SCHEME_UID,
        "report implementation UID": encoding.IMPLEMENTATION_CLASS_UID,
        "report implementation version": encoding.IMPLEMENTATION_VERSION,
        "site": _site(config, of_receive.peers(config.receive)),
    }


def _services(accepted: Table, *proposed: Table) -> Table:
    """Return every SOP class with the roles in which it is supported."""
    as_provider = {uid: name for name, uid, *_ in accepted.rows}
    as_user = {uid: name for table in proposed for name, uid, *_ in table.rows}
    rows = (
        (name, "yes" if uid in as_user else "no", "yes" if uid in as_provider else "no")
        for uid, name in (as_provider | as_user).items()
    )
    return Table(("network service", "as user (SCU)", "as provider (SCP)"), tuple(rows))


def _sent(config: Config, display: dict[str, str]) -> list[str]:
    """Return the SOP classes that are sent: to this site's archives, or to any where no destination is configured."""
    if not config.destinations:
        return [*REPORT_CLASSES.values(), *display.values()]
    archives = [one for one in config.destinations if isinstance(one, DicomDestination)]
    reports = [
        uid for name, uid in REPORT_CLASSES.items() if any(name in one.report_classes for one in archives)
    ]
    return reports + [uid for kind, uid in display.items() if any(kind in one.objects for one in archives)]


def _confirmed_by(config: Config) -> set[str]:
    archives = [one for one in config.destinations if isinstance(one, DicomDestination)]
    asked = {one.confirm for one in archives} if config.destinations else {"auto"}
    return {way for name in asked for way in _CONFIRMED_BY.get(name, (name,))}


def _site(config: Config, peers: Table) -> str:
    if config == Config():
        return "`dicom-node conformance --config FILE` tells the peers and destinations of a site here."
    title = config.receive.ae_title
    return "\n".join(
        [
            f"This is the statement of {title} (calling as {calling_ae_title(config)}). Who may associate:",
            "",
            str(peers),
            "",
            "Where results are sent:",
            "",
            str(of_config.destinations(config)),
        ]
    )
