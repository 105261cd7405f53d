"""What the pages show or give beside themselves: pictures of a bank's normals, and a study's report as a file."""

# No deferred annotations here: FastAPI reads them where they stand, inside a function.
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from dicom_node.domain.errors import NotFoundError
from dicom_node.domain.people import Person
from dicom_node.domain.reading import Role
from dicom_node.web.api import desk_of
from dicom_node.web.api_asked import AskedUid, BankName
from dicom_node.web.cached import kept
from dicom_node.web.desk import Desk
from dicom_node.web.looks import looked


def attached(require: Callable[[Role], Callable[..., Any]]) -> APIRouter:
    """Return the routes; `require` says who may use one."""
    router = APIRouter(include_in_schema=False)
    viewer, at_desk = Depends(require(Role.VIEWER)), Depends(desk_of)

    @router.get("/normals/{bank}", dependencies=[viewer])
    def normal(
        request: Request,
        bank: Annotated[BankName, Path()],
        identifier: Annotated[str, Query(max_length=1024)],
        desk: Desk = at_desk,
    ) -> Response:
        """Show one of a bank's normals."""
        return kept(request, desk.normal_picture(bank, identifier), "image/jpeg")

    @router.get("/studies/{study}/report.dcm")
    def report(
        request: Request, study: Annotated[AskedUid, Path()], person: Person = viewer, desk: Desk = at_desk
    ) -> Response:
        """Give the newest report as a DICOM file, named by its own UID."""
        view = desk.study(study)
        looked(request, person.name, study, "report")
        if not view.report_uid:
            raise NotFoundError(f"study {study} has no report yet")
        name = f'attachment; filename="{view.report_uid}.dcm"'
        content = desk.result(view.report_uid)
        return Response(content, media_type="application/dicom", headers={"Content-Disposition": name})

    return router
