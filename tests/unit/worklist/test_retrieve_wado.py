"""What becomes of a fetch by WADO-RS when the archive's answer is broken, hostile, or says that it will not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicom_node.deliver import web
from dicom_node.deliver.association import associated
from dicom_node.domain.errors import DestinationAwayError, DestinationRefusedError, NotOfferedError
from dicom_node.domain.retrieval import Archive, Fetch, Fetched
from dicom_node.domain.security import ClientSecurity
from dicom_node.pipeline.intake import IntoFolder
from dicom_node.worklist import query_web
from dicom_node.worklist.retrieve import Retrieve
from tests.fakes import ManualClock
from tests.peers import CR, write_image

STUDY, SERIES = "1.2.3", "1.2.3.4"
Answer = tuple[int, str, bytes]
KIND = 'multipart/related; type="application/dicom"; boundary=b0'


def _body(*contents: bytes) -> bytes:
    return b"".join(b"--b0\r\n\r\n" + content + b"\r\n" for content in contents) + b"--b0--"


@contextmanager
def archive(answers: Callable[[str, Any], Answer], **more: Any) -> Iterator[Archive]:
    """Run an archive that answers a path and headers in this way."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = answers(self.path, self.headers)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if status in (301, 302):
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/dicom-web"
        yield Archive("vna", "", "127.0.0.1", server.server_port, how="wado", url=url, timeout=5.0, **more)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Here:
    def __init__(self, folder: Path, largest: int = 10**8) -> None:
        self.into = IntoFolder(folder, lambda: None, largest, ManualClock())
        connect = partial(associated, calling_ae_title="NODE", maximum_pdu_size=131_072)
        self.fetch = Retrieve(connect, web.connected, self.into, ("1.2.840.10008.1.2.1",))


@pytest.fixture
def here(tmp_path: Path) -> Here:
    (tmp_path / "here").mkdir()
    return Here(tmp_path / "here")


def _images(folder: Path, count: int, study: str = STUDY) -> dict[str, bytes]:
    found = {}
    for number in range(count):
        path = folder / f"{study}-{number}.dcm"
        uid = f"{study}.4.{number}"
        write_image(path, sop_instance_uid=uid, study_instance_uid=study, SeriesInstanceUID=SERIES)
        found[uid] = path.read_bytes()
    return found


def _listed(*uids: str) -> bytes:
    rows = [
        {
            "0020000E": {"vr": "UI", "Value": [SERIES]},
            "00080018": {"vr": "UI", "Value": [uid]},
            "00080016": {"vr": "UI", "Value": [CR]},
        }
        for uid in uids
    ]
    return json.dumps(rows).encode()


def _serves(images: dict[str, bytes], body: bytes, kind: str = KIND) -> Callable[[str, Any], Answer]:
    def answer(path: str, _headers: Any) -> Answer:
        if "/instances" in path and "?" in path:
            return 200, "application/dicom+json", _listed(*images)
        return 200, kind, body

    return answer


def test_the_parts_go_in_with_their_bytes_as_sent(here: Here, tmp_path: Path) -> None:
    images = _images(tmp_path, 3)
    with archive(_serves(images, _body(*images.values()))) as peer:
        assert here.fetch(peer, Fetch(STUDY)) == Fetched(3, 0, 3)
    for uid, path in here.into.files(STUDY).items():
        assert dcmread(path) == dcmread(path.parents[1] / f"{uid.replace('.4.', '-')}.dcm")


def test_a_body_cut_off_keeps_what_came_whole_and_is_tried_again(here: Here, tmp_path: Path) -> None:
    images = _images(tmp_path, 2)
    body = _body(*images.values())
    with (
        archive(_serves(images, body[: len(body) * 3 // 4])) as peer,
        pytest.raises(DestinationAwayError, match="ends before its last boundary; 1 images were taken"),
    ):
        here.fetch(peer, Fetch(STUDY))
    assert len(here.into.files(STUDY)) == 1
    assert len(list((tmp_path / "here").iterdir())) == 1


def test_an_image_of_another_study_is_refused(here: Here, tmp_path: Path) -> None:
    images = _images(tmp_path, 1)
    stranger = _images(tmp_path, 1, study="9.9")
    with archive(_serves(images, _body(*stranger.values(), *images.values()))) as peer:
        assert here.fetch(peer, Fetch(STUDY)) == Fetched(1, 0, 1)
    assert set(here.into.files(STUDY)) == set(images)


def test_a_part_that_is_no_dicom_and_one_that_is_too_large_fail_alone(tmp_path: Path) -> None:
    images = _images(tmp_path, 1)
    (tmp_path / "large").mkdir()
    write_image(tmp_path / "large.dcm", study_instance_uid=STUDY, size=(300, 300))
    large = (tmp_path / "large.dcm").read_bytes()
    here = Here(tmp_path / "large", largest=100_000)
    with archive(_serves(images, _body(b"<html>" * 100, large, *images.values()))) as peer:
        assert here.fetch(peer, Fetch(STUDY)) == Fetched(1, 0, 1)
    assert set(here.into.files(STUDY)) == set(images)


def test_a_page_instead_of_images_is_understood(here: Here, tmp_path: Path) -> None:
    images = _images(tmp_path, 1)
    with (
        archive(_serves(images, b"<html>login</html>", "text/html")) as peer,
        pytest.raises(DestinationAwayError, match="no multipart body"),
    ):
        here.fetch(peer, Fetch(STUDY))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, DestinationAwayError),
        (503, DestinationAwayError),
        (400, DestinationRefusedError),
        (302, DestinationRefusedError),
    ],
)
def test_an_archive_that_will_not_says_whether_to_try_again(
    here: Here, status: int, error: type[Exception]
) -> None:
    with archive(lambda _path, _headers: (status, "text/plain", b"")) as peer, pytest.raises(error):
        here.fetch(peer, Fetch(STUDY))


def test_a_url_without_such_a_service_is_told(here: Here) -> None:
    with archive(lambda _path, _headers: (404, "text/plain", b"")) as peer, pytest.raises(NotOfferedError):
        here.fetch.find(peer, {"StudyInstanceUID": STUDY})


def test_nobody_is_asked_without_the_token(here: Here, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n", encoding="ascii")
    (tmp_path / "token").chmod(0o600)
    asked: list[str] = []

    def answer(_path: str, headers: Any) -> Answer:
        asked.append(headers["Authorization"])
        return 200, "application/dicom+json", b"[]"

    security = ClientSecurity(token_file=tmp_path / "token")
    with archive(answer, security=security) as peer:
        assert here.fetch.find(peer, {"PatientID": "1"}) == ([], False)
    assert asked == ["Bearer secret"]


@pytest.mark.parametrize("body", [b"{}", b"[1]", b"nonsense", b"[" * 5000])
def test_answers_that_are_no_dicom_json_are_told(here: Here, body: bytes) -> None:
    with (
        archive(lambda _path, _headers: (200, "application/dicom+json", body)) as peer,
        pytest.raises(DestinationAwayError, match="no DICOM JSON"),
    ):
        here.fetch.find(peer, {})


@pytest.mark.parametrize("value", [{}, 1, None, ["../x"], [None], [["1.2"]]])
def test_rows_that_name_no_study_are_left_out(here: Here, value: object) -> None:
    body = json.dumps([{"0020000D": {"Value": value}}, {"0020000D": {"Value": ["1.2.3"]}}]).encode()
    with archive(lambda _path, _headers: (200, "application/dicom+json", body)) as peer:
        (found,), more = here.fetch.find(peer, {})
    assert (found.study_instance_uid, more) == ("1.2.3", False)


def test_an_answer_without_an_end_is_not_gathered(here: Here) -> None:
    body = b" " * (query_web.LARGEST_ANSWER + 1)
    with (
        archive(lambda _path, _headers: (200, "application/dicom+json", body)) as peer,
        pytest.raises(DestinationRefusedError, match="more than 33554432 bytes"),
    ):
        here.fetch.find(peer, {})
