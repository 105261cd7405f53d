"""Turns a template and values into a page. Everything is escaped, always; a name that is missing is a fault."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dicom_node import __version__
from dicom_node.domain.reading import Role
from dicom_node.web import wording

FOLDER = Path(str(files("dicom_node.web")))
_VERSION = blake2b(
    b"".join(one.read_bytes() for one in sorted((FOLDER / "static").iterdir()) if one.is_file()), digest_size=6
).hexdigest()
"""Of the static files: a browser keeps them until they change."""

_environment = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(wording.FILTERS)
_environment.globals["static"] = lambda root, name: f"{root}/static/{name}?{_VERSION}"
for _name in _environment.list_templates():
    _environment.get_template(_name)  # compiled now, not when somebody waits for the page


def show(request: Request, template: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    """Return a page.

    Parameters
    ----------
    values
        What the template needs; besides, it has ``root`` (the path before all pages), ``person``, ``csrf``,
        ``may_order``, ``may_administer``, ``version`` and ``page`` (the path shown).
    """
    session = getattr(request.state, "session", None)
    root = request.scope.get("root_path", "")
    person = None if session is None else session.person
    content = _environment.get_template(template).render(
        root=root,
        page=request.url.path.removeprefix(root),
        person=person,
        csrf="" if session is None else session.csrf,
        may_order=person is not None and person.may(Role.OPERATOR),
        may_administer=person is not None and person.may(Role.ADMIN),
        version=__version__,
        **values,
    )
    return HTMLResponse(content, status)
