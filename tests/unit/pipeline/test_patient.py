"""Whose study it is, for the audit trail: by whatever image of it can be read."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, select, update

from dicom_node.db import schema
from dicom_node.db.engine import writing
from dicom_node.pipeline.patient import patient_id
from dicom_node.store.files import FileStore
from tests import synthetic


def test_a_study_is_its_patients_whose_first_images_went_or_were_lost(engine: Engine, tmp_path: Path) -> None:
    files, table = FileStore(tmp_path / "store", 0), schema.instances
    synthetic.fill(engine, 3, files=files)
    study = synthetic.study_uid(0)
    assert patient_id(engine, files, study) == "P00000"
    with writing(engine) as conn:
        revision = select(schema.revisions).where(schema.revisions.c.study_instance_uid == study)
        first = dict(conn.execute(revision).one()._mapping)
        conn.execute(schema.revisions.insert().values({**first, "number": 2}))
        held = dict(conn.execute(select(table).where(table.c.study_instance_uid == study)).one()._mapping)
        conn.execute(update(table).where(table.c.study_instance_uid == study).values(revision=2))
        lost = {"id": 1_000_000, "sop_instance_uid": "2.25.1", "digest": "0" * 64, "kept": "lost"}
        conn.execute(table.insert().values({**held, **lost}))
    assert patient_id(engine, files, study) == "P00000"
    assert patient_id(engine, files, "2.25.99") == ""
