"""The user's side of procedure steps, against a provider written from the standard: over TLS, by name, and refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from dicom_node.deliver import association
from dicom_node.domain.errors import DestinationAwayError, DestinationRefusedError, NotOfferedError
from dicom_node.domain.performing import UpsSource
from dicom_node.domain.security import ClientSecurity, TlsFiles
from dicom_node.security.contexts import server_context
from dicom_node.worklist import ups_items
from dicom_node.worklist.ups import Ups
from tests.authority import Authority
from tests.ups_provider import UpsProvider, code, item, serving

STEP, STUDY = "2.25.771", "2.25.4711"
CR, KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.88.59"
UPS = Ups(partial(association.associated, calling_ae_title="NODE", maximum_pdu_size=16384), "NODE")


def source_of(provider: UpsProvider, security: ClientSecurity | None = None, **more: object) -> UpsSource:
    said = {"security": security or ClientSecurity(), "timeout": 5.0, **more}
    return UpsSource("ris", "MANAGER", "127.0.0.1", provider.port, **said)  # type: ignore[arg-type]


@pytest.fixture
def provider() -> Iterator[UpsProvider]:
    with serving(UpsProvider()) as provider:
        provider.put(item(1, STUDY))
        yield provider


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture
def secured(authority: Authority) -> Iterator[UpsProvider]:
    """Run a provider that asks for certificates, and for a name and passcode."""
    context = server_context(authority.files("ris.example", "127.0.0.1"), "required")
    with serving(UpsProvider(users={"node": "open sesame"}), context) as provider:
        provider.put(item(1, STUDY))
        yield provider


def _passcode(folder: Path, text: str = "open sesame\n") -> Path:
    path = folder / "passcode"
    path.touch(0o600)
    path.write_text(text, encoding="utf-8")
    return path


def test_over_tls_with_a_name_a_step_is_found_read_claimed_and_told_of(
    authority: Authority, secured: UpsProvider, tmp_path: Path
) -> None:
    security = ClientSecurity(authority.files("node.example"), "127.0.0.1", "node", _passcode(tmp_path))
    source = source_of(secured, security)
    assert [step.sop_instance_uid for step in UPS.scheduled(source, 10)] == [STEP]
    assert UPS.subscribe(source) == "its steps by filter"
    with UPS.session(source) as session:
        step = session.get(STEP)
        assert step is not None
        assert step.study_instance_uid == STUDY
        assert session.change_state(STEP, "2.25.5", "IN PROGRESS").name == "DONE"
        assert session.progress(STEP, "2.25.5", 30, "Fetching").name == "DONE"
    assert secured.items[STEP].progress == ["30"]


def _another_authority(authority: Authority, folder: Path) -> ClientSecurity:
    files = authority.files("node.example")
    other = Authority(folder / "other").certificate
    return ClientSecurity(
        TlsFiles(files.certificate, files.private_key, None, other), "127.0.0.1", "node", _passcode(folder)
    )


def _another_name(authority: Authority, folder: Path) -> ClientSecurity:
    return ClientSecurity(authority.files("node.example"), "vna.example", "node", _passcode(folder))


def _no_certificate(authority: Authority, folder: Path) -> ClientSecurity:
    return ClientSecurity(
        TlsFiles(None, None, None, authority.certificate), "127.0.0.1", "node", _passcode(folder)
    )


def _no_tls(_authority: Authority, folder: Path) -> ClientSecurity:
    return ClientSecurity(None, "127.0.0.1", "node", _passcode(folder))


def _wrong_passcode(authority: Authority, folder: Path) -> ClientSecurity:
    return ClientSecurity(authority.files("node.example"), "127.0.0.1", "node", _passcode(folder, "wrong"))


def _no_passcode_file(authority: Authority, folder: Path) -> ClientSecurity:
    return ClientSecurity(authority.files("node.example"), "127.0.0.1", "node", folder / "none")


@pytest.mark.parametrize(
    ("security", "error", "told"),
    [
        (_another_authority, DestinationAwayError, "certificate"),
        (_another_name, DestinationAwayError, "vna.example"),
        (_no_certificate, DestinationAwayError, "certificate"),
        (_no_tls, DestinationAwayError, "did not accept an association"),
        (_wrong_passcode, DestinationAwayError, "and know the user 'node' by this passcode"),
        (_no_passcode_file, DestinationAwayError, "none"),
    ],
)
def test_what_keeps_this_node_out_is_told_and_never_the_passcode(
    authority: Authority,
    secured: UpsProvider,
    tmp_path: Path,
    security: Callable[[Authority, Path], ClientSecurity],
    error: type[Exception],
    told: str,
) -> None:
    with pytest.raises(error) as caught:
        UPS.scheduled(source_of(secured, security(authority, tmp_path)), 10)
    text = str(caught.value)
    assert text.startswith(f"ris (MANAGER at 127.0.0.1:{secured.port})")
    assert told in text
    assert "sesame" not in text


def _ask(source: UpsSource, what: str) -> None:
    if what == "C-FIND":
        UPS.scheduled(source, 10)
        return
    with UPS.session(source) as session:
        if what == "N-GET":
            session.get(STEP)
        elif what == "N-SET":
            session.progress(STEP, "2.25.5", 1, "")
        else:
            session.change_state(STEP, "2.25.5", what)


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        (0x0110, DestinationAwayError, "it could not do it; find the cause in its log"),
        (0x0213, DestinationAwayError, "it could not do it"),
        (0xA700, DestinationAwayError, "it could not do it"),
        (0x0124, DestinationRefusedError, "not authorised; it must allow this node's AE title to perform"),
        (0x0122, NotOfferedError, "it does not offer this; UPS Pull (PS3.4 Annex CC) would be right"),
        (0x0211, NotOfferedError, "it does not offer this"),
        (0xC000, DestinationRefusedError, "0x0000 would be right"),
    ],
)
@pytest.mark.parametrize("what", ["C-FIND", "N-GET", "N-SET", "IN PROGRESS"])
def test_a_refusal_says_what_was_answered_to_what_and_what_would_be_right(
    provider: UpsProvider, what: str, status: int, error: type[Exception], told: str
) -> None:
    provider.fault = lambda asked, _when: status if asked == what else None
    source = source_of(provider)
    with pytest.raises(error) as caught:
        _ask(source, what)
    assert type(caught.value) is error
    assert f"answered 0x{status:04X} to " in str(caught.value)
    assert told in str(caught.value)


def test_a_provider_without_subscriptions_says_so(provider: UpsProvider) -> None:
    provider.watched = False
    with pytest.raises(NotOfferedError, match="0x0122 to a subscription: it does not offer this"):
        UPS.subscribe(source_of(provider))


def test_only_what_is_scheduled_ready_and_meant_for_this_node_is_found(provider: UpsProvider) -> None:
    steps = [item(number, "2.25.1") for number in range(2, 8)]
    steps[0].ProcedureStepState = "IN PROGRESS"
    steps[1].InputReadinessState = "UNAVAILABLE"
    steps[2].ScheduledWorkitemCodeSequence = [code("110005", "DCM", "3D Rendering")]
    steps[3].ScheduledStationNameCodeSequence = [code("OTHER", "L", "Another")]
    steps[4].ScheduledStationClassCodeSequence = [code("CT", "L", "Scanner")]
    steps[5].ScheduledStationNameCodeSequence = [code("OTHER", "L", "Another"), code("NODE", "L", "This one")]
    steps[5].ScheduledProcedureStepPriority = "HIGH"
    provider.put(*steps)
    source = source_of(provider, station_names=("NODE",), station_classes=("AI",))
    assert [step.sop_instance_uid for step in UPS.scheduled(source, 10)] == ["2.25.777", STEP]
    assert [step.sop_instance_uid for step in UPS.scheduled(source, 1)] == ["2.25.777"]


def _with(keyword: str, value: object) -> Dataset:
    ds = item(1, STUDY)
    setattr(ds, keyword, value)
    return ds


def _inputs(*studies: str) -> list[Dataset]:
    return [item(1, study).InputInformationSequence[0] for study in studies]


def _series(number: int, sop_class: str = "") -> Dataset:
    (ds,) = _inputs(STUDY)
    ds.SeriesInstanceUID = f"1.2.{number}"
    if sop_class:
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = sop_class, f"1.2.{number}.1"
        ds.ReferencedSOPSequence = [one]
    return ds


@pytest.mark.parametrize(
    ("ds", "fault"),
    [
        (_with("InputInformationSequence", []), "its input names no study"),
        (
            _with("InputInformationSequence", _inputs("1.2.3", "1.2.4")),
            "its input names 2 studies, one is right",
        ),
        (
            _with("InputInformationSequence", _inputs(*["1.2.3"] * (ups_items.MOST_INPUTS + 1))),
            f"its input has more than {ups_items.MOST_INPUTS} parts",
        ),
        (
            _with("InputInformationSequence", [_series(1, KEY_OBJECTS)]),
            "its input names objects, and none of them is an image that is taken here",
        ),
    ],
)
def test_an_input_that_cannot_be_used_is_a_fault_of_the_step(ds: Dataset, fault: str) -> None:
    step = ups_items.step(ds)
    assert step is not None
    assert (step.fault, step.study_instance_uid) == (fault, "")


@pytest.mark.parametrize(
    ("parts", "series", "images"),
    [
        ([_series(1, CR), _series(2, CR)], ("1.2.1", "1.2.2"), ("1.2.1.1", "1.2.2.1")),
        ([_series(1, CR), _series(2, KEY_OBJECTS)], ("1.2.1", "1.2.2"), ("1.2.1.1",)),
        ([_series(1, CR), _series(2)], ("1.2.1", "1.2.2"), ()),  # the second is meant whole
        ([_series(1, CR), *_inputs(STUDY)], (), ()),
    ],
)
def test_what_of_a_study_is_the_input(
    parts: list[Dataset], series: tuple[str, ...], images: tuple[str, ...]
) -> None:
    step = ups_items.step(_with("InputInformationSequence", parts))
    assert step is not None
    assert (step.fault, step.series_instance_uids, step.sop_instance_uids) == ("", series, images)


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_a_step_that_cannot_be_read_or_tells_no_state_is_none() -> None:
    assert ups_items.step(_with("ProcedureStepState", "")) is None
    assert ups_items.step(_with("ProcedureStepState", "in progress")) is None
    assert ups_items.step(_with("SOPInstanceUID", "")) is None


@pytest.mark.parametrize(
    "keyword", ["ProcedureStepState", "InputInformationSequence", "ScheduledProcedureStepPriority"]
)
def test_a_step_with_a_value_of_the_wrong_length_is_none_and_hides_no_other(keyword: str) -> None:
    ds = item(1, STUDY)
    ds._dict[Tag(keyword)] = RawDataElement(Tag(keyword), "US", 3, b"\1\2\3", 0, False, True)
    assert ups_items.step(ds) is None
