"""DICOMweb of the node's own results, asked by dicomweb-client over HTTP, and by hand where that is too polite."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import uvicorn
from dicomweb_client.api import DICOMwebClient
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from dicom_node.domain.audit import StudiesListed, StudyAccessed
from dicom_node.report import text
from tests.desks import Desk, application, client
from tests.integration.test_pipeline import Site
from tests.phantoms import chest_dataset

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

SR = "1.2.840.10008.5.1.4.1.1.88.34"


@pytest.fixture
def desk(engine: Engine, tmp_path: Path) -> Iterator[Desk]:
    """Return the desk of a site with two answered studies."""
    site = Site(engine, tmp_path / "store")
    for number, name in ((1, "Yamada^Tarou=山田^太郎"), (2, "Doe^Jane")):
        site.receive(
            chest_dataset(
                seed=number,
                StudyInstanceUID=f"2.25.{number}1",
                SOPInstanceUID=f"2.25.{number}2",
                SpecificCharacterSet="ISO_IR 192",
                PatientName=name,
                PatientID=f"P{number}",
                StudyDate=f"2026010{number}",
            ),
            association=str(number),
        )
        site.associations.ended(str(number), "released")
    site.clock.forward(6)
    site.gather()
    site.work()
    made = Desk(site.engine, site.files, site.clock)
    yield made
    made.desk.close()


@pytest.fixture
def web(desk: Desk) -> TestClient:
    return client(desk.desk, "viewer")


@pytest.fixture
def foreign(desk: Desk) -> Iterator[DICOMwebClient]:
    """Return dicomweb-client, connected to the application on a port of its own."""
    server = uvicorn.Server(uvicorn.Config(application(desk.desk), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    started = threading.Event()
    startup = server.startup

    async def told(sockets: object = None) -> None:
        await startup()
        started.set()

    server.startup = told  # type: ignore[method-assign]
    thread.start()
    assert started.wait(20)
    port = server.servers[0].sockets[0].getsockname()[1]
    session = requests.Session()
    session.headers["X-Role"] = "viewer"
    yield DICOMwebClient(f"http://127.0.0.1:{port}/dicomweb", session=session)
    server.should_exit = True
    thread.join()


def test_a_viewer_finds_and_fetches_a_report(foreign: DICOMwebClient, desk: Desk) -> None:
    (study,) = foreign.search_for_studies(search_filters={"PatientID": "P1"})
    assert study["0020000D"]["Value"] == ["2.25.11"]
    assert study["00100010"]["Value"] == [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}]
    assert (study["00080061"]["Value"], study["00201208"]["Value"]) == (["SR"], [1])
    (one,) = foreign.search_for_instances("2.25.11")
    assert one["00080016"]["Value"] == [SR]
    (report,) = foreign.retrieve_study("2.25.11")
    assert text.facts(report)["verdict"] == "below threshold"
    series = one["0020000E"]["Value"][0]
    again = foreign.retrieve_instance("2.25.11", series, one["00080018"]["Value"][0])
    assert again.SOPInstanceUID == report.SOPInstanceUID
    assert [
        len(part) for part in (foreign.retrieve_series("2.25.11", series), foreign.search_for_series())
    ] == [1, 2]
    uid = one["00080018"]["Value"][0]
    (told,) = foreign.retrieve_study_metadata("2.25.11")
    assert foreign.retrieve_series_metadata("2.25.11", series) == [told]
    assert foreign.retrieve_instance_metadata("2.25.11", series, uid) == told
    assert told["00080018"]["Value"] == [report.SOPInstanceUID]
    assert "0040A730" in told
    assert {type(event) for event in desk.audited} == {StudiesListed, StudyAccessed}


def test_a_viewer_pages_through_what_there_is(foreign: DICOMwebClient) -> None:
    pages = [foreign.search_for_studies(limit=1, offset=offset) for offset in range(3)]
    assert [len(page) for page in pages] == [1, 1, 0]
    everything = foreign.search_for_studies(limit=1, get_remaining=True)
    assert {one["0020000D"]["Value"][0] for one in everything} == {"2.25.11", "2.25.21"}
    (series,) = foreign.search_for_series(
        "2.25.11", fields=["SeriesDescription"], search_filters={"Modality": "SR"}
    )
    uid = series["0020000E"]["Value"][0]
    (instance,) = foreign.search_for_instances("2.25.11", uid)
    url = instance["00081190"]["Value"][0]
    assert url.endswith(f"/studies/2.25.11/series/{uid}/instances/{instance['00080018']['Value'][0]}")
    assert [one.SOPInstanceUID for one in foreign.iter_series("2.25.11", uid)] == [url.rpartition("/")[2]]
    assert not foreign.search_for_instances("2.25.99")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", 2),
        ("PatientName=doe*", 1),
        ("PatientName=山田*", 1),
        ("PatientName=" + "*a" * 100 + "*b", 0),
        ("00100020=P?", 2),
        ("StudyDate=20260102-", 1),
        ("StudyDate=-20260101", 1),
        ("StudyDate=20260101-20260102", 2),
        ("StudyInstanceUID=2.25.11,2.25.21", 2),
        ("ModalitiesInStudy=CR", 0),
        ("ModalitiesInStudy=SR", 2),
        ("limit=1", 1),
        ("offset=1", 1),
        ("includefield=all", 2),
    ],
)
def test_a_query_finds_what_meets_it(web: TestClient, query: str, found: int) -> None:
    answer = web.get(f"/dicomweb/studies?{query}")
    assert answer.headers["content-type"] == "application/dicom+json"
    assert len(answer.json()) == found


def test_each_query_is_told_of_once(web: TestClient, desk: Desk) -> None:
    for _ in range(3):
        for name in ("doe*", "yamada*"):
            web.get(f"/dicomweb/studies?PatientName={name}")
    assert [type(event) for event in desk.audited] == [StudiesListed, StudiesListed]
    assert "doe" not in repr(desk.audited)


def test_a_damaged_report_holds_up_no_query_for_others(web: TestClient, desk: Desk) -> None:
    damaged = next(one for one in desk.desk.results() if one.study_instance_uid == "2.25.11")
    desk.files.report_path(damaged.digest).write_bytes(b"damaged")
    assert [one["0020000D"]["Value"] for one in web.get("/dicomweb/studies?PatientName=doe*").json()] == [
        ["2.25.21"]
    ]
    (one,) = web.get("/dicomweb/studies/2.25.11/instances").json()
    assert one["00080018"]["Value"] == [damaged.sop_instance_uid]
    assert "00100010" not in one
    assert "is damaged" in web.get("/dicomweb/studies/2.25.11").json()["detail"]


def test_what_is_left_out_and_what_is_not_done_is_said(web: TestClient) -> None:
    assert "1 additional results" in web.get("/dicomweb/studies?limit=1").headers["warning"]
    assert "fuzzymatching" in web.get("/dicomweb/studies?fuzzymatching=true").headers["warning"]
    assert "warning" not in web.get("/dicomweb/studies").headers


@pytest.mark.parametrize(
    "query",
    ["limit=-1", "limit=x", "Smith^John=1", "fuzzymatching=1", "PatientID=1&PatientID=2", "includefield=<b>"],
)
def test_a_query_that_is_not_valid_is_a_problem_that_repeats_no_value(web: TestClient, query: str) -> None:
    answer = web.get(f"/dicomweb/studies?{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert "Smith" not in answer.text


@pytest.mark.parametrize(
    ("path", "accept", "status"),
    [
        ("studies/2.25.99", "*/*", 404),
        ("studies/2.25.12", "*/*", 404),
        ("studies/2.25.11/series/2.25.9/metadata", "*/*", 404),
        ("studies/2.25.11", "image/jpeg", 406),
        (
            "studies/2.25.11",
            'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.50',
            406,
        ),
        ("studies/2.25.11/metadata", "application/dicom+xml", 406),
        ("studies", 'multipart/related; type="application/dicom+xml"', 406),
        ("studies/..", "*/*", 404),
        ("studies/1..2", "*/*", 422),
    ],
)
def test_what_cannot_be_given_is_refused(web: TestClient, path: str, accept: str, status: int) -> None:
    assert web.get(f"/dicomweb/{path}", headers={"Accept": accept}).status_code == status


def test_nobody_without_a_role_gets_a_result(desk: Desk) -> None:
    nobody = client(desk.desk, "")
    for path in ("studies", "studies/2.25.11", "studies/2.25.11/metadata", "instances"):
        assert nobody.get(f"/dicomweb/{path}").status_code == 401
