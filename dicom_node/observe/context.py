"""Fields bound to whatever is logged from here on in this thread, such as a work item's id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_BOUND: ContextVar[Mapping[str, object]] = ContextVar("dicom_node_log_fields", default={})  # noqa: B039 - never mutated


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Add `fields` to every log record made inside the block."""
    token = _BOUND.set({**_BOUND.get(), **fields})
    try:
        yield
    finally:
        _BOUND.reset(token)


def current() -> Mapping[str, object]:
    """Return the fields bound now."""
    return _BOUND.get()
