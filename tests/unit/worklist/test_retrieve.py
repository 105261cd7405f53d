"""What becomes of a fetch when an archive fails: every fault is understood; nothing comes in that nobody asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import P_DATA

from dicom_node.deliver import web
from dicom_node.deliver.association import associated
from dicom_node.domain.errors import (
    DestinationAwayError,
    DestinationRefusedError,
    NotOfferedError,
    OutOfResourcesError,
)
from dicom_node.domain.retrieval import Fetch, Fetched
from dicom_node.pipeline.intake import IntoFolder
from dicom_node.worklist import query
from dicom_node.worklist.retrieve import Retrieve
from tests.fakes import ManualClock
from tests.peers import free_port
from tests.scripted_archive import CT, FIND, GET, MOVE, STUDY, Script, image, running

SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
CONNECT = partial(associated, calling_ae_title="NODE", maximum_pdu_size=131_072)


class Here:
    """A place that images are fetched to."""

    def __init__(self, folder: Path, admit: Callable[[], None] = lambda: None, largest: int = 10**8) -> None:
        self.folder = folder
        self.into = IntoFolder(folder, admit, largest, ManualClock())
        self.here: set[str] = set()
        self.waited = 0.0
        self.fetch = Retrieve(CONNECT, web.connected, self.into, SYNTAXES, pause=self._pause)

    def _pause(self, seconds: float) -> None:
        self.waited += seconds

    def moves(self) -> Retrieve:
        return replace(self.fetch, ae_title="NODE", held=lambda _study: frozenset(self.here))

    @property
    def kept(self) -> set[str]:
        files = self.into.files(STUDY)
        assert {path.name for path in self.folder.iterdir()} == {path.name for path in files.values()}
        return set(files)


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def _uids(*images: Dataset) -> set[str]:
    return {str(one.SOPInstanceUID) for one in images}


def test_an_image_that_the_archive_cannot_send_counts_as_failed_and_the_rest_is_here(here: Here) -> None:
    good, bad = image(1), image(2)
    broken = image(2, SOPClassUID=CT)  # no context for it was accepted
    script = Script([good, broken], listed=[good, bad])
    with running(script) as archive:
        fetched = here.fetch(archive, Fetch(STUDY))
    assert (fetched.stored, fetched.failed, fetched.expected, fetched.complete) == (1, 1, 2, False)
    assert "did not bring 1 of 2 images; it answered 0xB000" in fetched.reason
    assert here.kept == _uids(good)


def test_half_the_images_without_a_word_of_failure_is_not_complete(here: Here) -> None:
    script = Script([image(1)], listed=[image(1), image(2)])
    with running(script) as archive:
        fetched = here.fetch(archive, Fetch(STUDY))
    assert (fetched.stored, fetched.failed, fetched.expected) == (1, 1, 2)
    assert "it says that it sent 1" in fetched.reason


def test_an_association_lost_in_the_middle_is_tried_again_and_only_the_rest_is_fetched(here: Here) -> None:
    script = Script([image(1), image(2)], abort_after=1)
    with running(script) as archive:
        with pytest.raises(DestinationAwayError, match="1 images were taken before that"):
            here.fetch(archive, Fetch(STUDY))
        assert here.kept == _uids(image(1))
        script.abort_after = None
        again = replace(here.fetch, held=lambda _study: frozenset(here.kept))
        script.sends.pop(0)
        script.listed = [image(1), image(2)]
        assert again(archive, Fetch(STUDY)) == Fetched(2, 0, 2)
    asked = script.asked[-1][1]
    assert (asked.QueryRetrieveLevel, asked.SOPInstanceUID) == ("IMAGE", image(2).SOPInstanceUID)


@pytest.mark.parametrize(
    ("status", "error"),
    [(0xA702, DestinationAwayError), (0xC001, DestinationAwayError), (0xA900, DestinationRefusedError)],
)
def test_a_retrieval_that_fails_as_a_whole_says_whether_to_try_again(
    here: Here, status: int, error: type[Exception]
) -> None:
    with (
        running(Script([image(1)], get_fails=status)) as archive,
        pytest.raises(error, match=f"0x{status:04X}"),
    ):
        here.fetch(archive, Fetch(STUDY))


def test_an_archive_without_queries_is_asked_for_the_whole_study(here: Here) -> None:
    with running(Script([image(1), image(2)], services=(GET,))) as archive:
        assert here.fetch(archive, Fetch(STUDY)) == Fetched(2, 0, 2)
        assert here.fetch.count(archive, STUDY) is None


def test_an_archive_without_c_get_says_what_to_set_instead(here: Here) -> None:
    with (
        running(Script([image(1)], services=(FIND, MOVE))) as archive,
        pytest.raises(NotOfferedError, match='set how = "c-move" or "wado"'),
    ):
        here.fetch(archive, Fetch(STUDY))


def test_an_image_of_another_study_is_refused(here: Here) -> None:
    stranger = image(7, study="1.2.826.0.1.9")
    with running(Script([image(1), stranger], listed=[image(1)])) as archive:
        fetched = here.fetch(archive, Fetch(STUDY))
    assert (fetched.stored, fetched.expected) == (1, 1)
    assert here.kept == _uids(image(1))


def test_what_this_node_made_is_neither_expected_nor_asked_for(here: Here) -> None:
    own = replace(here.fetch, own=lambda _study: frozenset(_uids(image(2))))
    with running(script := Script([image(1)], listed=[image(1), image(2)])) as archive:
        assert own(archive, Fetch(STUDY)) == Fetched(1, 0, 1)
    assert script.asked[-1][1].SOPInstanceUID == image(1).SOPInstanceUID


def test_an_image_beyond_the_largest_data_set_is_dropped(tmp_path: Path) -> None:
    here = Here(tmp_path, largest=1000)
    with running(Script([image(1)])) as archive:
        fetched = here.fetch(archive, Fetch(STUDY))
    assert (fetched.stored, fetched.failed) == (0, 1)
    assert here.kept == set()


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    def full() -> None:
        raise OutOfResourcesError("full")

    with running(Script([image(1)])) as archive, pytest.raises(OutOfResourcesError):
        Here(tmp_path, admit=full).fetch(archive, Fetch(STUDY))
    assert not list(tmp_path.iterdir())


def test_an_archive_that_is_not_there_is_away(here: Here) -> None:
    with running(Script([])) as archive:
        gone = replace(archive, port=free_port(), timeout=2.0)
        with pytest.raises(DestinationAwayError):
            here.fetch(gone, Fetch(STUDY))


def test_a_move_to_a_title_that_the_archive_does_not_know_says_what_it_must_know(here: Here) -> None:
    told = r"0xA801.*must know the AE title 'NODE'"
    with (
        running(Script([image(1)]), how="c-move") as archive,
        pytest.raises(DestinationRefusedError, match=told),
    ):
        here.moves()(archive, Fetch(STUDY))


def test_a_move_that_sent_the_images_elsewhere_is_waited_for_and_then_told(here: Here) -> None:
    sink = AE("NODE")
    sink.add_supported_context(str(image(1).SOPClassUID))
    server = sink.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _event: 0)]
    )
    script = Script([image(1)], move_to=server.socket.getsockname())
    try:
        with running(script, how="c-move") as archive:
            fetched = here.moves()(archive, Fetch(STUDY))
    finally:
        server.shutdown()
    assert (fetched.stored, fetched.failed, fetched.expected) == (0, 1, 1)
    assert "look whether it knows this node's AE title at the right host and port" in fetched.reason
    assert here.waited == pytest.approx(archive.timeout)


def test_a_query_that_never_ends_is_canceled(here: Here) -> None:
    with running(script := Script([], endless=True)) as archive:
        matches, more = here.fetch.find(archive, {}, most=5)
    assert (len(matches), more, script.canceled) == (5, True, 1)


def test_matches_that_are_no_uids_are_left_out(here: Here) -> None:
    hostile = image(1)
    good = image(2, study="1.2.826.0.1.5")
    del hostile.StudyInstanceUID
    hostile.add_new(0x0020000D, "UI", "../../etc")
    with running(Script([], listed=[hostile, good])) as archive:
        matches, _ = query.studies(CONNECT, archive, {})
    assert [one.study_instance_uid for one in matches] == ["1.2.826.0.1.5"]
    assert good.PatientID not in repr(matches)


def test_an_answer_whose_command_cannot_be_read_ends_the_association(tmp_path: Path) -> None:
    def answer(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        sent = P_DATA()
        command = b"\0\0\0\1\3\0\0\0\x20\x80\0"  # (0000,0100) of three bytes
        sent.presentation_data_value_list.append((event.context.context_id, b"\3" + command))
        event.assoc.dul.send_pdu(sent)
        yield 0, None

    script = Script([])
    script.find = answer  # type: ignore[method-assign]
    with (
        running(script) as archive,
        pytest.raises(DestinationAwayError, match="ended the association at a query"),
    ):
        Here(tmp_path).fetch.images(archive, STUDY)
