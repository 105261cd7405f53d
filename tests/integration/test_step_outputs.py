"""A completed step lists what was made, and where it can be had: only where somebody confirmed to have it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import Engine

from dicom_node.config import Web
from dicom_node.db.engine import reading, writing
from dicom_node.domain.types import Delivery
from dicom_node.node.stepping import own_dicomweb
from dicom_node.report import profile
from dicom_node.store import objects, reports
from dicom_node.store.reports import StoredReport
from tests.fakes import scored
from tests.integration.test_display_objects import COLUMNS, IODS, KINDS, ROWS, explanation
from tests.phantoms import chest_dataset
from tests.workflow import STUDY, Manager, Provider, asked

BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"


@pytest.fixture
def provider(engine: Engine, tmp_path: Path) -> Iterator[Provider]:
    made = Provider(engine, tmp_path / "store", KINDS)
    made.site.judge = partial(scored, percentile=99.0, above=True)
    made.site.explain = explanation
    with made.scp:
        yield made


def finish(provider: Provider) -> StoredReport:
    """Have the study analysed, and delivered to "pacs", objects and all, and to "vna"."""
    provider.site.receive(
        chest_dataset(shape=(ROWS, COLUMNS), StudyInstanceUID=STUDY, SOPInstanceUID="2.25.99")
    )
    provider.site.associations.ended("a", "released")
    provider.complete()
    provider.site.work()
    with reading(provider.site.engine) as conn:
        (report,) = reports.of_study(conn, STUDY)
    return report


def outputs(manager: Manager) -> list[Dataset]:
    return list(manager.get().UnifiedProcedureStepPerformedProcedureSequence[0].OutputInformationSequence)


def titles(item: Dataset) -> list[str]:
    places = [place.RetrieveAETitle for place in item.get("DICOMRetrievalSequence", [])]
    return [title for place in places for title in ([place] if isinstance(place, str) else place)]


def test_the_report_and_every_display_object_are_listed_with_who_confirmed_to_have_them(provider, manager):
    manager.create(asked())
    report = finish(provider)
    sent = outputs(manager)
    listed = [item.ReferencedSOPSequence[0].ReferencedSOPClassUID for item in sent]
    assert listed[0] == report.sop_class_uid
    assert set(listed[1:]) == set(IODS)
    assert all(len(item.ReferencedSOPSequence) == 1 and item.StudyInstanceUID == STUDY for item in sent)
    assert [titles(item) for item in sent] == [[]] * 5, "delivered, and confirmed by nobody"
    now = provider.site.clock()
    with writing(provider.site.engine) as conn:
        reports.confirm_delivery(conn, report.sop_instance_uid, "vna", "unconfirmed", now)
        reports.confirm_delivery(conn, report.sop_instance_uid, "pacs", "committed", now)
    assert [titles(item) for item in outputs(manager)] == [["PACS"], [], [], [], []]
    with writing(provider.site.engine) as conn:
        objects.settle(conn, report.sop_instance_uid, "pacs", "committed", now)
    assert [titles(item) for item in outputs(manager)] == [["PACS"]] * 5
    with writing(provider.site.engine) as conn:
        reports.confirm_delivery(conn, report.sop_instance_uid, "vna", "found", now)
    assert titles(outputs(manager)[0]) == ["PACS", "VNA"]
    del provider.site.destinations["pacs"]
    assert titles(outputs(manager)[0]) == ["VNA"], "an archive that is no longer configured is not named"


def test_a_report_that_a_destination_has_in_another_form_is_listed_in_that_form(provider, manager):
    manager.create(asked())
    report = finish(provider)
    now = provider.site.clock()
    with writing(provider.site.engine) as conn:
        reports.withdraw_delivery(conn, report.sop_instance_uid, "vna", "sent again in another form", now)
        reports.record_delivery(
            conn, Delivery("vna", report.sop_instance_uid, 0, "", sent_as=BASIC_TEXT_SR), now
        )
        reports.confirm_delivery(conn, report.sop_instance_uid, "vna", "found", now)
    own, basic, *_ = outputs(manager)
    assert (own.ReferencedSOPSequence[0].ReferencedSOPClassUID, titles(own)) == (report.sop_class_uid, [])
    reference = basic.ReferencedSOPSequence[0]
    assert (reference.ReferencedSOPClassUID, titles(basic)) == (BASIC_TEXT_SR, ["VNA"])
    assert reference.ReferencedSOPInstanceUID == profile.cut_uid(report.sop_instance_uid, BASIC_TEXT_SR)


def test_a_dicomweb_archive_and_this_nodes_own_are_named_by_the_address_of_each_object(engine, tmp_path):
    provider = Provider(engine, tmp_path / "store", own="https://node.example/dicomweb")
    provider.site.destinations["vna"] = replace(
        provider.site.destinations["vna"], kind="stow", url="https://vna.example/rs/"
    )
    with provider.scp:
        manager = Manager(provider.scp.address)
        manager.create(asked())
        report = finish(provider)
        with writing(engine) as conn:
            reports.confirm_delivery(conn, report.sop_instance_uid, "vna", "found", provider.site.clock())
        (item,) = outputs(manager)
        manager.association.release()
    path = f"/studies/{STUDY}/series/{report.series_instance_uid}/instances/{report.sop_instance_uid}"
    assert [place.RetrieveURL for place in item.WADORSRetrievalSequence] == [
        f"https://vna.example/rs{path}",
        f"https://node.example/dicomweb{path}",
    ]
    assert titles(item) == []


def test_this_nodes_own_dicomweb_is_named_only_where_its_address_is_sure(tmp_path):
    files = {"enabled": True, "certificate": tmp_path / "c.pem", "private_key": tmp_path / "k.pem"}
    sure = {"enabled": True, "port": 8443, "base_path": "/node", "host_names": ["node.example"], "tls": files}

    def address(**changes: object) -> str:
        return own_dicomweb(Web.model_validate({**sure, **changes}))

    assert address() == "https://node.example:8443/node/dicomweb"
    assert address(port=443) == "https://node.example/node/dicomweb"
    for unsure in ({"enabled": False}, {"host_names": []}, {"tls": {}}, {"trusted_proxies": ["10.0.0.1"]}):
        assert address(**unsure) == ""
