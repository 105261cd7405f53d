"""Further services of the SCP: what each serves, and how a request finds the one that answers it.

Owns the one handler that pynetdicom allows for each kind of request. Knows nothing of what a service does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from pynetdicom import evt
from pynetdicom.events import EventHandlerType

SOP_CLASS_NOT_SUPPORTED = 0x0122
UNRECOGNISED_OPERATION = 0x0211


class Service(Protocol):
    """Answers the requests of some SOP classes."""

    @property
    def sop_classes(self) -> frozenset[str]:
        """Abstract syntaxes whose requests it answers."""

    @property
    def handlers(self) -> Sequence[EventHandlerType]:
        """Handlers of pynetdicom's events: of N-services, returning a status and a data set; of C-FIND, a generator."""


def joined(services: Sequence[Service]) -> list[EventHandlerType]:
    """Return one handler for each kind of request, that hands it on by the abstract syntax of its context."""
    by_event: dict[Any, dict[str, Callable[[evt.Event], Any]]] = {}
    for service in services:
        for event, handler, *_ in service.handlers:
            by_event.setdefault(event, {}).update(dict.fromkeys(service.sop_classes, handler))
    return [(event, _choose(event, handlers)) for event, handlers in by_event.items()]


def _choose(event: Any, handlers: dict[str, Callable[[evt.Event], Any]]) -> Callable[[evt.Event], Any]:
    refuse = _refuse_find if event is evt.EVT_C_FIND else _refuse

    def handle(request: evt.Event) -> Any:
        return handlers.get(str(request.context.abstract_syntax), refuse)(request)

    return handle


def _refuse(_event: evt.Event) -> tuple[int, None]:
    return UNRECOGNISED_OPERATION, None


def _refuse_find(_event: evt.Event) -> Iterator[tuple[int, None]]:
    yield SOP_CLASS_NOT_SUPPORTED, None
