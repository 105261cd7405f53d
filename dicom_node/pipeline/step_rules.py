"""What answers those who would perform a step: the node performs its steps itself (PS3.4 table CC.1.1-2). Pure."""

from __future__ import annotations

from dicom_node.domain import procedure_steps as ups
from dicom_node.domain.errors import StepRefusedError
from dicom_node.domain.procedure_steps import Step


def no_setting(step: Step) -> StepRefusedError:
    """Return why an N-SET changes nothing."""
    if step.state in ups.FINAL:
        return StepRefusedError(ups.NO_LONGER_UPDATED, f"the step is {step.state}")
    if step.state == ups.SCHEDULED:
        return StepRefusedError(ups.NOT_YET_IN_PROGRESS, "the step is not IN PROGRESS")
    return StepRefusedError(
        ups.WRONG_TRANSACTION, "the node performs this step; its Transaction UID is its own"
    )


def no_change(step: Step, state: str, transaction_uid: str) -> StepRefusedError:
    """Return why a step does not get the state that somebody asks for."""
    if state == ups.SCHEDULED:
        return StepRefusedError(ups.ONLY_BY_CREATION, "a step becomes SCHEDULED by N-CREATE only")
    if state not in (ups.IN_PROGRESS, ups.COMPLETED, ups.CANCELED):
        return StepRefusedError(ups.INVALID_ARGUMENT, "the state is none of the standard's")
    if not transaction_uid:
        return StepRefusedError(ups.WRONG_TRANSACTION, "there is no Transaction UID")
    if state == ups.IN_PROGRESS:
        if step.state in ups.FINAL:
            return StepRefusedError(ups.NO_LONGER_UPDATED, f"the step is {step.state}")
        if step.state == ups.IN_PROGRESS:
            return StepRefusedError(ups.ALREADY_IN_PROGRESS, "the node performs it")
        return StepRefusedError(ups.NOT_AUTHORISED, "the node itself performs its steps")
    if step.state == ups.SCHEDULED:
        return StepRefusedError(ups.NOT_YET_IN_PROGRESS, "the step is SCHEDULED")
    return StepRefusedError(ups.WRONG_TRANSACTION, "the Transaction UID is not the one of this step")
