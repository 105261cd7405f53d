"""Which reports a destination gets, and when it is sent to."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from dicom_node.config.values import AETitle, CodeString, Section
from dicom_node.domain.limits import Window
from dicom_node.domain.routing import Route
from dicom_node.domain.types import Verdict


def _window(text: str) -> str:
    Window.parse(text)
    return text


DailyWindow = Annotated[str, AfterValidator(_window)]
"""A part of every day, such as ``22:00-06:00``."""


class RouteSection(Section):
    """Conditions; a report goes to the destination if it meets all that are stated."""

    modalities: tuple[CodeString, ...] = ()
    calling_ae_titles: tuple[AETitle, ...] = ()
    body_parts: tuple[CodeString, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    minimum_percentile: Annotated[float, Field(ge=0, le=100)] | None = None

    @property
    def route(self) -> Route:
        """The section as the value that the rest of the program takes."""
        return Route(
            frozenset(self.modalities),
            frozenset(self.calling_ae_titles),
            frozenset(self.body_parts),
            frozenset(verdict.value for verdict in self.verdicts),
            self.minimum_percentile,
        )
