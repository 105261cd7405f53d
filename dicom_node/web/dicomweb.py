"""DICOMweb, read only: a viewer finds (QIDO-RS) and fetches (WADO-RS) the objects that this node made (PS3.18).

Reports and display objects, nothing else: images are the archive's to give. Each access is in the audit trail.
"""

# No deferred annotations here: FastAPI reads them where they stand, inside a function.
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple
from uuid import uuid4

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from dicom_node.domain.errors import NotFoundError
from dicom_node.domain.reading import Held, Role
from dicom_node.web import qido
from dicom_node.web.api import Named as Person
from dicom_node.web.api import desk_of
from dicom_node.web.api_asked import AskedUid
from dicom_node.web.api_models import Problem
from dicom_node.web.desk import Desk
from dicom_node.web.looks import looked
from dicom_node.web.negotiation import EXPLICIT, JSON, accept_dicom, accept_json

Require = Callable[[Role], Callable[..., Any]]

_OF_STUDY = (
    "00080020", "00080030", "00080050", "00080090", "00100010", "00100020", "00100030", "00100040", "0020000D",
    "00200010",
)  # fmt: skip
_OF_SERIES = (*_OF_STUDY, "00080060", "0008103E", "0020000E", "00200011")
_OF_INSTANCE = ("00080016", "00080018", "00200013", "00280008", "00280010", "00280011", "00280100")

_AS_JSON: dict[int | str, dict[str, Any]] = {200: {"content": {JSON: {}}, "description": "DICOM JSON."}}
_AS_PART_10: dict[int | str, dict[str, Any]] = {
    200: {"content": {'multipart/related; type="application/dicom"': {}}, "description": "Part 10."}
}

Level = Literal["studies", "series", "instances"]
Told = tuple[Held, Mapping[str, Any]]
OneUid = Annotated[AskedUid, Path()]


_DESCRIBED: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {"application/problem+json": {}}, "description": why}
    for status, why in (
        (400, "The query asks for what cannot be matched here."),
        (401, "Nobody is logged in."),
        (403, "The person has not got the role."),
        (404, "No such result is held here; images are not given."),
        (406, "It is answered in another form than is accepted."),
        (422, "A UID in the path is none."),
        (503, "The database is away; try again."),
    )
}


class Named(NamedTuple):
    """What a path names; "" for every one below it."""

    study: str = ""
    series: str = ""
    instance: str = ""


def _everything() -> Named:
    return Named()


def _study(study: OneUid) -> Named:
    return Named(study)


def _series(study: OneUid, series: OneUid) -> Named:
    return Named(study, series)


def _instance(study: OneUid, series: OneUid, instance: OneUid) -> Named:
    return Named(study, series, instance)


_PATHS: tuple[tuple[str, Callable[..., Named]], ...] = (
    ("", _everything),
    ("/studies/{study}", _study),
    ("/studies/{study}/series/{series}", _series),
    ("/studies/{study}/series/{series}/instances/{instance}", _instance),
)
_QUERIES: dict[Level, tuple[str, ...]] = {
    "studies": ("",),
    "series": ("", "/studies/{study}"),
    "instances": ("", "/studies/{study}", "/studies/{study}/series/{series}"),
}
"""Where each level can be queried (PS3.18 table 10.6.1-1)."""


def dicomweb(require: Require) -> APIRouter:
    """Return the routes; `require` says who may use one."""
    router = APIRouter(prefix="/dicomweb", tags=["dicomweb"], responses=_DESCRIBED)
    viewer, at_desk = Depends(require(Role.VIEWER)), Depends(desk_of)
    for path, naming in _PATHS:
        for level, places in _QUERIES.items():
            if path in places:
                _add_query(router, f"{path}/{level}", level, Depends(naming), viewer, at_desk)
        if path:
            _add_retrieval(router, path, Depends(naming), viewer, at_desk)
    return router


def _add_query(router: APIRouter, path: str, level: Level, naming: Any, viewer: Any, at_desk: Any) -> None:
    @router.get(path, response_class=JSONResponse, responses=_AS_JSON, summary=f"Query {level} (QIDO-RS)")
    def query(
        request: Request, named: Named = naming, person: Person = viewer, desk: Desk = at_desk
    ) -> Response:
        """Return what results there are, one entry a match; values of the query are attributes by keyword or tag."""
        return _query(request, desk, person, level, named)


def _add_retrieval(router: APIRouter, path: str, naming: Any, viewer: Any, at_desk: Any) -> None:
    @router.get(path, response_class=Response, responses=_AS_PART_10, summary="Retrieve (WADO-RS)")
    def retrieve(
        request: Request, named: Named = naming, person: Person = viewer, desk: Desk = at_desk
    ) -> Response:
        """Fetch the results that the path names."""
        return _retrieve(request, desk, person, named)

    @router.get(
        f"{path}/metadata", response_class=JSONResponse, responses=_AS_JSON, summary="Metadata (WADO-RS)"
    )
    def metadata(
        request: Request, named: Named = naming, person: Person = viewer, desk: Desk = at_desk
    ) -> Response:
        """Describe the results that the path names, without pixels."""
        accept_json(request)
        return _json(
            [desk.metadata(held.sop_instance_uid) for held in _found(request, desk, person, named)], []
        )


def _query(request: Request, desk: Desk, person: Person, level: Level, named: Named) -> Response:
    accept_json(request)
    query = qido.parse(request.query_params.multi_items())
    keys = dict(query.keys)
    for tag, uid in (("0020000D", named.study), ("0020000E", named.series)):
        if uid and keys.setdefault(tag, uid) != uid:
            return _json([], [])
    looked(request, person.name, asked=f"dicomweb {hash(frozenset(keys.items()))}")  # no value is kept
    found = [(held, desk.described(held)) for held in desk.results() if _may_meet(held, keys)]
    groups: dict[tuple[str, ...], list[Told]] = {}
    for held, told in found:
        if qido.meets(told, keys):
            groups.setdefault(_group(held, level), []).append((held, told))
    wanted = list(groups.values())[query.offset : query.offset + query.limit]
    left = len(groups) - query.offset - len(wanted)
    warnings = [
        '299 dicom-node "fuzzymatching is not supported; values were matched as they are"'
    ] * query.fuzzy
    warnings += [f'299 dicom-node "there are {left} additional results that can be requested"'] * (left > 0)
    base = f"{str(request.base_url).rstrip('/')}/dicomweb"
    return _json([_answer(group, level, base, found) for group in wanted], warnings)


def _may_meet(held: Held, keys: Mapping[str, str]) -> bool:
    known = {
        "0020000D": held.study_instance_uid,
        "0020000E": held.series_instance_uid,
        "00080016": held.sop_class_uid,
        "00080018": held.sop_instance_uid,
    }
    told = {tag: {"Value": [value]} for tag, value in known.items()}
    return qido.meets(told, {tag: value for tag, value in keys.items() if tag in known})


def _group(held: Held, level: Level) -> tuple[str, ...]:
    uids = (held.study_instance_uid, held.series_instance_uid, held.sop_instance_uid)
    return uids[: {"studies": 1, "series": 2, "instances": 3}[level]]


def _answer(group: Sequence[Told], level: Level, base: str, found: Sequence[Told]) -> dict[str, Any]:
    held, told = group[0]
    tags = {"studies": _OF_STUDY, "series": _OF_SERIES, "instances": (*_OF_SERIES, *_OF_INSTANCE)}[level]
    answer: dict[str, Any] = {tag: told.get(tag) for tag in tags if tag in told}
    url = f"{base}/studies/{held.study_instance_uid}"
    if level == "studies":
        of_study = [one for one in found if one[0].study_instance_uid == held.study_instance_uid]
        modalities = sorted({str(v) for _, one in of_study for v in one.get("00080060", {}).get("Value", ())})
        answer["00080061"] = {"vr": "CS", "Value": modalities}
        answer["00201206"] = {"vr": "IS", "Value": [len({one.series_instance_uid for one, _ in of_study})]}
        answer["00201208"] = {"vr": "IS", "Value": [len(of_study)]}
    else:
        url += f"/series/{held.series_instance_uid}"
    if level == "series":
        answer["00201209"] = {"vr": "IS", "Value": [len(group)]}
    if level == "instances":
        url += f"/instances/{held.sop_instance_uid}"
    answer["00080056"] = {"vr": "CS", "Value": ["ONLINE"]}
    answer["00081190"] = {"vr": "UR", "Value": [url]}
    return dict(sorted(answer.items()))


def _found(request: Request, desk: Desk, person: Person, named: Named) -> list[Held]:
    """Return the results that a path names, and note who asked for them."""
    found = [
        held
        for held in desk.results()
        if held.study_instance_uid == named.study
        and named.series in ("", held.series_instance_uid)
        and named.instance in ("", held.sop_instance_uid)
    ]
    if not found:
        uid = named.instance or named.series or named.study
        raise NotFoundError(f"there is no result {uid} here; images are not given")
    looked(request, person.name, named.study, "dicomweb")
    return found


def _retrieve(request: Request, desk: Desk, person: Person, named: Named) -> Response:
    single = accept_dicom(request, alone=bool(named.instance))
    found = _found(request, desk, person, named)
    first = desk.result(found[0].sop_instance_uid)  # before the answer begins: a fault is told as one
    if single:
        return Response(first, media_type="application/dicom", headers=_NOT_KEPT)
    boundary = uuid4().hex

    def parts() -> Iterator[bytes]:
        for number, held in enumerate(found):
            content = desk.result(held.sop_instance_uid) if number else first
            head = f"--{boundary}\r\nContent-Type: application/dicom; transfer-syntax={EXPLICIT}\r\n"
            yield f"{head}Content-Length: {len(content)}\r\n\r\n".encode()
            yield content
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode()

    media_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return StreamingResponse(parts(), media_type=media_type, headers=_NOT_KEPT)


_NOT_KEPT = {"Cache-Control": "no-store"}


def _json(content: Sequence[Mapping[str, Any]], warnings: Sequence[str]) -> Response:
    headers = {**_NOT_KEPT, **({"Warning": ", ".join(warnings)} if warnings else {})}
    return JSONResponse(list(content), media_type=JSON, headers=headers)
