"""The composition root: from a Config to a running node. The only place that builds things; owns the clock.

Rooms that load torch, highdicom or a network are imported where they are used: receiving alone needs none.
"""

from __future__ import annotations

from dicom_node.node.accounting import administering, check_audit, person, read_trail
from dicom_node.node.backfilling import announcing, backfill
from dicom_node.node.checking import check, explain_file, score_files, selftest
from dicom_node.node.keeping import amount, back_up, deep_check, prune, restore
from dicom_node.node.normals_fetched import normals
from dicom_node.node.opening import Node, calling_ae_title, destinations_of, now, open_node
from dicom_node.node.retrieving import archive_named, archives_of, fetcher
from dicom_node.node.serving import receiving, run
from dicom_node.node.web import people, run_web, web_address
from dicom_node.node.working import analyser, equipment, sender, workers

__all__ = [
    "Node",
    "administering",
    "amount",
    "analyser",
    "announcing",
    "archive_named",
    "archives_of",
    "back_up",
    "backfill",
    "calling_ae_title",
    "check",
    "check_audit",
    "deep_check",
    "destinations_of",
    "equipment",
    "explain_file",
    "fetcher",
    "normals",
    "now",
    "open_node",
    "people",
    "person",
    "prune",
    "read_trail",
    "receiving",
    "restore",
    "run",
    "run_web",
    "score_files",
    "selftest",
    "sender",
    "web_address",
    "workers",
]
