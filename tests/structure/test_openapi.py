"""The API is what deploy/openapi.json says: programs are written against it. `python -m tests.structure.test_openapi`
writes it anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from dicom_node.config import Web
from dicom_node.web.app import create_app

COMMITTED = Path(__file__).parents[2] / "deploy" / "openapi.json"


def described() -> dict[str, Any]:
    """Return the description, without the program's version."""
    told = create_app(cast("Any", None), cast("Any", None), Web()).openapi()
    told["info"]["version"] = "1"
    return told


def test_the_api_is_what_the_committed_description_says() -> None:
    assert json.loads(COMMITTED.read_text()) == json.loads(json.dumps(described())), __doc__


def test_every_operation_is_under_the_api_or_dicomweb_and_says_what_it_does() -> None:
    for path, operations in described()["paths"].items():
        assert path.startswith(("/api/v1/", "/dicomweb/")), path
        for operation in operations.values():
            assert operation["summary"]
            assert operation["description"]


def test_no_search_term_is_a_part_of_an_address_of_the_api() -> None:
    for path, operations in described()["paths"].items():
        for operation in operations.values():
            named = {parameter["name"] for parameter in operation.get("parameters", ())}
            assert not named & {"search", "patient", "name"}, path


if __name__ == "__main__":
    COMMITTED.write_text(json.dumps(described(), indent=1, sort_keys=True) + "\n")
