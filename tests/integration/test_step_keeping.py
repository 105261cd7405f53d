"""Procedure steps go when their time is over, are locked against it, are backed up and looked after like images."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import func, select, update
from typer.testing import CliRunner

from dicom_node.cli.main import app
from dicom_node.config import load
from dicom_node.db.engine import reading, writing
from dicom_node.db.schema_steps import procedure_steps, step_events, step_subscriptions
from dicom_node.domain.audit import AuditOutcome
from dicom_node.domain.states import State
from dicom_node.domain.types import Kind
from dicom_node.node import open_node, stepping
from dicom_node.pipeline.archive import verify
from dicom_node.pipeline.backup import back_up
from dicom_node.queue import items
from dicom_node.store import step_subscriptions as subscriptions
from dicom_node.store.faults import Code
from tests.integration.test_backup import config, destroy, restored
from tests.integration.test_deep_check import found, mended
from tests.workflow import FILTERED, GLOBAL, STEP, Manager, Provider, asked

MONTH = 31 * 86_400


def finish(provider: Provider) -> None:
    provider.study()
    provider.complete()
    provider.site.work()
    provider.steps.follow()


def rows(provider: Provider) -> int:
    with reading(provider.site.engine) as conn:
        return conn.execute(select(func.count()).select_from(procedure_steps)).scalar_one()


def test_a_step_that_ended_goes_with_its_data_set_and_one_that_goes_on_stays(provider, manager):
    manager.create(asked())
    manager.create(asked(InputInformationSequence=None, StudyInstanceUID="2.25.1"), "2.25.2")
    finish(provider)
    provider.site.clock.forward(29 * 86_400)
    assert provider.prune() == 0
    provider.site.clock.forward(2 * 86_400)
    assert provider.prune(dry_run=True) == 1
    assert len(provider.kept()) == 2
    assert provider.prune() == 1
    assert manager.association.send_n_get([], "1.2.840.10008.5.1.4.34.6.1", STEP)[0].Status == 0xC307
    assert manager.get("2.25.2").ProcedureStepState == "SCHEDULED"
    assert len(provider.kept()) == 1
    provider.steps.follow()
    assert rows(provider) == 1, "work that is done gets no new step"


def test_work_that_is_scheduled_again_after_its_step_went_gets_a_step_of_another_uid(provider, manager):
    provider.steps.follow()
    provider.study()
    provider.complete()
    (first,) = manager.find(ProcedureStepState="SCHEDULED")
    manager.act(2, first.SOPInstanceUID)
    provider.site.clock.forward(MONTH)
    assert provider.prune() == 1
    (item,) = provider.site.items(Kind.ANALYSE)
    with writing(provider.site.engine) as conn:
        items.requeue(conn, item.id, provider.site.clock())
    (second,) = manager.find(ProcedureStepState="SCHEDULED")
    assert second.SOPInstanceUID != first.SOPInstanceUID


def test_a_step_whose_analysis_waits_for_a_person_stays(provider, manager):
    manager.create(asked())
    provider.study()
    provider.complete()

    def broken(_ds):
        raise RuntimeError("no")

    provider.site.judge = broken
    for _ in range(5):
        provider.site.work()
        provider.site.clock.forward(3600)
    assert {item.state for item in provider.site.items(Kind.ANALYSE)} == {State.FAILED}
    provider.steps.follow()
    provider.site.clock.forward(MONTH)
    assert provider.prune() == 0
    assert manager.get().ProcedureStepState == "CANCELED"


@pytest.mark.parametrize(
    ("uid", "keys"),
    [(STEP, {}), (GLOBAL, {}), (FILTERED, {"PatientName": "\u5c71*"})],
    ids=["one step", "all steps", "filtered"],
)
def test_a_locked_step_can_be_got_until_it_is_unlocked(provider, manager, uid, keys):
    with provider.listening():
        manager.create(asked())
        charset = {"SpecificCharacterSet": "ISO_IR 192"} if keys else {}
        assert manager.act(3, uid, ReceivingAE="MANAGER", DeletionLock="TRUE", **charset, **keys) == 0
        finish(provider)
        provider.tell()
        provider.site.clock.forward(MONTH)
        assert provider.prune() == 0
        assert manager.get().ProcedureStepState == "COMPLETED"
        assert manager.act(4, uid, ReceivingAE="MANAGER") == 0
        assert provider.prune() == 1
    assert provider.kept() == []


def test_a_filtered_lock_holds_only_what_matches(provider, manager):
    with provider.listening():
        manager.create(asked())
        assert manager.act(3, FILTERED, ReceivingAE="MANAGER", DeletionLock="TRUE", PatientID="P2") == 0
        finish(provider)
        provider.tell()
        provider.site.clock.forward(MONTH)
        assert provider.prune() == 1


def test_a_lock_of_one_that_never_unlocks_ends_after_a_year(provider, manager):
    with provider.listening():
        manager.create(asked())
        assert manager.act(3, ReceivingAE="MANAGER", DeletionLock="TRUE") == 0
        finish(provider)
        provider.tell()
        provider.site.clock.forward(364 * 86_400)
        assert provider.prune() == 0
        provider.site.clock.forward(2 * 86_400)
        assert provider.prune() == 1
    with reading(provider.site.engine) as conn:
        assert conn.execute(select(step_subscriptions)).all() == []


def test_a_lock_is_not_granted_while_the_disk_is_full_and_the_events_are_told_all_the_same(provider, manager):
    with provider.listening() as listener:
        manager.create(asked())
        provider.site.files._reserve = 2**62
        assert manager.act(3, ReceivingAE="MANAGER", DeletionLock="TRUE") == 0xB301
        provider.site.files._reserve = 0
        finish(provider)
        provider.tell()
        assert listener.heard[-1] == (STEP, "COMPLETED")
        provider.site.clock.forward(MONTH)
        assert provider.prune() == 1


def test_a_suspended_subscription_is_forgotten_with_the_last_step_that_it_was_for(provider, manager):
    with provider.listening():
        manager.create(asked())
        assert manager.act(3, GLOBAL, ReceivingAE="MANAGER", DeletionLock="FALSE") == 0
        assert manager.act(5, GLOBAL, ReceivingAE="MANAGER") == 0
        finish(provider)
        provider.tell()
        provider.site.clock.forward(MONTH)
        with reading(provider.site.engine) as conn:
            assert len(conn.execute(select(step_subscriptions)).all()) == 1
        assert provider.prune() == 1
        with reading(provider.site.engine) as conn:
            assert conn.execute(select(step_subscriptions)).all() == []


def test_a_subscription_to_a_step_that_is_no_more_is_forgotten(provider, manager):
    with writing(provider.site.engine) as conn:
        for uid in ("1.2.3", GLOBAL):
            now = provider.site.clock()
            subscriptions.subscribe(conn, "MANAGER", uid, peer_address="127.0.0.1", at=now)
    provider.prune()
    with reading(provider.site.engine) as conn:
        (left,) = conn.execute(select(step_subscriptions)).all()
    assert left.sop_instance_uid == GLOBAL


def test_what_a_dead_process_left_of_a_step_is_swept_and_what_is_young_is_not(provider, manager):
    manager.create(asked())
    (kept,) = provider.kept()
    folder = provider.site.files.root / "steps"
    for name in ("a" * 64, "b" * 64):
        (folder / f"{name}.dcm").write_bytes(b"x")
    for name in (kept, "a" * 64 + ".dcm"):
        os.utime(folder / name, (0, 0))
    provider.prune()
    assert provider.kept() == sorted([kept, "b" * 64 + ".dcm"])


def test_a_step_whose_file_went_before_a_death_goes_the_next_time(provider, manager):
    manager.create(asked())
    finish(provider)
    provider.site.clock.forward(MONTH)
    for name in provider.kept():
        (provider.site.files.root / "steps" / name).unlink()
    assert provider.prune() == 1
    assert rows(provider) == 0


def test_a_backup_has_what_peers_said_and_a_restored_node_goes_on_with_it(provider, manager, tmp_path: Path):
    site = provider.site
    if site.engine.dialect.name == "postgresql" and shutil.which("pg_dump") is None:
        pytest.skip("pg_dump is not installed")
    with provider.listening():
        manager.create(asked())
        assert manager.act(3, FILTERED, ReceivingAE="MANAGER", DeletionLock="TRUE", PatientID="P1") == 0
        said = str(manager.get())
        manager.association.release()
        provider.scp.stop()
        backup = tmp_path / "out" / "backup.tar"
        back_up(site.engine, site.files, config(site, tmp_path), backup, site.clock(), with_images=False)
        assert sum(name.startswith("store/steps/") for name in verify(backup)["files"]) == 2
        destroy(site)
        again = restored(site, backup, tmp_path)
        assert found(again) == []
        node = Provider(again.engine, again.files.root)
        with node.scp:
            asking = Manager(node.scp.address)
            assert str(asking.get()) == said
            asking.association.release()
        again.engine.dispose()


def faults(provider: Provider) -> list[Code]:
    return [seen.fault.code for seen in found(provider.site)]


def test_the_deep_check_tells_of_a_damaged_and_a_missing_data_set_and_of_one_too_many(provider, manager):
    manager.create(asked())
    (name,) = provider.kept()
    path = provider.site.files.root / "steps" / name
    assert faults(provider) == []
    whole = path.read_bytes()
    path.write_bytes(whole + b"!")
    assert faults(provider) == [Code.DAMAGED_STEP]
    path.unlink()
    assert faults(provider) == [Code.MISSING_STEP]
    path.write_bytes(whole)
    path.chmod(0o600)
    other = path.with_name("0" * 64 + ".dcm")
    shutil.copy(path, other)
    (path.parent / "note.txt").write_text("x", encoding="utf-8")
    assert sorted(faults(provider)) == [Code.FOREIGN, Code.ORPHAN_STEP]
    path.parent.chmod(0o755)
    assert Code.WRONG_MODE in faults(provider)


def test_a_step_whose_data_set_is_damaged_hides_no_other_and_goes_on_once_it_is_mended(provider, manager):
    manager.create(asked())
    manager.create(asked(InputInformationSequence=None, StudyInstanceUID="2.25.1"), "2.25.2")
    path = next(p for p in (provider.site.files.root / "steps").iterdir() if STEP.encode() in p.read_bytes())
    path.write_bytes(b"damaged")
    assert manager.association.send_n_get([], "1.2.840.10008.5.1.4.34.6.1", STEP)[0].Status == 0x0110
    assert [one.SOPInstanceUID for one in manager.find(SOPInstanceUID="")] == ["2.25.2"]
    (seen,) = mended(provider.site)
    assert (seen.fault.code, seen.mended) == (Code.DAMAGED_STEP, True)
    assert faults(provider) == []
    assert list((provider.site.files.root / "quarantine").iterdir())
    finish(provider)
    assert manager.get().ProcedureStepState == "COMPLETED"


def test_a_store_whose_disk_is_not_mounted_loses_no_step(provider, manager):
    manager.create(asked())
    folder = provider.site.files.root / "steps"
    folder.rename(folder.with_name("elsewhere"))
    seen = next(one for one in mended(provider.site) if one.fault.code is Code.MISSING_STEP)
    assert not seen.mended
    assert "mounted" in seen.done
    folder.with_name("elsewhere").rename(folder)
    assert faults(provider) == []
    assert str(manager.get().PatientName) == "山田^太郎"


def test_a_subscription_whose_keys_are_lost_ends_and_says_so(provider, manager):
    with provider.listening():
        assert manager.act(3, FILTERED, ReceivingAE="MANAGER", DeletionLock="FALSE", PatientID="P1") == 0
        (name,) = provider.kept()
        (provider.site.files.root / "steps" / name).unlink()
        (seen,) = mended(provider.site)
        assert seen.fault.code is Code.MISSING_STEP
        assert "subscribe again" in seen.done
        with reading(provider.site.engine) as conn:
            assert conn.execute(select(step_subscriptions)).all() == []


def test_requests_about_steps_are_in_the_audit_trail_with_what_they_came_to(provider, manager):
    with provider.listening():
        manager.create(asked())
        manager.act(3, ReceivingAE="MANAGER", DeletionLock="FALSE")
        manager.act(3, ReceivingAE="OTHER")
        manager.get()
        manager.find(PatientName="*")
        manager.act(2)
    told = [(one.what, one.action.value, one.sop_instance_uid, one.outcome) for one in provider.heard]
    good, bad = AuditOutcome.SUCCESS, AuditOutcome.MINOR_FAILURE
    assert told == [
        ("N-CREATE", "C", STEP, good),
        ("subscribe", "U", STEP, good),
        ("subscribe", "U", STEP, bad),
        ("N-GET", "R", STEP, good),
        ("C-FIND", "E", "", good),
        ("request cancel", "U", STEP, good),
    ]
    assert {one.peer.ae_title for one in provider.heard} == {"MANAGER"}
    assert "0x0124" in provider.heard[2].description


def test_nothing_of_steps_grows_for_ever(provider, manager):
    """Fifty days of asked-for work, watched and locked by an AE that went: what is kept is bounded."""
    with provider.listening() as listener:
        manager.act(3, GLOBAL, ReceivingAE="MANAGER", DeletionLock="FALSE")
        for day in range(50):
            study, step = f"2.25.5{day}", f"2.25.6{day}"
            manager.create(asked(InputInformationSequence=None, StudyInstanceUID=study), step)
            manager.act(2, step)
            provider.tell()
            provider.site.clock.forward(86_400)
            provider.prune()
        assert len(listener.heard) == 150
    assert rows(provider) == 30
    assert len(provider.kept()) == 30
    with reading(provider.site.engine) as conn:
        assert conn.execute(select(step_events)).all() == []


def test_the_command_that_prunes_says_how_many_steps_go_whether_steps_are_offered_or_not(tmp_path: Path):
    settings = tmp_path / "config.toml"
    settings.write_text(
        f"""[store]
root = "{tmp_path / "store"}"
reserve_megabytes = 1
[db]
url = "sqlite:///{tmp_path / "node.db"}"
[receive]
procedure_step_days = 7
""",
        encoding="utf-8",
    )
    with open_node(load(settings)) as node:
        steps = stepping.steps(node)
        steps.create(STEP, asked(), "MANAGER")
        steps.request_cancel(STEP, Dataset(), "MANAGER")
        eight_days_ago = datetime.now(UTC) - timedelta(days=8)
        with writing(node.engine) as conn:
            conn.execute(update(procedure_steps).values(ended_at=eight_days_ago))
    told = []
    for more in (["--dry-run", "--json"], ["--json"], []):
        done = CliRunner().invoke(app, ["prune", *more, "--config", str(settings)])
        assert done.exit_code == 0, done.output
        told.append(json.loads(done.stdout)["steps"] if more else done.stdout.strip())
    assert told == [1, 1, "removed: 0 studies (0.0 MB), 0 reports of earlier ones, 0 procedure steps"]
    assert list((tmp_path / "store" / "steps").iterdir()) == []
