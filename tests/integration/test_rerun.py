"""A study that is analysed again on demand: another revision, another bank, the same images."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import Engine

from dicom_node.config import Eligibility, Store
from dicom_node.domain.errors import BankError
from dicom_node.domain.examined import Examined
from dicom_node.domain.states import State
from dicom_node.domain.types import Delivery, Destination, Kind, Verdict
from dicom_node.pipeline import admin, banks, image
from dicom_node.pipeline.dispatch import Dispatch
from dicom_node.pipeline.orders import Orders, find_studies
from dicom_node.pipeline.process import SELFTEST_AE_TITLE
from dicom_node.pipeline.retention import prune, remove_going
from dicom_node.pipeline.worker import Worker
from dicom_node.report import profile, text
from dicom_node.score.bank_store import BankStore
from dicom_node.score.scorer import Analyser
from dicom_node.store.selection import Wanted
from tests.fakes import refused
from tests.integration.test_pipeline import Site, _again
from tests.phantoms import chest_dataset
from tests.unit.score.test_scorer import build

BASIC_TEXT = profile.CLASSES[-1]
_SEEDS = count(100)


def small(seed: int) -> Dataset:
    return chest_dataset(seed=seed, shape=(192, 160))


@pytest.fixture
def site(engine: Engine, tmp_path: Path) -> Site:
    return Site(engine, tmp_path / "store")


def received(site: Site, ds: Dataset | None = None, calling: str = "CR1") -> str:
    """Let one study in until its analysis is scheduled, and return its UID."""
    ds = ds or small(next(_SEEDS))
    site.receive(ds, calling=calling)
    site.pass_quiet_time()
    return str(ds.StudyInstanceUID)


def answered(site: Site, ds: Dataset | None = None, calling: str = "CR1") -> str:
    study = received(site, ds, calling)
    site.work()
    return study


def order(site: Site, *studies: str, **how: Any) -> list[dict[str, Any]]:
    dry_run = how.pop("dry_run", False)
    return Orders(site.engine, site.clock, dry_run=dry_run).rerun(studies, **how)


def sent_to(site: Site, name: str) -> list[Dataset]:
    return [dcmread(BytesIO(content)) for to, content in site.peer.kept if to == name]


def predecessors(report: Dataset) -> list[tuple[str, str]]:
    return [
        (str(one.ReferencedSOPClassUID), str(one.ReferencedSOPInstanceUID))
        for study in report.get("PredecessorDocumentsSequence", ())
        for series in study.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    ]


def test_a_rerun_is_a_new_revision_of_the_same_images_whose_report_supersedes_the_first(site: Site) -> None:
    study = answered(site)
    (row,) = order(site, study)
    assert (row["became"], row["as_revision"]) == ("scheduled", 2)
    site.work()
    first, second = sent_to(site, "pacs")
    assert second.SOPInstanceUID != first.SOPInstanceUID
    assert predecessors(second) == [(first.SOPClassUID, first.SOPInstanceUID)]
    assert len(text.facts(second)["images"]) == len(text.facts(first)["images"]) == 1
    told = admin.show_study(site.engine, study)["history"]
    assert [(row["why"], row["images"], row["supersedes"]) for row in told] == [
        ("images", 1, []),
        ("rerun", 1, [1]),
    ]
    assert "revision.rerun" in site.events()


def test_the_bank_that_is_named_reaches_the_scorer_also_at_a_second_attempt(site: Site) -> None:
    study = answered(site)
    order(site, study, bank="other")
    (item,) = [i for i in site.items(Kind.ANALYSE) if i.revision == 2]
    assert item.bank == "other"
    site.work()
    assert site.banks == ["", "other"]


def test_a_failed_analysis_with_a_named_bank_is_retried_with_that_bank(site: Site) -> None:
    study = answered(site)
    order(site, study, bank="other")

    def explode(_ds: Dataset) -> Any:
        raise RuntimeError

    working, site.judge = site.judge, explode
    for _ in range(4):
        site.work()
        site.clock.forward(1000)
    site.judge = working
    failed = next(i for i in site.items(Kind.ANALYSE) if i.state is State.FAILED)
    (row,) = Orders(site.engine, site.clock).retry([failed.id])
    assert (row["became"], row["as_revision"]) == ("scheduled", 3)
    site.banks.clear()
    site.work()
    assert site.banks == ["other"]


def test_asking_twice_while_the_first_waits_does_it_once(site: Site) -> None:
    study = answered(site)
    rows = [order(site, study)[0] for _ in range(2)]
    assert [row["became"] for row in rows] == ["scheduled", "waiting"]
    assert rows[0]["as_item"] == rows[1]["as_item"]
    site.work()
    assert site.verdicts(study) == [Verdict.BELOW] * 2
    assert order(site, study)[0]["became"] == "scheduled"


def test_two_who_ask_at_once_get_one_analysis(site: Site) -> None:
    study = answered(site)
    rows: list[dict[str, Any]] = []
    asking = [threading.Thread(target=lambda: rows.extend(order(site, study))) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert sorted(row["became"] for row in rows) == ["scheduled", "waiting", "waiting", "waiting"]
    assert [i.revision for i in site.items(Kind.ANALYSE)] == [1, 2]


def test_another_bank_than_the_one_that_waits_is_another_analysis(site: Site) -> None:
    study = answered(site)
    assert [order(site, study, bank=name)[0]["as_revision"] for name in ("", "one", "two", "one")] == [
        2,
        3,
        4,
        3,
    ]
    site.work()
    assert site.banks == ["", "", "one", "two"]


def test_a_dry_run_says_the_same_and_changes_nothing(site: Site) -> None:
    study = answered(site)
    before = (site.items(Kind.ANALYSE), site.events())
    (row,) = order(site, study, dry_run=True)
    assert (row["became"], row["as_revision"]) == ("scheduled", 2)
    assert (site.items(Kind.ANALYSE), site.events()) == before


def test_while_images_arrive_nothing_is_scheduled_and_a_named_bank_is_refused(site: Site) -> None:
    ds = small(1)
    study = answered(site, ds)
    site.receive(_again(ds), association="late")
    moment = site.clock()
    site.clock.forward(3)
    (row,) = order(site, study)
    assert (row["became"], row["as_item"], row["as_revision"]) == ("waiting", None, 2)
    (row,) = order(site, study, bank="other")
    assert row["became"] == "refused"
    assert "images are arriving for revision 2" in row["reason"]
    # The quiet time still counts from the last image.
    shown = admin.show_study(site.engine, study)["revisions"][-1]
    assert shown["last_received_at"] == moment.isoformat(timespec="milliseconds")


def test_a_study_whose_images_were_removed_is_refused_until_it_is_sent_again(site: Site) -> None:
    ds = small(1)
    study = answered(site, ds)
    site.clock.forward(10 * 86_400)
    prune(site.engine, site.files, Store(retention_days=1), site.clock)
    remove_going(site.engine, site.files)
    (row,) = order(site, study)
    assert row["became"] == "refused"
    assert row["reason"].startswith(f"1 of 1 images of study {study} were removed when their time was over")
    assert [i.revision for i in site.items(Kind.ANALYSE)] == [1]
    site.receive(ds)
    assert order(site, study)[0]["became"] == "scheduled"
    site.work()
    assert site.verdicts(study) == [Verdict.BELOW] * 2


def test_a_study_that_is_not_held_is_refused_and_does_not_hold_up_the_next(site: Site) -> None:
    study = answered(site)
    rows = order(site, "1.2.3.404", study)
    assert [(row["became"], row["reason"]) for row in rows] == [
        ("refused", "study 1.2.3.404 is not held here"),
        ("scheduled", ""),
    ]


def test_a_rerun_puts_an_end_to_the_failed_item_that_it_supersedes(site: Site) -> None:
    working = site.judge

    def explode(_ds: Dataset) -> Any:
        raise RuntimeError

    site.judge = explode
    study = received(site)
    for _ in range(4):
        site.work()
        site.clock.forward(1000)
    site.judge = working
    order(site, study)
    site.work()
    first, second = site.items(Kind.ANALYSE)
    assert (first.state, second.state) == (State.CANCELED, State.COMPLETED)
    assert "analysed again as revision 2" in first.reason
    assert site.verdicts(study) == [Verdict.FAILED, Verdict.BELOW]


def test_the_studies_that_wanted_a_bank_are_found_and_no_others(site: Site) -> None:
    answered(site)
    site.judge = lambda ds: refused(ds, "view", "a lateral view; no_bank is not its reason")
    lateral = answered(site)
    site.judge = lambda ds: refused(ds, "no_bank", "no bank of normals is active")
    wanting = answered(site)
    answered(site, calling=SELFTEST_AE_TITLE)
    assert find_studies(site.engine, Wanted(unserved=True)) == [wanting]
    assert find_studies(site.engine, Wanted(verdict=Verdict.NOT_ANALYSED)) == [lateral, wanting]
    assert find_studies(site.engine, Wanted(verdict=Verdict.NOT_ANALYSED, until=site.clock())) == [
        lateral,
        wanting,
    ]
    assert find_studies(site.engine, Wanted(since=site.clock())) == []
    order(site, wanting, priority=9)
    site.judge = lambda ds: refused(ds, "view", "a lateral view")
    site.work()
    assert find_studies(site.engine, Wanted(unserved=True)) == []


def test_what_comes_in_goes_before_a_rerun_of_many(site: Site) -> None:
    studies = [answered(site) for _ in range(2)]
    order(site, *studies, priority=9)
    urgent = received(site)
    site.worker.step()
    first = next(i for i in site.items(Kind.ANALYSE) if i.study_instance_uid == urgent)
    assert first.state is State.COMPLETED


def only_basic_text(site: Site) -> list[Dataset]:
    """Let both destinations take nothing but Basic Text SR; return the list of what they take."""
    taken: list[Dataset] = []

    def send(destination: Destination, content: bytes, also: Sequence[bytes] = ()) -> Delivery:
        assert not also
        form = profile.cut(content, BASIC_TEXT)
        if destination.name == "pacs":
            taken.append(dcmread(BytesIO(form.content)))
        own = profile.cut(content, profile.CLASSES[0])
        return Delivery(destination.name, own.sop_instance_uid, 0, sent_as=BASIC_TEXT)

    dispatch = Dispatch(site.engine, site.files, send, site.destinations, site.clock)
    site.worker = Worker(
        site.engine,
        site.queue,
        {Kind.ANALYSE: site.analyse, Kind.DELIVER: dispatch},
        "test",
        site.clock,
        lambda: 0.0,
    )
    return taken


def test_an_archive_that_takes_basic_text_alone_is_told_the_predecessors_that_it_has(site: Site) -> None:
    taken = only_basic_text(site)
    ds = small(1)
    study = answered(site, ds)
    site.receive(_again(ds), association="late")
    site.associations.ended("late", "released")
    site.pass_quiet_time()
    site.work()
    order(site, study)
    site.work()
    assert [one.SOPClassUID for one in taken] == [BASIC_TEXT] * 3
    uids = [(BASIC_TEXT, str(one.SOPInstanceUID)) for one in taken]
    assert [sorted(predecessors(one)) for one in taken] == [[], sorted(uids[:1]), sorted(uids[:2])]
    where = [
        row for row in admin.show_study(site.engine, study)["destinations"] if row["destination"] == "pacs"
    ]
    assert [row["sop_instance_uid"] for row in where] == [uid for _, uid in uids]
    assert {(row["sent_as"], row["state"]) for row in where} == {("basic-text", "sent")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("banks")
    for number, name in enumerate(("one", "two", "three")):
        build(root, name, range(20 * number, 20 * number + 8))
    return root


class BankSite(Site):
    """A site whose images are scored against real banks, as its scoring process would."""

    def __init__(self, engine: Engine, root: Path, built: Path) -> None:
        super().__init__(engine, root / "store")
        self.root = root / "banks"
        for bank in built.iterdir():
            (self.root / bank.name).mkdir(parents=True)
            for file in bank.iterdir():
                (self.root / bank.name / file.name).hardlink_to(file)
        self.store = BankStore(self.root)
        self.scorer = Analyser(self.root, Eligibility(), threads=1)

    def _score(self, path: Path, bank: str) -> Examined:
        return Examined(image.analyse(path, lambda ds: self.scorer.analyse(ds, bank)))

    def said(self) -> list[str]:
        """Return which bank each report at the PACS says it was made with."""
        hashes = {self.store.manifest(name).bank_hash: name for name in self.store.names()}
        return [hashes.get(text.facts(report)["bank_hash"], "none") for report in sent_to(self, "pacs")]


@pytest.fixture
def bank_site(engine: Engine, tmp_path: Path, built: Path) -> BankSite:
    return BankSite(engine, tmp_path, built)


def test_a_bank_that_is_switched_while_studies_wait_scores_those_that_still_wait(bank_site: BankSite) -> None:
    bank_site.store.activate("one")
    first, second = received(bank_site), received(bank_site)
    bank_site.worker.step()
    admin.activate_banks(bank_site.root, ["two"], bank_site.engine, bank_site.clock)
    bank_site.work()
    assert bank_site.said() == ["one", "two"]
    told = [admin.show_study(bank_site.engine, study)["history"][0]["bank"] for study in (first, second)]
    assert told == ["one", "two"]


def test_after_activation_and_rollback_a_rerun_says_each_time_which_bank_it_was(bank_site: BankSite) -> None:
    site = bank_site
    site.store.activate("one")
    study = answered(site)
    admin.activate_banks(site.root, ["two"], site.engine, site.clock)
    order(site, study)
    site.work()
    banks.roll_back(site.root, site.engine, site.clock())
    order(site, study)
    site.work()
    order(site, study, bank="three")
    site.work()
    assert site.said() == ["one", "two", "one", "three"]
    assert [len(predecessors(report)) for report in sent_to(site, "pacs")] == [0, 1, 2, 3]
    assert len({str(report.SOPInstanceUID) for report in sent_to(site, "pacs")}) == 4


def test_a_study_without_a_bank_is_analysed_once_one_is_active(bank_site: BankSite) -> None:
    site = bank_site
    study = answered(site)
    assert site.verdicts(study) == [Verdict.NOT_ANALYSED]
    with pytest.raises(BankError, match=r"no bank of kind deep-knn is active.*there are: one, three, two"):
        banks.require(site.root, "", "deep-knn")
    site.store.activate("one")
    banks.require(site.root, "", "deep-knn")
    order(site, *find_studies(site.engine, Wanted(unserved=True)))
    site.work()
    assert site.verdicts(study)[1:] == [Verdict.ABOVE]
    assert site.said() == ["none", "one"]


def test_a_bank_that_is_not_there_or_damaged_is_refused_with_what_there_is(bank_site: BankSite) -> None:
    with pytest.raises(BankError, match="there is no bank four; there are: one, three, two"):
        banks.require(bank_site.root, "four", "deep-knn")
    (bank_site.root / "two" / "index.faiss").unlink()
    with pytest.raises(BankError, match=r"bank two: index\.faiss cannot be read"):
        banks.require(bank_site.root, "two", "deep-knn")
    banks.require(bank_site.root, "three", "deep-knn")


def test_a_bank_that_waiting_work_asks_for_is_not_tidied_away(bank_site: BankSite) -> None:
    site = bank_site
    site.store.activate("one")
    study = answered(site)
    order(site, study, bank="three")
    rows = banks.tidy(site.root, site.engine, 0, site.clock(), remove=False)
    assert {row["name"]: row["why"] for row in rows if not row["goes"]} == {
        "one": "is active",
        "three": "is asked for by work that waits",
    }
