"""Performed steps and availability notices, as peers meet them on the wire, down to the database."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydicom.dataset import Dataset
from pynetdicom.ae import ApplicationEntity
from sqlalchemy import select

from dicom_node.config import Receive
from dicom_node.db import schema
from dicom_node.db.engine import reading
from dicom_node.domain.errors import DatabaseError
from dicom_node.domain.sop_classes import IAN, MPPS
from dicom_node.pipeline.notices import Notices
from dicom_node.receive.notices import MOST_IMAGES, AvailabilityNotices, PerformedSteps
from dicom_node.receive.scp import Scp
from dicom_node.store import expected
from tests.fakes import ManualClock
from tests.peers import CR

STUDY, OTHER_STUDY, STEP = "1.2.3", "1.2.4", "2.25.77"
BASIC_TEXT = "1.2.840.10008.5.1.4.1.1.88.11"


def images(*uids, sop_class=CR, keyword="ReferencedImageSequence"):
    series = Dataset()
    series.SeriesInstanceUID = "1.2.3.1"
    items = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        items.append(item)
    setattr(series, keyword, items)
    return [series]


def begun(*studies, state="IN PROGRESS"):
    ds = Dataset()
    ds.PatientName, ds.PatientID = "Hidden^Person", "SECRET"
    ds.PerformedProcedureStepStatus = state
    ds.ScheduledStepAttributesSequence = []
    for study in studies or (STUDY,):
        step = Dataset()
        step.StudyInstanceUID, step.AccessionNumber = study, "SECRET"
        ds.ScheduledStepAttributesSequence.append(step)
    return ds


def ended(*uids, state="COMPLETED"):
    ds = Dataset()
    ds.PerformedProcedureStepStatus = state
    ds.PerformedSeriesSequence = images(*uids)
    return ds


def available(*uids, study=STUDY, sop_class=CR):
    ds = Dataset()
    ds.StudyInstanceUID = study
    ds.ReferencedSeriesSequence = images(*uids, sop_class=sop_class, keyword="ReferencedSOPSequence")
    return ds


class Away:
    def begun(self, step):
        raise DatabaseError("the database is away")


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def serve(keeper, engine, clock):
    started = []

    def start(ledger=None, services=None, **settings):
        ledger = ledger or Notices(engine, clock, 900)
        scp = Scp(
            Receive.model_validate({"port": 0, "network_timeout": 10.0, **settings}),
            incoming=keeper.incoming,
            ingest=keeper.ingest,
            admit=keeper.admit,
            opened=keeper.note_opened,
            ended=keeper.note_ended,
            clock=clock,
            services=[PerformedSteps(ledger), AvailabilityNotices(ledger)] if services is None else services,
        )
        scp.start()
        entity = ApplicationEntity("CR1")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
        entity.add_requested_context(MPPS.uid)
        entity.add_requested_context(IAN.uid)
        entity.add_requested_context("1.2.840.10008.1.1")
        association = entity.associate(*scp.address, ae_title="DICOMNODE")
        assert association.is_established
        started.append((scp, association))
        return association

    yield start
    for scp, association in started:
        if association.is_established:
            association.release()
        scp.stop(drain_seconds=1.0)


def create(association, ds, uid=STEP, sop_class=MPPS.uid):
    return association.send_n_create(ds, sop_class, uid)[0].Status


def update(association, ds, uid=STEP):
    return association.send_n_set(ds, MPPS.uid, uid)[0].Status


def verdict(engine, at, study=STUDY):
    with reading(engine) as conn:
        return expected.verdict(conn, study, at)


def told(engine, study=STUDY):
    with reading(engine) as conn:
        return [(one.source, one.state, set(one.refs)) for one in expected.notices(conn, study)]


def test_a_step_holds_its_study_open_until_it_ends_and_names_its_images(engine, serve, clock):
    modality = serve()
    assert create(modality, begun()) == 0x0000
    assert verdict(engine, clock()) == "hold"
    assert verdict(engine, clock() + timedelta(seconds=900)) == "wait"
    assert update(modality, ended("1.2.3.1.1", state="IN PROGRESS")) == 0x0000
    assert told(engine) == [("mpps", "open", {"1.2.3.1.1"})]
    assert update(modality, ended("1.2.3.1.1", "1.2.3.1.2")) == 0x0000
    assert told(engine) == [("mpps", "complete", {"1.2.3.1.1", "1.2.3.1.2"})]
    with reading(engine) as conn:
        assert "SECRET" not in str(conn.execute(select(schema.expected)).all())


@pytest.mark.parametrize("state", ["COMPLETED", "DISCONTINUED"])
def test_a_step_that_ends_without_images_holds_nothing(engine, serve, clock, state):
    modality = serve()
    create(modality, begun())
    assert update(modality, ended(state=state)) == 0x0000
    assert verdict(engine, clock()) == "wait"
    assert update(modality, ended("1.2.3.1.1")) == 0x0110


def test_a_step_for_two_studies_holds_both_and_completes_neither(engine, serve, clock):
    modality = serve()
    create(modality, begun(STUDY, OTHER_STUDY))
    assert (verdict(engine, clock()), verdict(engine, clock(), OTHER_STUDY)) == ("hold", "hold")
    update(modality, ended("1.2.3.1.1"))
    assert (verdict(engine, clock()), verdict(engine, clock(), OTHER_STUDY)) == ("wait", "wait")


def test_a_notice_names_the_images_of_a_study_but_not_what_is_no_image(engine, serve):
    archive = serve()
    assert create(archive, available("1.2.3.1.1"), sop_class=IAN.uid) == 0x0000
    assert create(archive, available("1.2.3.1.9", sop_class=BASIC_TEXT), "2.25.78", IAN.uid) == 0x0000
    assert told(engine) == [("ian", "complete", {"1.2.3.1.1"}), ("ian", "complete", set())]


def _without(ds, keyword):
    delattr(ds, keyword)
    return ds


@pytest.mark.parametrize(
    ("ds", "sop_class", "status"),
    [
        (begun(state="COMPLETED"), MPPS.uid, 0x0106),
        (begun(state="NONSENSE"), MPPS.uid, 0x0106),
        (_without(begun(), "PerformedProcedureStepStatus"), MPPS.uid, 0x0120),
        (_without(begun(), "ScheduledStepAttributesSequence"), MPPS.uid, 0x0120),
        (begun("1.2.x"), MPPS.uid, 0x0106),
        (_without(available("1.2"), "StudyInstanceUID"), IAN.uid, 0x0120),
        (_without(available("1.2"), "ReferencedSeriesSequence"), IAN.uid, 0x0120),
        (available(*(f"1.{n}" for n in range(1, MOST_IMAGES + 1000))), IAN.uid, 0x0213),
        (available(*(f"2.25.{10**30 + n}" for n in range(8000))), IAN.uid, 0x0213),
    ],
)
def test_what_is_no_notice_is_refused_changes_nothing_and_the_association_goes_on(
    engine, serve, ds, sop_class, status
):
    peer = serve()
    assert create(peer, ds, sop_class=sop_class) == status
    assert told(engine) == []
    assert peer.send_c_echo().Status == 0x0000


def test_a_second_beginning_and_an_end_without_one_are_refused(serve):
    modality = serve()
    assert update(modality, ended("1.2.3.1.1")) == 0x0112
    assert create(modality, begun()) == 0x0000
    assert create(modality, begun()) == 0x0111
    assert create(modality, available("1.2"), "2.25.5", IAN.uid) == 0x0000
    assert create(modality, available("1.2"), "2.25.5", IAN.uid) == 0x0111


def test_what_cannot_be_recorded_is_refused_for_now(serve):
    assert create(serve(Away()), begun()) == 0x0213


def test_a_peer_may_be_kept_to_other_services_and_off_is_off(serve):
    assert {one.abstract_syntax for one in serve(services=[]).accepted_contexts} == {"1.2.840.10008.1.1"}
    only = serve(peers=[{"ae_title": "CR1", "sop_classes": ["MPPS"]}])
    assert {one.abstract_syntax for one in only.accepted_contexts} == {"1.2.840.10008.1.1", MPPS.uid}
