"""Which DIMSE requests may come on a context of which SOP class, and may carry a data set: a table. Pure.

Storage and Verification are not in it: C-STORE has its own rules (`handlers.check_command`), C-ECHO carries nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dicom_node.domain.sop_classes import (
    IAN,
    MPPS,
    STORAGE_COMMITMENT,
    UPS_CLASSES,
    UPS_EVENT,
    UPS_PULL,
    UPS_PUSH,
    UPS_QUERY,
    UPS_WATCH,
)

C_STORE_RQ = 0x0001
C_FIND_RQ = 0x0020
C_ECHO_RQ = 0x0030
C_CANCEL_RQ = 0x0FFF
N_EVENT_REPORT_RQ = 0x0100
N_GET_RQ = 0x0110
N_SET_RQ = 0x0120
N_ACTION_RQ = 0x0130
N_CREATE_RQ = 0x0140
N_EVENT_REPORT_RSP = 0x8100

HELD = frozenset({C_FIND_RQ, N_EVENT_REPORT_RQ, N_SET_RQ, N_ACTION_RQ, N_CREATE_RQ, N_EVENT_REPORT_RSP})
"""Requests whose data sets are small and held in memory (`held.HeldDataSet`)."""

_UPS = frozenset(entry.uid for entry in UPS_CLASSES)
_FIND = frozenset({C_FIND_RQ, C_CANCEL_RQ})

OFFERED: Mapping[str, frozenset[int]] = MappingProxyType(
    {
        STORAGE_COMMITMENT.uid: frozenset({N_ACTION_RQ, N_EVENT_REPORT_RQ, N_EVENT_REPORT_RSP}),
        UPS_PUSH.uid: frozenset({N_CREATE_RQ, N_GET_RQ, N_ACTION_RQ}),
        UPS_PULL.uid: frozenset({N_GET_RQ, N_SET_RQ, N_ACTION_RQ}) | _FIND,
        UPS_WATCH.uid: frozenset({N_GET_RQ, N_ACTION_RQ}) | _FIND,
        UPS_QUERY.uid: frozenset({N_GET_RQ}) | _FIND,
        UPS_EVENT.uid: frozenset({N_EVENT_REPORT_RQ}),
        MPPS.uid: frozenset({N_CREATE_RQ, N_SET_RQ}),
        IAN.uid: frozenset({N_CREATE_RQ}),
    }
)
"""Commands by abstract syntax (PS3.4 tables J.2-1, CC.2-1, F.7.1-1, R.2-1). Whether a class is accepted at all is
for the guard."""


def may_name(abstract_syntax: str) -> frozenset[str]:
    """Return the SOP classes that a command on such a context may name.

    Any class of UPS may be negotiated for an instance of UPS Push (PS3.4 section CC.3.1).
    """
    return _UPS if abstract_syntax in _UPS else frozenset({abstract_syntax})
