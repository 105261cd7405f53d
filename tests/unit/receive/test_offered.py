from __future__ import annotations

import pytest

from dicom_node.domain.sop_classes import IAN, MPPS, STORAGE_COMMITMENT, UPS_CLASSES, UPS_PULL, UPS_PUSH
from dicom_node.receive.command import CommandSet, MalformedCommandError, check_offered, parse
from dicom_node.receive.offered import C_FIND_RQ, C_STORE_RQ, N_ACTION_RQ, N_CREATE_RQ, N_GET_RQ, N_SET_RQ
from tests.hostile import wire


@pytest.mark.parametrize(
    ("field", "named", "context"),
    [
        (N_CREATE_RQ, UPS_PUSH.uid, UPS_PUSH.uid),
        (N_ACTION_RQ, UPS_PUSH.uid, UPS_PULL.uid),
        (C_FIND_RQ, UPS_PULL.uid, UPS_PULL.uid),
        (N_SET_RQ, MPPS.uid, MPPS.uid),
        (N_CREATE_RQ, IAN.uid, IAN.uid),
        (C_STORE_RQ, wire.CR, wire.CR),
    ],
)
def test_a_request_of_the_table_passes(field, named, context):
    check_offered(CommandSet(field, True, named), context)


@pytest.mark.parametrize(
    ("field", "named", "context"),
    [
        (N_CREATE_RQ, UPS_PUSH.uid, UPS_PULL.uid),
        (N_CREATE_RQ, MPPS.uid, UPS_PUSH.uid),
        (N_ACTION_RQ, STORAGE_COMMITMENT.uid, UPS_PUSH.uid),
        (N_SET_RQ, IAN.uid, IAN.uid),
        (C_FIND_RQ, UPS_PULL.uid, wire.CR),
        (N_GET_RQ, wire.VERIFICATION, wire.VERIFICATION),
        (C_STORE_RQ, UPS_PUSH.uid, UPS_PUSH.uid),
    ],
)
def test_any_other_ends_the_association(field, named, context):
    with pytest.raises(MalformedCommandError, match="another SOP class"):
        check_offered(CommandSet(field, True, named), context)


def test_what_never_has_a_data_set_has_none():
    with pytest.raises(MalformedCommandError, match="with a data set"):
        parse(wire.command(wire.C_CANCEL_RQ, data_set=0))


@pytest.mark.parametrize("entry", [*UPS_CLASSES, MPPS, IAN], ids=lambda entry: entry.name)
def test_no_service_is_accepted_unless_it_is_switched_on(entry, serve, associate):
    association = associate(serve(), classes=(entry.uid,), syntaxes=(wire.IMPLICIT,))
    accepted = {str(one.abstract_syntax) for one in association.accepted_contexts}
    assert entry.uid not in accepted
