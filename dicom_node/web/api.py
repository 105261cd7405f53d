"""The JSON API: all that the pages show and do, for programs, with the same roles. OpenAPI describes it.

A search term travels in a body and never in a URL. Nothing here knows how a person proves who they are: `require` is
given, and gives the person.
"""

# No deferred annotations here: FastAPI reads them where they stand, inside a function.
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException

from dicom_node.domain import urgency
from dicom_node.domain.reading import Role, StudyList, StudyView
from dicom_node.web import api_models as said
from dicom_node.web import api_node_models as told
from dicom_node.web.access import by
from dicom_node.web.api_asked import Again, Asked, AskedUid, BankName, Items, Searched, Urgency, Word
from dicom_node.web.cached import kept
from dicom_node.web.changes import Changes, TooManyListenersError
from dicom_node.web.desk import Desk, PictureKind
from dicom_node.web.looks import looked

Require = Callable[[Role], Callable[..., Any]]
"""Returns a dependency that gives the person who asks, or refuses one who has not got the role."""

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": said.Problem, "content": {"application/problem+json": {}}, "description": why}
    for status, why in (
        (401, "Nobody is logged in."),
        (403, "The person has not got the role, or the CSRF token is missing."),
        (404, "Nothing of that name is held here."),
        (409, "The state of what is named does not allow it."),
        (422, "What was asked is not valid."),
        (503, "The database is away; try again."),
    )
}
_PRIORITIES = {name: number for number, name in urgency.NAMES.items()}
_MEDIA: dict[PictureKind, str] = {"thumbnail": "image/jpeg", "image": "image/png", "heat-map": "image/png"}


class Named(Protocol):
    """A person, as far as the desk has to know: the name that stands in the audit trail."""

    @property
    def name(self) -> str: ...  # noqa: D102


def desk_of(request: Request) -> Desk:
    """Return the desk that the application was made with."""
    desk: Desk = request.app.state.desk
    return desk


def changes_of(request: Request) -> Changes:
    """Return what tells of changes, one for the application."""
    state = request.app.state
    if not hasattr(state, "changes"):
        state.changes = Changes(desk_of(request).changes)
    changes: Changes = state.changes
    return changes


def api(require: Require) -> APIRouter:
    """Return the routes of the API.

    Parameters
    ----------
    require
        Who may use a route.
    """
    router = APIRouter(prefix="/api/v1", responses=_PROBLEMS)
    viewer, operator, admin = (Depends(require(role)) for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN))
    at_desk = Depends(desk_of)
    _studies(router, viewer, at_desk)
    _events(router, viewer)
    _orders(router, operator, at_desk)
    _banks(router, viewer, admin, at_desk)
    return router


def _studies(router: APIRouter, viewer: Any, at_desk: Any) -> None:
    @router.get("/studies", tags=["studies"], summary="List studies")
    def studies(
        request: Request, asked: Annotated[Asked, Query()], person: Named = viewer, desk: Desk = at_desk
    ) -> said.StudiesSaid:
        """Return one page of the studies that meet the filters, newest, most unusual or most urgent first."""
        looked(request, person.name)
        return _list(desk.studies(asked.filters(), asked.offset, asked.limit))

    @router.post("/studies/search", tags=["studies"], summary="Search studies by patient")
    def search(
        request: Request, asked: Searched, person: Named = viewer, desk: Desk = at_desk
    ) -> said.StudiesSaid:
        """Return the studies whose patient's name has the term in it, or whose identifiers begin with it."""
        looked(request, person.name, asked=str(hash(asked.search)))  # the term itself is not kept
        return _list(desk.studies(asked.filters(asked.search), asked.offset, asked.limit))

    @router.get("/studies/{study}", tags=["studies"], summary="Show a study")
    def study(
        request: Request, study: Annotated[AskedUid, Path()], person: Named = viewer, desk: Desk = at_desk
    ) -> said.StudyDetailSaid:
        """Return its images and what each scored, its revisions, deliveries, work and events."""
        return said.StudyDetailSaid.model_validate(_seen(request, desk, study, person))

    @router.get("/studies/{study}/report", tags=["studies"], summary="Read a report")
    def report(
        request: Request, study: Annotated[AskedUid, Path()], person: Named = viewer, desk: Desk = at_desk
    ) -> said.ReportSaid:
        """Return the newest report as readable text, what it concludes first; as DICOM it is at /dicomweb."""
        view = _seen(request, desk, study, person)
        if not view.report_uid:
            raise HTTPException(404, f"study {study} has no report yet")
        return said.ReportSaid(
            study_instance_uid=study, sop_instance_uid=view.report_uid, text=view.report_text
        )

    @router.get(
        "/images/{image}/{kind}",
        tags=["studies"],
        summary="Fetch a picture of an image",
        response_class=Response,
        responses={
            200: {"content": {"image/png": {}, "image/jpeg": {}}, "description": "The picture, with its ETag."},
            304: {"description": "It is still the one of If-None-Match."},
        },
    )
    def picture(
        request: Request,
        image: Annotated[AskedUid, Path()],
        kind: PictureKind,
        person: Named = viewer,
        desk: Desk = at_desk,
    ) -> Response:
        """Return a small JPEG, the image as a grey PNG of 8 or 16 bits, or its heat map as an RGBA PNG."""
        content = desk.picture(image, kind)
        if kind != "thumbnail":  # those are part of the list
            looked(request, person.name, desk.study_of(image))
        return kept(request, content, _MEDIA[kind])

    @router.get("/node", tags=["node"], summary="Look at the node", dependencies=[viewer])
    def node(desk: Desk = at_desk) -> told.NodeSaid:
        """Return queue, peers, last traffic, disk, the latest errors, and what is due."""
        return told.NodeSaid.model_validate(desk.health())


def _events(router: APIRouter, viewer: Any) -> None:
    @router.get(
        "/events",
        tags=["node"],
        summary="Listen for changes",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}, "description": "Server-sent events."}},
        dependencies=[viewer],
    )
    async def events(
        request: Request,
        after: Annotated[int, Query(ge=-1, le=2**62, description="The last event known; -1 for none.")] = -1,
        last_event_id: Annotated[str, Header(max_length=20, pattern="^[0-9]*$")] = "",
    ) -> StreamingResponse:
        """Tell which studies changed, as events named "changes" with {"studies", "all", "node"}, until hung up."""
        try:
            stream = changes_of(request).stream(min(int(last_event_id or after), 2**62))
        except TooManyListenersError as error:
            raise HTTPException(503, "as many listen as may; try again later", {"Retry-After": "30"}) from error
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


def _orders(router: APIRouter, operator: Any, at_desk: Any) -> None:
    @router.post("/orders/retry", tags=["orders"], summary="Retry work")
    def retry(
        request: Request, asked: Items, person: Named = operator, desk: Desk = at_desk
    ) -> list[told.OrderSaid]:
        """Schedule failed or canceled items again; those that cannot be are refused one by one."""
        return _done(desk.retry(asked.items, by(request, person.name)))

    @router.post("/orders/cancel", tags=["orders"], summary="Cancel work")
    def cancel(
        request: Request, asked: Items, person: Named = operator, desk: Desk = at_desk
    ) -> list[told.OrderSaid]:
        """Cancel items, at once even while someone works on them."""
        return _done(desk.cancel(asked.items, by(request, person.name)))

    @router.post("/orders/rerun", tags=["orders"], summary="Analyse studies again")
    def rerun(
        request: Request, asked: Again, person: Named = operator, desk: Desk = at_desk
    ) -> list[told.OrderSaid]:
        """Open a new revision of the same images, whose report supersedes the earlier ones."""
        return _done(desk.rerun(asked.studies, asked.bank, by(request, person.name)))

    @router.put("/studies/{study}/priority", tags=["orders"], summary="Give a study another priority")
    def prioritise(
        request: Request,
        study: Annotated[AskedUid, Path()],
        asked: Urgency,
        person: Named = operator,
        desk: Desk = at_desk,
    ) -> list[told.OrderSaid]:
        """Change the priority of its work that is not begun."""
        return _done(desk.prioritise(study, _PRIORITIES[asked.priority], by(request, person.name)))

    @router.put("/studies/{study}/mark", tags=["orders"], summary="Say what a study is", status_code=204)
    def mark(
        request: Request,
        study: Annotated[AskedUid, Path()],
        asked: Word,
        person: Named = operator,
        desk: Desk = at_desk,
    ) -> None:
        """Keep a person's word about a study, as feedback for the bank and for monitoring."""
        desk.mark(study, asked.mark, by(request, person.name))


def _banks(router: APIRouter, viewer: Any, admin: Any, at_desk: Any) -> None:
    @router.get("/banks", tags=["banks"], summary="List banks", dependencies=[viewer])
    def banks(desk: Desk = at_desk) -> list[told.BankSaid]:
        """Return all banks, those in use first, each with its calibration and what its own check flagged."""
        return [told.BankSaid.model_validate(bank) for bank in desk.banks()]

    @router.post("/banks/{bank}/activate", tags=["banks"], summary="Use a bank")
    def activate(
        request: Request, bank: Annotated[BankName, Path()], person: Named = admin, desk: Desk = at_desk
    ) -> told.ActiveSaid:
        """Verify a bank and score with it from the next study on."""
        desk.activate(bank, by(request, person.name))
        return told.ActiveSaid(active=bank)

    @router.post("/banks/rollback", tags=["banks"], summary="Use the bank before")
    def rollback(request: Request, person: Named = admin, desk: Desk = at_desk) -> told.ActiveSaid:
        """Score again with what was active before."""
        return told.ActiveSaid(active=desk.rollback(by(request, person.name)))


def _seen(request: Request, desk: Desk, study: str, person: Named) -> StudyView:
    view = desk.study(study)
    looked(request, person.name, study)
    return view


def _list(found: StudyList) -> said.StudiesSaid:
    return said.StudiesSaid.model_validate(found)


def _done(rows: Iterable[Mapping[str, Any]]) -> list[told.OrderSaid]:
    return [told.OrderSaid.model_validate(dict(row)) for row in rows]
