"""What event reports on procedure steps say (PS3.4 table CC.2.4-1). Pure."""

from __future__ import annotations

from pydicom import Dataset

from dicom_node.domain import procedure_steps as ups
from dicom_node.domain.procedure_steps import StepEvent
from dicom_node.pipeline import step_sets

OF_A_CANCEL_REQUEST = (
    "SpecificCharacterSet",
    "ReasonForCancellation",
    "ProcedureStepDiscontinuationReasonCodeSequence",
    "ContactURI",
    "ContactDisplayName",
)
"""What a request to cancel may say, and subscribers are told (PS3.4 table CC.2.2-1)."""
_WHO_PERFORMS = ("SpecificCharacterSet", "ScheduledStationNameCodeSequence", "ScheduledHumanPerformersSequence")


def state(event: StepEvent, readiness: str) -> Dataset:
    """Return the Event Information of a State Report; `readiness` is Input Readiness State."""
    ds = Dataset()
    ds.ProcedureStepState = event.state
    ds.InputReadinessState = readiness
    if event.state == ups.CANCELED:
        ds.ReasonForCancellation = event.reason[:1024] or "canceled"
        ds.ProcedureStepDiscontinuationReasonCodeSequence = [step_sets.discontinued(event.reason)]
    return ds


def cancel_requested(event: StepEvent, said: Dataset) -> Dataset:
    """Return the Event Information of a Cancel Requested: who asked, and what he said."""
    ds = chosen(said, OF_A_CANCEL_REQUEST)
    ds.RequestingAE = event.requesting_ae
    return ds


def progress(event: StepEvent) -> Dataset:
    """Return the Event Information of a Progress Report."""
    ds = Dataset()
    ds.ProcedureStepProgressInformationSequence = [step_sets.progress(event.progress, event.reason)]
    return ds


def status(event: StepEvent) -> Dataset:
    """Return the Event Information of an SCP Status Change: steps and subscriptions outlast a restart."""
    ds = Dataset()
    ds.SCPStatus = event.state
    ds.SubscriptionListStatus = ds.UnifiedProcedureStepListStatus = "WARM START"
    return ds


def assigned(step: Dataset) -> Dataset:
    """Return the Event Information of an Assigned: who is to perform the step, as it says itself."""
    return chosen(step, _WHO_PERFORMS)


def chosen(ds: Dataset, keywords: tuple[str, ...]) -> Dataset:
    """Return those of some attributes that are there and not empty."""
    found = Dataset()
    for keyword in keywords:
        if keyword in ds and ds[keyword].value:
            found[keyword] = ds[keyword]
    return found
