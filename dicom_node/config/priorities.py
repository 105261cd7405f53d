"""Which studies are urgent."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from dicom_node.config.values import AETitle, CodeString, Section
from dicom_node.domain import urgency
from dicom_node.domain.routing import Route


class PriorityRule(Section):
    """A priority, and the conditions on a study that has it; the first rule that is met counts."""

    priority: Literal["STAT", "HIGH", "ROUTINE", "LOW"]
    modalities: tuple[CodeString, ...] = ()
    calling_ae_titles: tuple[AETitle, ...] = ()
    body_parts: tuple[CodeString, ...] = ()

    @model_validator(mode="after")
    def _says_which(self) -> PriorityRule:
        if not (self.modalities or self.calling_ae_titles or self.body_parts):
            raise ValueError("states no condition; name modalities, calling_ae_titles or body_parts")
        return self

    @property
    def rule(self) -> tuple[Route, int]:
        """The rule as values that the rest of the program takes."""
        conditions = Route(
            frozenset(self.modalities), frozenset(self.calling_ae_titles), frozenset(self.body_parts)
        )
        return conditions, urgency.stated(self.priority)
