"""The reading worklist as pages: the list, a study, the banks, the node; and the orders that their forms give.

Every form leads back to a page that says what became of it, so that it can be reloaded, and works without a script.
"""

# No deferred annotations here: FastAPI reads them where they stand, inside a function.
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Depends, Form, Path, Query, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel, Field, model_validator
from starlette.exceptions import HTTPException

from dicom_node.domain import urgency
from dicom_node.domain.errors import NodeError
from dicom_node.domain.people import By, Person
from dicom_node.domain.reading import Order, Progress, Role
from dicom_node.domain.types import Verdict
from dicom_node.web.access import by
from dicom_node.web.api import desk_of
from dicom_node.web.api_asked import Asked, AskedUid, BankName, ItemId
from dicom_node.web.attached import attached
from dicom_node.web.desk import Desk, Mark
from dicom_node.web.looks import looked
from dicom_node.web.plots import calibration_plot
from dicom_node.web.remembered import Remembered
from dicom_node.web.shown import show

Require = Callable[[Role], Callable[..., Any]]

_CHOICES = {
    "orders": [
        (Order.NEWEST, "Newest first"),
        (Order.UNUSUAL, "Most unusual first"),
        (Order.URGENT, "Most urgent first"),
    ],
    "verdicts": [one.value for one in Verdict],
    "progress": [one.value for one in Progress],
    "marks": [("normal", "normal"), ("abnormal", "abnormal"), ("", "not marked")],
    "modalities": ["CR", "DX", "SC"],
    "deliveries": ["committed", "found", "sent", "sent, unconfirmed", "waiting", "failed"],
}
_NO_FILTERS = {"offset", "limit", "order", "found", "said"}


class AskedPage(Asked):
    """What the list's own form asks: fields that were left empty ask nothing."""

    found: str = Field(default="", max_length=40)
    said: str = Field(default="", max_length=40)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, asked: Any) -> Any:
        if not isinstance(asked, dict):
            return asked
        return {name: value for name, value in asked.items() if value not in ("", [""]) or name == "mark"}


class Ordered(BaseModel):
    """What an operator's form says; which of it an order needs, `_ORDERS` knows."""

    bank: str = Field(default="", max_length=64)
    priority: int | None = None
    mark: Mark | None = None
    item: ItemId | None = None


def pages(require: Require) -> APIRouter:
    """Return the routes of the pages; `require` says who may use one."""
    router = APIRouter(include_in_schema=False)
    remembered = Remembered()
    viewer, operator, admin = (Depends(require(role)) for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN))
    at_desk = Depends(desk_of)
    _looking(router, remembered, viewer, at_desk)
    _ordering(router, remembered, operator, at_desk)
    _administering(router, remembered, admin, at_desk)
    router.include_router(attached(require))
    return router


def _looking(router: APIRouter, remembered: Remembered, viewer: Any, at_desk: Any) -> None:
    @router.get("/")
    def studies(
        request: Request,
        asked: Annotated[AskedPage, Query()],
        person: Person = viewer,
        desk: Desk = at_desk,
    ) -> Response:
        """Show the list."""
        term = remembered.look(person.name, asked.found)
        listed = desk.studies(asked.filters(term), asked.offset, asked.limit)
        looked(request, person.name, asked=asked.found)
        now, _ = desk.changes(2**62)
        return show(
            request,
            "studies.html",
            {
                "listed": listed,
                "asked": asked,
                "term": term,
                "found": asked.found if term else "",
                "choices": {**_CHOICES, "destinations": _with(desk.destinations(), asked.destination)},
                "filtered": asked.model_dump(
                    exclude_defaults=True, exclude={"offset", "limit", "order", "found", "said"}
                ),
                "link": _linking(request),
                "now": now,
                "said": remembered.take(person.name, asked.said),
            },
        )

    @router.post("/search")
    def search(
        request: Request,
        term: Annotated[str, Form(max_length=200)] = "",
        back: Annotated[str, Form(max_length=1000)] = "",
        person: Person = viewer,
    ) -> Response:
        """Search: the term is kept here, and the address holds a name for it that nobody can read."""
        kept = [pair for pair in _pairs(back) if pair[0] not in ("found", "offset")]
        if term.strip():
            kept.append(("found", remembered.keep(person.name, term.strip())))
        return _to(request, "/", kept)

    @router.get("/studies/{study}")
    def study(
        request: Request,
        study: Annotated[AskedUid, Path()],
        said: Annotated[str, Query(max_length=40)] = "",
        person: Person = viewer,
        desk: Desk = at_desk,
    ) -> Response:
        """Show one study."""
        view = desk.study(study)
        looked(request, person.name, study)
        last, _ = desk.changes(2**62)
        values = {
            "view": view,
            "banks": [bank for bank in desk.banks() if not bank.fault],
            "priorities": urgency.NAMES,
            "said": remembered.take(person.name, said),
            "now": last,
        }
        return show(request, "study.html", values)

    @router.get("/banks")
    def banks(
        request: Request,
        said: Annotated[str, Query(max_length=40)] = "",
        person: Person = viewer,
        desk: Desk = at_desk,
    ) -> Response:
        """Show the banks."""
        shown = [(bank, calibration_plot(bank)) for bank in desk.banks()]
        return show(request, "banks.html", {"banks": shown, "said": remembered.take(person.name, said)})

    @router.get("/node", dependencies=[viewer])
    def node(request: Request, desk: Desk = at_desk) -> Response:
        """Show the node."""
        return show(request, "node.html", {"health": desk.health()})

    @router.get("/keys", dependencies=[viewer])
    def keyboard(request: Request) -> Response:
        """Show what the keyboard does."""
        return show(request, "keys.html", {})


def _ordering(router: APIRouter, remembered: Remembered, operator: Any, at_desk: Any) -> None:
    @router.post("/studies/{study}/{order}")
    def order(
        request: Request,
        study: Annotated[AskedUid, Path()],
        order: Literal["rerun", "priority", "mark", "retry", "cancel"],
        asked: Annotated[Ordered, Form()],
        person: Person = operator,
        desk: Desk = at_desk,
    ) -> Response:
        """Carry out an operator's order about a study."""
        needed, give = _ORDERS[order]
        if needed and getattr(asked, needed) is None:
            raise HTTPException(422, f"the form of this order has to say: {needed}")
        said = _told(lambda: give(desk, study, asked, by(request, person.name)))
        return _to(request, f"/studies/{study}", [("said", remembered.keep(person.name, said))])


def _mark(desk: Desk, study: str, asked: Any, who: By) -> Iterable[Mapping[str, Any]]:
    desk.mark(study, asked.mark, who)
    return [{"became": "no mark any more" if asked.mark == "clear" else f"marked {asked.mark}"}]


_Give = Callable[[Desk, str, Any, By], Iterable[Mapping[str, Any]]]
_ORDERS: dict[str, tuple[str, _Give]] = {
    "rerun": ("", lambda desk, study, asked, who: desk.rerun([study], asked.bank, who)),
    "priority": ("priority", lambda desk, study, asked, who: desk.prioritise(study, asked.priority, who)),
    "mark": ("mark", _mark),
    "retry": ("item", lambda desk, _study, asked, who: desk.retry([asked.item], who)),
    "cancel": ("item", lambda desk, _study, asked, who: desk.cancel([asked.item], who)),
}
"""What each order needs of the form, and what it does."""


def _administering(router: APIRouter, remembered: Remembered, admin: Any, at_desk: Any) -> None:
    def back(request: Request, person: Person, text: str) -> Response:
        return _to(request, "/banks", [("said", remembered.keep(person.name, text))])

    @router.post("/banks/{bank}/activate")
    def activate(
        request: Request,
        bank: Annotated[BankName, Path()],
        person: Person = admin,
        desk: Desk = at_desk,
    ) -> Response:
        """Use a bank."""

        def order() -> Iterable[Mapping[str, Any]]:
            desk.activate(bank, by(request, person.name))
            return [{"became": f"{bank} scores from the next study on"}]

        return back(request, person, _told(order))

    @router.post("/banks/rollback")
    def rollback(request: Request, person: Person = admin, desk: Desk = at_desk) -> Response:
        """Use the bank before."""
        return back(
            request,
            person,
            _told(lambda: [{"became": f"{desk.rollback(by(request, person.name))} scores again"}]),
        )


def _with(names: Sequence[str], asked: str) -> list[str]:
    """Return names to choose from; one that was asked for and is not configured any more stays among them."""
    return [*names, *([asked] if asked and asked not in names else [])]


def _told(order: Callable[[], Iterable[Mapping[str, Any]]]) -> str:
    """Carry out an order; return what became of it, for people."""
    try:
        rows = list(order())
    except NodeError as error:
        return f"Not done: {error}."
    parts = [
        f"not done: {row['reason']}" if row.get("became") in ("", "refused", None) else f"done: {row['became']}"
        for row in rows
    ]
    text = "; ".join(dict.fromkeys(parts)) or "nothing was to be done"
    return f"{text[0].upper()}{text[1:]}."


def _to(request: Request, path: str, query: list[tuple[str, str]]) -> Response:
    asked = f"?{urlencode(query)}" if query else ""
    return RedirectResponse(f"{request.scope.get('root_path', '')}{path}{asked}", 303)


def _pairs(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, max_num_fields=50)


def _linking(request: Request) -> Callable[..., str]:
    """Return what makes a link to the same list with other values; an empty one leaves its name out."""

    def link(**changed: object) -> str:
        kept = [p for p in request.query_params.multi_items() if p[0] not in changed and p[0] != "said"]
        kept += [(name, str(value)) for name, value in changed.items() if value not in ("", None)]
        return f"{request.scope.get('root_path', '')}/" + (f"?{urlencode(kept)}" if kept else "")

    return link
