"""The JSON API over a real database, store and desk: what a program is told, and what it may order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from dicom_node.domain.audit import Administered, AuditOutcome, StudiesListed, StudyAccessed
from tests.desks import Desk, client
from tests.integration.test_pipeline import Site
from tests.phantoms import chest_dataset

HOSTILE = "<script>alert(1)</script>^\u202eNafa\x07"


@pytest.fixture
def site(engine: Engine, tmp_path: Path) -> Site:
    """Return a site with one answered study of a hostile patient."""
    made = Site(engine, tmp_path / "store")
    ds = chest_dataset(
        seed=1,
        StudyInstanceUID="2.25.11",
        SOPInstanceUID="2.25.12",
        SpecificCharacterSet="ISO_IR 192",
        PatientName=HOSTILE,
        PatientID="P7",
        AccessionNumber="A7",
    )
    made.receive(ds)
    made.pass_quiet_time()
    made.work()
    return made


@pytest.fixture
def desk(site: Site) -> Iterator[Desk]:
    made = Desk(site.engine, site.files, site.clock)
    yield made
    made.desk.close()


@pytest.fixture
def api(desk: Desk) -> TestClient:
    return client(desk.desk)


def test_the_list_tells_of_a_study_and_the_trail_of_who_saw_it(api: TestClient, desk: Desk) -> None:
    answer = api.get("/api/v1/studies")
    assert answer.status_code == 200
    (row,) = answer.json()["rows"]
    assert (row["study_instance_uid"], row["verdict"], row["percentile"]) == (
        "2.25.11",
        "below threshold",
        40.0,
    )
    assert row["threshold_percentile"] == 92.0
    assert [one["state"] for one in row["deliveries"]] == ["sent", "sent"]
    assert (row["progress"], row["waiting_seconds"], answer.json()["total"]) == ("answered", None, 1)
    assert [type(event) for event in desk.audited] == [StudiesListed]


def test_a_hostile_name_comes_without_control_characters_and_is_not_changed_otherwise(api: TestClient) -> None:
    (row,) = api.get("/api/v1/studies").json()["rows"]
    assert row["patient"]["name"] == "<script>alert(1)</script>, Nafa"


@pytest.mark.parametrize(
    "query",
    [
        "verdict=above threshold",
        "progress=failed",
        "mark=normal",
        "delivery=failed",
        "modality=CR",
        "minimum_percentile=41",
    ],
)
def test_a_filter_that_the_study_does_not_meet_leaves_it_out(api: TestClient, query: str) -> None:
    assert api.get(f"/api/v1/studies?{query}").json() == {"rows": [], "total": 0, "note": ""}


@pytest.mark.parametrize(
    "query",
    [
        "verdict=below threshold&verdict=failed",
        "progress=answered",
        "mark=",
        "destination=pacs&delivery=sent",
        "modality=DX",
        "minimum_percentile=40",
        "order=unusual",
        "order=urgent",
    ],
)
def test_a_filter_that_the_study_meets_shows_it(api: TestClient, query: str) -> None:
    assert api.get(f"/api/v1/studies?{query}").json()["total"] == 1


@pytest.mark.parametrize("term", ["nafa", "SCRIPT", "p7", "A7", "2.25.1"])
def test_a_search_finds_a_patient_by_name_and_by_the_beginning_of_an_identifier(
    api: TestClient, term: str
) -> None:
    assert api.post("/api/v1/studies/search", json={"search": term}).json()["total"] == 1


def test_a_search_for_somebody_else_finds_nobody(api: TestClient) -> None:
    assert api.post("/api/v1/studies/search", json={"search": "7"}).json()["total"] == 0


def test_a_study_is_told_whole(api: TestClient, desk: Desk) -> None:
    told = api.get("/api/v1/studies/2.25.11").json()
    (image,) = told["images"]
    assert (image["view"], image["rows"], image["decisive"]) == ("PA", 192, True)
    assert image["windows"] == [{"centre": 2048.0, "width": 4096.0, "function": "LINEAR", "name": "all"}]
    assert [one["why"] for one in told["history"]] == ["images"]
    assert {one["destination"] for one in told["destinations"]} == {"pacs", "vna"}
    assert {one["kind"] for one in told["events"]} >= {"instance.stored", "report.stored"}
    assert [type(event) for event in desk.audited] == [StudyAccessed]


def test_the_report_is_read_as_text_what_it_concludes_first(api: TestClient) -> None:
    told = api.get("/api/v1/studies/2.25.11/report").json()
    assert told["text"].split("\n")[2].startswith("More unusual than 40 % of this site's normal chests")


def test_a_study_that_is_not_here_is_a_problem_with_its_uid(api: TestClient) -> None:
    answer = api.get("/api/v1/studies/2.25.99")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["detail"] == "study 2.25.99 is not held here"


def test_what_is_not_valid_is_told_without_repeating_it(api: TestClient) -> None:
    answer = api.post("/api/v1/studies/search", json={"search": "x" * 300, "order": "Smith"})
    assert answer.status_code == 422
    assert "order" in answer.json()["detail"]
    assert "Smith" not in answer.text
    assert "xxx" not in answer.text


@pytest.mark.parametrize(
    "path", ["/api/v1/studies/1..2", "/api/v1/images/1.a/thumbnail", "/api/v1/images/1.2/everything"]
)
def test_an_address_that_names_nothing_is_refused(api: TestClient, path: str) -> None:
    assert api.get(path).status_code == 422


def test_a_mark_is_kept_and_told_to_the_trail(api: TestClient, desk: Desk) -> None:
    assert api.put("/api/v1/studies/2.25.11/mark", json={"mark": "abnormal"}).status_code == 204
    assert api.get("/api/v1/studies?mark=abnormal").json()["rows"][0]["mark"] == "abnormal"
    told = desk.audited[0]
    assert isinstance(told, Administered)
    assert (told.by, told.action, told.study_instance_uid) == ("a admin", "worklist mark", "2.25.11")
    assert told.address == "testclient"
    assert api.put("/api/v1/studies/2.25.11/mark", json={"mark": "clear"}).status_code == 204
    assert api.get("/api/v1/studies?mark=").json()["rows"][0]["mark"] == ""


def test_an_order_that_cannot_be_done_is_refused_with_its_reason(api: TestClient, desk: Desk) -> None:
    (row,) = api.post("/api/v1/orders/retry", json={"items": [1]}).json()
    assert (row["became"], row["study_instance_uid"]) == ("refused", "2.25.11")
    assert "COMPLETED" in row["reason"]
    assert [event.outcome for event in desk.audited if isinstance(event, Administered)] == [
        AuditOutcome.SERIOUS_FAILURE
    ]
    assert api.put("/api/v1/studies/2.25.11/priority", json={"priority": "STAT"}).status_code == 409
    assert api.post("/api/v1/orders/rerun", json={"studies": ["2.25.11"]}).status_code == 409


def test_a_study_that_waits_gets_another_priority_and_stands_first(api: TestClient, site: Site) -> None:
    site.receive(chest_dataset(seed=2, StudyInstanceUID="2.25.21", SOPInstanceUID="2.25.22"), association="b")
    site.associations.ended("b", "released")
    site.clock.forward(6)
    site.gather()
    site.receive(chest_dataset(seed=3, StudyInstanceUID="2.25.31", SOPInstanceUID="2.25.32"), association="c")
    (row,) = api.put("/api/v1/studies/2.25.21/priority", json={"priority": "STAT"}).json()
    assert row["became"] == "priority STAT"
    rows = api.get("/api/v1/studies?order=urgent").json()["rows"]
    assert (rows[0]["study_instance_uid"], rows[0]["priority"]) == ("2.25.21", 1)
    assert [one["progress"] for one in rows] == ["queued", "arriving", "answered"]
    assert api.get("/api/v1/studies").json()["rows"][0]["study_instance_uid"] == "2.25.31"


@pytest.mark.parametrize(
    ("role", "method", "path", "body", "status"),
    [
        ("", "GET", "/api/v1/studies", None, 401),
        ("viewer", "GET", "/api/v1/banks", None, 200),
        ("viewer", "POST", "/api/v1/orders/retry", {"items": [1]}, 403),
        ("viewer", "PUT", "/api/v1/studies/2.25.11/mark", {"mark": "normal"}, 403),
        ("operator", "PUT", "/api/v1/studies/2.25.11/mark", {"mark": "normal"}, 204),
        ("operator", "POST", "/api/v1/banks/rollback", None, 403),
        ("admin", "POST", "/api/v1/banks/nothing/activate", None, 409),
    ],
)
def test_each_order_needs_its_role(
    desk: Desk, role: str, method: str, path: str, body: dict[str, object] | None, status: int
) -> None:
    assert client(desk.desk, role).request(method, path, json=body).status_code == status


def test_the_node_tells_of_its_traffic_and_peers(api: TestClient) -> None:
    told = api.get("/api/v1/node").json()
    assert [(one["modality"], one["calling_ae_title"], one["images"]) for one in told["traffic"]] == [
        ("DX", "CR1", 1)
    ]
    assert {(one["kind"], one["name"], one["state"]) for one in told["peers"]} == {
        ("sender", "CR1", "ok"),
        ("destination", "pacs", "ok"),
        ("destination", "vna", "ok"),
    }
    assert told["free_bytes"] > 0
