"""A backup of a node at work holds everything whole; a node that is destroyed comes back from it."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import Engine, select, text

from dicom_node.config import Config, load
from dicom_node.db import migrate, schema
from dicom_node.db.engine import open_engine, reading, writing
from dicom_node.domain.errors import AccessError, NodeError, StoreError
from dicom_node.domain.people import Person
from dicom_node.domain.reading import Role
from dicom_node.pipeline.archive import verify
from dicom_node.pipeline.backup import back_up, settings
from dicom_node.pipeline.people import People
from dicom_node.pipeline.restore import restore
from dicom_node.score.bank_store import BankStore
from dicom_node.store.faults import Code
from dicom_node.store.files import FileStore
from tests.integration.test_deep_check import found, mended
from tests.integration.test_pipeline import Site
from tests.phantoms import chest_dataset


@pytest.fixture
def site(engine: Engine, tmp_path: Path) -> Site:
    if engine.dialect.name == "postgresql" and shutil.which("pg_dump") is None:
        pytest.skip("pg_dump is not installed")
    return Site(engine, tmp_path / "store")


def config(site: Site, folder: Path) -> Config:
    url = site.engine.url.render_as_string(hide_password=False)
    return load(None, {}, {"db": {"url": url}, "store": {"root": str(site.files.root)},
                           "score": {"banks": str(folder / "banks")}})  # fmt: skip


def studies_of(site: Site) -> set[str]:
    with reading(site.engine) as conn:
        return set(conn.execute(select(schema.revisions.c.study_instance_uid)).scalars())


def destroy(site: Site) -> None:
    """Lose database and store, as a machine that burns down."""
    shutil.rmtree(site.files.root)
    if site.engine.dialect.name == "postgresql":
        with writing(site.engine) as conn:
            conn.execute(text("DROP SCHEMA public CASCADE"))
            conn.execute(text("CREATE SCHEMA public"))
    else:
        site.engine.dispose()
        for path in Path(str(site.engine.url.database)).parent.glob("node.db*"):
            path.unlink()


def restored(site: Site, backup: Path, folder: Path, *, overwrite: bool = False) -> Site:
    settings = config(site, folder)
    engine = open_engine(settings.db)
    files = FileStore(settings.store.root, 0)
    restore(engine, files, settings, backup, verify(backup), site.clock(), overwrite=overwrite)
    again = Site(engine, settings.store.root)
    again.peer = site.peer
    again.dispatch._send = site.peer.send
    again.clock.at = site.clock.at
    return again


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
def test_a_destroyed_node_comes_back_with_every_study_and_no_report_twice(
    site: Site, tmp_path: Path, name: str
) -> None:
    bank = tmp_path / "banks" / "b1"
    bank.mkdir(parents=True)
    (bank / "manifest.json").write_text("{}", encoding="utf-8")
    active = {"active": [{"name": "b1", "bank_hash": "f0"}], "history": []}
    (bank.parent / "active.json").write_text(json.dumps(active), encoding="utf-8")
    first = [chest_dataset(seed=n) for n in range(2)]
    for ds in first:
        site.receive(ds)
    site.pass_quiet_time()
    site.work()
    waiting = chest_dataset(seed=7)
    site.receive(waiting)
    backup = tmp_path / "out" / name
    done = back_up(site.engine, site.files, config(site, tmp_path), backup, site.clock(), with_images=True)
    assert verify(backup)["files"].keys() >= {"config.toml", "banks/active.json", "banks/b1/manifest.json"}
    assert done.vanished == ()
    site.pass_quiet_time()
    site.work()  # delivered after the backup: the restored node does not know it
    shutil.rmtree(tmp_path / "banks")
    destroy(site)
    again = restored(site, backup, tmp_path)
    assert found(again) == []
    assert BankStore(tmp_path / "banks").active() == ("b1",)
    again.pass_quiet_time()
    again.work()
    expected = {str(ds.StudyInstanceUID) for ds in (*first, waiting)}
    assert studies_of(again) == expected
    at_pacs = {str(dcmread(BytesIO(c)).SOPInstanceUID): str(dcmread(BytesIO(c)).StudyInstanceUID)
               for n, c in site.peer.kept if n == "pacs"}  # fmt: skip
    assert Counter(at_pacs.values()) == Counter(dict.fromkeys(expected, 1))
    again.engine.dispose()


def test_nobody_comes_in_by_what_was_good_when_the_backup_was_made(site: Site, tmp_path: Path) -> None:
    before = People(site.engine, site.clock)
    before.put("anna", Role.VIEWER, "a long passcode")
    session, token, link = (
        before.open(Person("anna", Role.VIEWER), "").token,
        before.token("anna"),
        before.link("anna"),
    )
    assert before.session(session)
    back_up(
        site.engine, site.files, config(site, tmp_path), tmp_path / "backup", site.clock(), with_images=False
    )
    before.revoke("anna")
    destroy(site)
    again = restored(site, tmp_path / "backup", tmp_path)
    after = People(again.engine, again.clock)
    assert after.session(session) is None
    assert after.program(token) is None
    with pytest.raises(AccessError):
        after.follow_link(link, "")
    assert after.login("anna", "a long passcode", "").session.person.name == "anna"
    again.engine.dispose()


def test_studies_received_after_the_backup_are_entered_again_from_the_store_that_survived(
    site: Site, tmp_path: Path
) -> None:
    site.receive(chest_dataset(seed=1))
    site.pass_quiet_time()
    site.work()
    backup = tmp_path / "backup.tar"
    back_up(site.engine, site.files, config(site, tmp_path), backup, site.clock(), with_images=False)
    later = chest_dataset(seed=2)
    site.receive(later)
    site.pass_quiet_time()
    site.work()
    with pytest.raises(StoreError, match="there is a node already: its database holds studies"):
        restored(site, backup, tmp_path)
    again = restored(site, backup, tmp_path, overwrite=True)
    assert str(later.StudyInstanceUID) not in studies_of(again)
    assert {seen.fault.code for seen in found(again)} == {Code.ORPHAN_IMAGE, Code.ORPHAN_REPORT}
    mended(again)
    again.clock.forward(10)
    again.gather()
    again.work()
    assert str(later.StudyInstanceUID) in studies_of(again)
    assert found(again) == []
    at_pacs = [str(dcmread(BytesIO(c)).SOPInstanceUID) for n, c in site.peer.kept if n == "pacs"]
    assert len(set(at_pacs)) == 2  # the second report came twice, as one object
    again.engine.dispose()


def test_weights_beside_the_banks_come_back_and_those_that_are_there_stay(site: Site, tmp_path: Path) -> None:
    weights = tmp_path / "banks" / "weights"
    weights.mkdir(parents=True)
    for name in ("aa", "bb"):
        (weights / name).write_bytes(name.encode())
    backup = tmp_path / "backup.tar"
    back_up(site.engine, site.files, config(site, tmp_path), backup, site.clock(), with_images=False)
    (weights / "aa").unlink()
    again = restored(site, backup, tmp_path, overwrite=True)
    assert {path.name: path.read_bytes() for path in weights.iterdir()} == {"aa": b"aa", "bb": b"bb"}
    again.engine.dispose()


def test_a_backup_made_while_studies_arrive_has_a_file_for_every_row(site: Site, tmp_path: Path) -> None:
    site.receive(chest_dataset(seed=1))
    seen = []

    class Meanwhile(FileStore):
        def instance_path(self, digest: str) -> Path:
            if not seen:  # between the database's copy and the files'
                seen.append(site.receive(chest_dataset(seed=2)))
            return super().instance_path(digest)

    backup = tmp_path / "backup"
    files = Meanwhile(site.files.root, 0)
    back_up(site.engine, files, config(site, tmp_path), backup, site.clock(), with_images=True)
    assert seen
    destroy(site)
    again = restored(site, backup, tmp_path)
    assert {s.fault.code for s in found(again)} <= {Code.ORPHAN_IMAGE}
    assert len(studies_of(again)) == 1
    again.engine.dispose()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda b: (b / "config.toml").write_bytes(b"# other"), "config.toml is damaged"),
        (lambda b: next(b.glob("database.*")).unlink(), "is missing"),
        (lambda b: (b / "extra").write_bytes(b""), "extra is not in the manifest"),
        (lambda b: (b / "manifest.json").unlink(), "has no manifest.json"),
        (lambda b: (b / "manifest.json").write_text('{"format": 9, "files": {}}'), "has format 9"),
        (lambda b: (b / "link").symlink_to("/etc/hostname"), "is no plain file"),
    ],
)
def test_a_backup_that_is_not_whole_is_refused_before_anything_is_touched(
    tmp_path: Path, harm: Callable[[Path], object], said: str
) -> None:
    engine = open_engine(load(None, {}, {"db": {"url": f"sqlite:///{tmp_path / 'node.db'}"}}).db)
    migrate.upgrade(engine)
    site = Site(engine, tmp_path / "store")
    backup = tmp_path / "backup"
    back_up(site.engine, site.files, config(site, tmp_path), backup, site.clock(), with_images=False)
    harm(backup)
    with pytest.raises(StoreError, match=said):
        verify(backup)


def test_a_tar_with_a_path_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    for name in ("../evil", "/etc/evil", "store/../../evil", ".hidden"):
        path = tmp_path / "evil.tar"
        with tarfile.open(path, "w") as tar:
            tar.addfile(tarfile.TarInfo(name), BytesIO())
        with pytest.raises(StoreError, match="plain names"):
            verify(path)


def test_a_backup_that_fails_leaves_nothing_behind(site: Site, tmp_path: Path) -> None:
    site.receive(chest_dataset())
    (tmp_path / "out").mkdir()

    class Full(FileStore):
        def instance_path(self, digest: str) -> Path:
            raise StoreError("the disk is gone")

    for name in ("b", "b.tar"):
        with pytest.raises(NodeError, match="the disk is gone"):
            back_up(site.engine, Full(site.files.root, 0), config(site, tmp_path), tmp_path / "out" / name,
                    site.clock(), with_images=True)  # fmt: skip
        assert list((tmp_path / "out").iterdir()) == []


def test_a_backup_is_its_owners_alone_and_never_written_over(site: Site, tmp_path: Path) -> None:
    for name in ("b", "b.tar"):
        target = tmp_path / name
        back_up(site.engine, site.files, config(site, tmp_path), target, site.clock(), with_images=False)
        assert target.stat().st_mode & 0o077 == 0
        with pytest.raises(StoreError, match="exists already"):
            back_up(site.engine, site.files, config(site, tmp_path), target, site.clock(), with_images=False)
    assert {p.stat().st_mode & 0o077 for p in (tmp_path / "b").rglob("*")} == {0}


def test_the_settings_come_back_as_they_were_in_force_without_the_databases_password(tmp_path: Path) -> None:
    flags = {
        "receive": {"port": 4242, "peers": [{"ae_title": "CR1", "addresses": ["10.0.0.0/8"]}]},
        "destinations": [{"name": "pacs", "ae_title": "PACS", "host": "10.0.0.5", "port": 104}],
    }
    before = load(None, {"DICOM_NODE__STORE__RETENTION_DAYS": "30"}, flags)
    path = tmp_path / "config.toml"
    path.write_text(settings(before), encoding="utf-8")
    assert load(path) == before
    secret = load(None, {}, {"db": {"url": "postgresql+psycopg://node:s3cret@db/node"}})
    assert "s3cret" not in settings(secret)
    assert "node@db/node" in settings(secret)


def test_the_manifest_says_what_made_it(site: Site, tmp_path: Path) -> None:
    backup = tmp_path / "b"
    back_up(site.engine, site.files, config(site, tmp_path), backup, site.clock(), with_images=False)
    manifest = json.loads((backup / "manifest.json").read_bytes())
    assert manifest["schema"] == migrate.head()
    assert manifest["database"] == site.engine.dialect.name
    assert manifest["with_images"] is False
