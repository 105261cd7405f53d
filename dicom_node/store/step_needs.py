"""Says which files of the folder ``steps`` are needed, and by which rows. Reads three tables; never commits."""

from __future__ import annotations

from sqlalchemy import Connection

from dicom_node.store import procedure_steps, step_events, step_subscriptions


def digests(conn: Connection) -> set[str]:
    """Return the digests of all files that rows need."""
    return procedure_steps.digests(conn) | step_subscriptions.digests(conn) | step_events.digests(conn)


def lose(conn: Connection, digest: str) -> str:
    """Do without a file that is lost; return what that means, for people."""
    for uid in procedure_steps.lose(conn, digest):
        return f"counts as lost; step {uid} says what the images say from now on"
    ended = step_subscriptions.lose(conn, digest)
    step_events.lose(conn, digest)
    if ended:
        return f"counts as lost; the filtered subscription of {ended[0]} has ended. It has to subscribe again"
    return "counts as lost; watchers are told without it"
