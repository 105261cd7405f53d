"""``worklist tasks`` and ``discontinue``: procedure steps of other providers that this node performs."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dicom_node.cli.options import AsJson, ConfigPath, exit_codes, read_config
from dicom_node.cli.worklist import print_rows
from dicom_node.domain.audit import Setting
from dicom_node.domain.errors import NotFoundError


def tasks(
    config: ConfigPath = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List the procedure steps that this node performs for others ([[ups_sources]]), with state and why.

    Those that have not ended come first, then the newest. JSON: a list of {"source", "sop_instance_uid", "state",
    "study_instance_uid", "revision", "priority", "attempts", "discontinued" (code of why it is canceled), "reason",
    "due_at" (when it is looked at again, null where it has ended), "created_at", "updated_at"}.
    """
    from dicom_node import node
    from dicom_node.domain.audit import StudiesListed
    from dicom_node.pipeline import perform

    with exit_codes(), node.open_node(read_config(config)) as opened:
        opened.audit(StudiesListed(node.now(), node.person(), "worklist tasks"))
        rows = perform.told(opened.engine, limit)
        if as_json:
            typer.echo(json.dumps(rows, indent=2))
            return
        print_rows(rows)


def discontinue(
    step: Annotated[str, typer.Argument(help="SOP Instance UID of a procedure step, as `tasks` prints it.")],
    config: ConfigPath = None,
) -> None:
    """Give up a procedure step whose analysis is not begun: its provider is told that it is canceled (110513, DCM).

    One whose analysis is begun is completed all the same.
    """
    from dicom_node import node
    from dicom_node.pipeline import perform

    with (
        exit_codes(),
        node.open_node(settings := read_config(config)) as opened,
        node.administering(settings, "worklist discontinue", step, setting=Setting.RESTRICTED),
    ):
        if not perform.ask_to_cancel(opened.engine, step, node.now()):
            raise NotFoundError(
                f"no procedure step {step} is under way here; `worklist tasks` lists those that are"
            )
        typer.echo(f"step {step}: to be canceled, unless its analysis is begun")
