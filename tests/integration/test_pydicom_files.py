"""Every file of pydicom's own tests, sent to a live node: a status on the wire, and a report where stored."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from struct import pack

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, SecondaryCaptureImageStorage
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from sqlalchemy import Engine

from dicom_node.config import Db, Receive
from dicom_node.db.engine import open_engine, reading
from dicom_node.domain.types import Kind, Verdict
from dicom_node.receive.scp import AssociationFacts, Scp
from dicom_node.receive.status import MEANINGS
from dicom_node.store import reports
from tests.fuzz.parse_path import score
from tests.fuzz.seeds import PYDICOM_FILES, Seed, from_file
from tests.integration.test_pipeline import Site

NOT_ACCEPTED = "not accepted at negotiation"


def _files() -> dict[str, Seed]:
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted(PYDICOM_FILES.rglob("*")):
            name = path.relative_to(PYDICOM_FILES).as_posix()
            seed = from_file(path, name) if path.is_file() else None
            if seed is not None:
                found[name] = seed
    return found


def _as_secondary_capture(seed: Seed) -> Seed:
    """Return the data set with another SOP Class UID and nothing else changed, so that its class is accepted."""
    plain, order = seed.plain, ">" if seed.syntax == ExplicitVRBigEndian else "<"
    at = plain.find(seed.sop_class.encode())
    wanted = str(SecondaryCaptureImageStorage).encode() + b"\0"
    wanted += b"\0" * (len(wanted) % 2)
    if at < 0:
        return replace(seed, sop_class=str(SecondaryCaptureImageStorage))
    explicit = plain[at - 4 : at - 2] == b"UI"
    length = pack(order + ("H" if explicit else "L"), len(wanted))
    old = len(seed.sop_class) + len(seed.sop_class) % 2
    plain = plain[: at - len(length)] + length + wanted + plain[at + old :]
    return replace(seed, content=seed.packed(plain), sop_class=str(SecondaryCaptureImageStorage))


@pytest.fixture
def site(tmp_path: Path, _sqlite_template: Path) -> Iterator[Site]:
    database = tmp_path / "node.db"
    database.write_bytes(_sqlite_template.read_bytes())
    engine: Engine = open_engine(Db(url=f"sqlite:///{database}"))
    site = Site(engine, tmp_path / "store")
    site.judge = score
    yield site
    engine.dispose()


@pytest.fixture
def scp(site: Site) -> Iterator[Scp]:
    def opened(facts: AssociationFacts) -> None:
        site.associations.opened(facts.id, facts.calling, facts.called, facts.peer_address, facts.at)

    with Scp(
        Receive(port=0),
        incoming=site.files.incoming,
        ingest=site.ingest,
        admit=lambda: None,
        opened=opened,
        ended=site.associations.ended,
        clock=site.clock,
    ) as scp:
        yield scp


def _send(scp: Scp, seeds: list[Seed]) -> list[str]:
    """Send data sets byte for byte and return what each was answered."""
    entity = ApplicationEntity("PYDICOM")
    for sop_class, syntax in dict.fromkeys((seed.sop_class, seed.syntax) for seed in seeds):
        entity.add_requested_context(sop_class, syntax)
    host, port = scp.address
    association = entity.associate(host, port)
    if not association.is_established:  # not one of its contexts is accepted
        return [NOT_ACCEPTED] * len(seeds)
    try:
        return [_store(association, seed) for seed in seeds]
    finally:
        association.release()


def _store(association: Association, seed: Seed) -> str:
    wanted = (seed.sop_class, seed.syntax)
    accepted = [c for c in association.accepted_contexts if (c.abstract_syntax, c.transfer_syntax[0]) == wanted]
    if not accepted:
        return NOT_ACCEPTED
    request = C_STORE()
    request.MessageID, request.Priority = 1, 0
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = seed.sop_class, seed.sop_instance
    request.DataSet = BytesIO(seed.content)
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, accepted[0].context_id)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    assert response is not None, f"{seed.name} was not answered"
    return f"0x{response.Status:04X}"


def _reports(site: Site) -> Counter[Verdict]:
    """Let the node work until nothing is left, and return the verdict on each study that it holds."""
    site.clock.forward(3600)
    site.gather()
    site.work()
    found: Counter[Verdict] = Counter()
    for item in site.items(Kind.ANALYSE):
        with reading(site.engine) as conn:
            (kept,) = reports.of_study(conn, item.study_instance_uid)
        ds = dcmread(BytesIO(site.files.read_report(kept.digest)))
        assert ds.StudyInstanceUID == item.study_instance_uid
        assert item.state.value == "COMPLETED", item.reason
        found[kept.verdict] += 1
    return found


def test_each_gets_a_status_in_its_own_class_and_a_report_where_it_is_stored(site: Site, scp: Scp) -> None:
    files = _files()
    answers = Counter(_send(scp, list(files.values())))
    assert sum(answers.values()) == len(files) > 120
    assert {int(a, 16) for a in answers if a != NOT_ACCEPTED} <= MEANINGS.keys()
    assert answers[NOT_ACCEPTED] > 0
    assert answers["0x0000"] > 30
    assert sum(_reports(site).values()) > 5


def test_each_gets_a_status_as_a_secondary_capture_and_a_report_where_it_is_stored(
    site: Site, scp: Scp
) -> None:
    files = [_as_secondary_capture(seed) for seed in _files().values()]
    answers = Counter(_send(scp, files))
    assert sum(answers.values()) == len(files)
    assert answers["0x0000"] > 90
    assert answers["0x0110"] == 0, "no fault of the node's own"
    verdicts = _reports(site)
    assert verdicts[Verdict.BELOW] > 5
    assert verdicts[Verdict.NOT_ANALYSED] > 0
    assert not list(site.files.incoming.iterdir())
