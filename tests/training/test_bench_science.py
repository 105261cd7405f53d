"""The benchmark's harness on a miniature of the data set: small phantoms in its folders."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from dicom_node.domain.errors import BankError
from dicom_node.score.files import read_image
from dicom_node.score.manifest import Preprocessing
from dicom_node.score.scoring import load_scorer
from training import bench_rows, bench_science, bench_text, metrics, phantoms_cli
from training.bench_banks import bank_rows
from training.bench_choice import least_spread, most_planted, most_validated, spread
from training.bench_features import Features, read_data
from training.bench_judge import Judged, judge, paired
from training.bench_rows import CONTROL, ZERO_SHOT, Outcome, Row
from training.build import Order, build

SIDE = (80, 66)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mini")
    for at, (part, kind, count) in enumerate(
        (("train", "NORMAL", 30), ("train", "PNEUMONIA", 10), ("test", "NORMAL", 8), ("test", "PNEUMONIA", 6))
    ):
        lesion = "opacity" if kind == "PNEUMONIA" else None
        drawn = phantoms_cli.run(root / "drawn", count, at * 100, lesion, "png", SIDE, strength=2.0)
        (root / part / kind).mkdir(parents=True)
        for number, path in enumerate(drawn):
            name = f"person{number // 2}_virus_{number}" if lesion else f"IM-{number // 2:04d}-{number:04d}"
            path.rename(root / part / kind / f"{name}.png")
    return root


@pytest.fixture(scope="module")
def features(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Features:
    return Features(read_data(folder), tmp_path_factory.mktemp("cache"), lambda _: None)


def test_the_split_is_the_folders_and_patients_are_read_from_names(features: Features) -> None:
    data = features.data
    assert [len(part.files) for part in (data.train, data.contaminants, data.test)] == [30, 5, 14]
    assert data.validation.files
    assert set(data.validation.patients).isdisjoint(data.contaminants.patients)
    assert all(path.parent == data.contaminants.files[0].parent for path in data.validation.files)
    assert data.labels.tolist() == [0] * 8 + [1] * 6
    assert data.train.patients[:3] == ("IM-0000", "IM-0000", "IM-0001")
    assert data.test.patients[-1] == "person2"
    held = data.held_out
    assert 0 < held.sum() <= 10
    assert {p for p, h in zip(data.train.patients, held, strict=True) if h}.isdisjoint(
        p for p, h in zip(data.train.patients, held, strict=True) if not h
    )


def test_a_folder_without_the_four_parts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train" / "NORMAL").mkdir(parents=True)
    with pytest.raises(BankError, match="holds no PNG or JPEG"):
        read_data(tmp_path)


def test_features_are_computed_once_and_read_again(features: Features) -> None:
    part = features.data.contaminants
    first = features.of(part, ("squash",), "lite0-random")
    (kept,) = (features.cache / "features").glob("contaminants-*squash-*.npy")
    np.save(kept, np.ones_like(first))
    assert (Features(features.data, features.cache, print).of(part, ("squash",), "lite0-random") == 1).all()
    kept.unlink()
    assert np.array_equal(features.of(part, ("squash",), "lite0-random"), first)


def test_scores_are_deep_knns_by_plain_numpy(features: Features) -> None:
    rng = np.random.default_rng(0)
    bank, queries = (rng.normal(size=(n, 3, 7)).astype(np.float32) for n in (9, 4))
    unit = [v / np.linalg.norm(v, axis=2, keepdims=True) for v in (bank.astype(float), queries.astype(float))]
    flat = unit[0].reshape(-1, 7)
    distances = np.sort(2 - 2 * unit[1] @ flat.T, axis=2)
    found = bench_rows.neighbours(bank, queries, (1, 5))
    for k in (1, 5):
        assert found[k] == pytest.approx(np.prod(distances[:, :, k - 1], axis=1) ** (1 / 3), rel=1e-5)


def test_held_out_normals_are_in_the_bank_of_the_ranking_and_not_in_that_of_the_threshold(
    features: Features,
) -> None:
    rng = np.random.default_rng(1)
    train, test = (rng.normal(size=(n, 1, 5)).astype(np.float32) for n in (30, 14))
    test[0] = train[features.data.held_out][0]
    found = bench_rows.clean(features, train, test, (1,))[1]
    assert found.test[0] == pytest.approx(1e-6)
    assert found.operating[0] > 1e-3
    assert found.held.shape == (features.data.held_out.sum(),)
    assert (found.held > 1e-3).all()


def test_contaminants_are_the_stated_share_of_the_bank_and_change_with_the_seed(features: Features) -> None:
    clean = bench_rows.zero_shot(1, 1, "127", features, 0)
    dirty = [bench_rows.contaminated(0.05, 0.0, 1, features, seed) for seed in range(4)]
    assert (dirty[0].test <= clean.test + 1e-9).all()
    assert (dirty[0].test < clean.test).any(), "some of the pool stand in the bank"
    assert len({tuple(one.test.tolist()) for one in dirty}) > 1
    with pytest.raises(BankError, match="contaminants are needed, there are 5"):
        bench_rows.contaminated(0.5, 0.0, 1, features, 0)


def test_a_bank_that_leaves_out_its_farthest_images_is_smaller_and_scores_no_lower(features: Features) -> None:
    for share in (0.0, 0.05):
        dirty = bench_rows.contaminated(share, 0.0, 1, features, 0)
        cleaned = bench_rows.contaminated(share, 0.1, 1, features, 0)
        assert (cleaned.test >= dirty.test - 1e-9).all()
        assert (cleaned.test > dirty.test).any()
        assert (cleaned.operating >= dirty.operating - 1e-9).all()


def scores(labels: np.ndarray, seed: int, gain: float) -> np.ndarray:
    return np.random.default_rng(seed).normal(labels * gain, 1.0)


def test_a_row_is_judged_by_means_over_its_seeds(features: Features) -> None:
    data = features.data
    labels = data.labels
    found = [Outcome(scores(labels, s, 1.0), np.arange(10.0), scores(labels, s, 1.0) * 10) for s in (0, 1, 2)]
    one = judge(Row("x", "y", lambda *_: found[0], (0, 1, 2)), found, 1.5, data, 200)
    values = [roc_auc_score(labels, outcome.test) for outcome in found]
    assert one.auroc.value == pytest.approx(np.mean(values))
    assert (one.lowest, one.highest) == (min(values), max(values))
    assert one.auroc.low < one.auroc.value < one.auroc.high
    called = [outcome.operating > 9.0 for outcome in found]  # 5 % of ten scores is none: the highest one
    assert one.sensitivity == pytest.approx(np.mean([c[labels == 1].mean() for c in called]))
    assert one.specificity == pytest.approx(1 - np.mean([c[labels == 0].mean() for c in called]))
    better = judge(
        Row("x", "z", lambda *_: found[0]),
        [Outcome(found[0].test + 9 * labels, found[0].held, found[0].operating)],
        0.0,
        data,
        200,
    )
    gap = paired(better, one)
    assert gap.value == pytest.approx(1 - np.mean(values))
    assert gap.low > 0


def test_what_is_chosen_without_the_tests_labels(features: Features) -> None:
    """By how alike held-out normals look, how an opacity drawn into them stands out, how training pneumonias do."""
    data = features.data
    count = len(data.validation.files)

    def row(name: str, gain: float, *held: list[float], beyond: float = 0.0, sick: float = 0.0) -> Judged:
        test = scores(data.labels, 0, gain)
        found = [
            Outcome(test, np.array(one), test, np.array(one) + beyond, np.full(count, sick)) for one in held
        ]
        return judge(Row(ZERO_SHOT, name, lambda *_: found[0], range(len(held))), found, 0.0, data, 100)

    wide = row("wide", 9.0, [1.0, np.e**2], [1.0, np.e**4], sick=5.0)
    even = row("even", 0.0, [5.0, 5.5], [6.0, 5.5], sick=5.2)
    zero = row("zero", 5.0, [0.0, 1.0], beyond=0.5)
    assert spread(wide) == pytest.approx((1 + 2) / 2)
    assert np.isfinite(spread(zero))
    assert spread(row("other scale", 0.0, [50.0, 55.0], [60.0, 55.0])) == pytest.approx(spread(even))
    assert least_spread([wide, even, zero]) is even
    assert (wide.planted, zero.planted) == (0.5, 0.75)
    assert most_planted([wide, even, zero]) is zero
    assert wide.validation is not None
    assert even.validation is not None
    assert wide.validation.value == pytest.approx((0.5 + 0.5) / 2)
    assert even.validation.value == pytest.approx((0.5 + 0.0) / 2)
    better = row("better", 1.0, [1.0, 3.0, 5.0, 7.0], sick=4.0)
    assert better.validation is not None
    assert better.validation.value == 0.5
    assert better.validation.low < 0.5 < better.validation.high
    sure = row("sure", 1.0, [1.0, 3.0], sick=4.0)
    assert most_validated([wide, even, zero, sure]) is sure
    text = bench_text.page(data, [wide, even, zero, sure], None, [], "a machine", 100)
    (told,) = re.findall(r"### Configurations chosen without the test's labels\n(.*?)\n###", text, re.DOTALL)
    assert f"the highest validation: sure. AUROC on the test {sure.auroc.value:.3f}" in told
    assert f"identity head: even.\n  AUROC {even.auroc.value:.3f}" in told
    assert f"stand out most: zero. AUROC {zero.auroc.value:.3f}" in told
    assert f"find: wide. AUROC {wide.auroc.value:.3f}" in told
    assert re.findall(r"^\| (\w+) \| \d", told, re.MULTILINE) == ["sure", "wide", "even", "zero"]


def test_a_run_without_the_controls_keeps_the_comparison_with_them(features: Features) -> None:
    data = features.data

    def row(group: str, name: str, gain: float) -> Judged:
        found = scores(data.labels, 0, gain)
        return judge(Row(group, name, lambda *_: None), [Outcome(found, found[:3], found)], 0.0, data, 100)

    best, control = row(ZERO_SHOT, "best", 3.0), row(CONTROL, "sharpness", 0.0)
    gaps = [(control, paired(best, control))]
    first = bench_text.page(data, [control, best], best, gaps, "a machine", 100)
    kept = bench_text.earlier_comparison(bench_text.replaced("", first))
    assert kept.startswith("### The highest row against every control: best\n")
    assert re.findall(r"^\| sharpness \| \+", kept, re.MULTILINE)
    again = bench_text.page(data, [best], best, [], "a machine", 100, kept_comparison=kept)
    assert again.count(kept) == again.count("against every control") == 1
    assert bench_text.earlier_comparison("no table") == ""


def test_the_rows_are_those_of_the_protocol_each_with_a_name_of_its_own() -> None:
    rows = bench_rows.all_rows()
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    for count in (1, 2, 5, 10):
        assert len(bench_rows.VIEWS[count]) == count
        for k in (1, 5, 10, 20):
            assert f"lite0, A {count}, k {k}" in names
    for share in ("1%", "2%", "5%", "10%"):
        assert f"{share} pneumonia, lite0, A 1, k 5" in names
    assert len([row for row in rows if row.group == CONTROL]) == 5


def test_the_command_writes_the_table_and_keeps_what_stands_beside_it(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "BENCHMARKS.md"
    out.write_text(
        f"# Benchmarks\n\nAbove.\n\n{bench_text.BEGIN}\nlast year's table\n{bench_text.END}\n\nBelow.\n"
    )
    options = ["--data", folder, "--cache", tmp_path / "cache", "--out", out, "--bootstrap", "100"]
    done = CliRunner().invoke(bench_science.app, [*map(str, options), "--only", "size|grey|pixels"])
    assert done.exit_code == 0, done.output
    text = out.read_text("utf-8")
    assert text.startswith("# Benchmarks\n\nAbove.\n")
    assert text.endswith("\nBelow.\n")
    assert "last year" not in text
    assert "| **control** |" in text
    found = re.search(r"^\| file size \| (\.?\d\.\d+) ", text, re.MULTILINE)
    assert found is not None
    data = read_data(folder)
    sizes = np.array([path.stat().st_size for path in data.test.files], dtype=float)
    auroc = metrics.auroc(data.labels, sizes)
    assert float(found.group(1)) == pytest.approx(max(auroc, 1 - auroc), abs=5e-4)
    published = text.split("### Published figures, not ours")[1]
    assert "PPAD" in published
    assert "PPAD" not in text.split("### Published")[0]
    again = CliRunner().invoke(bench_science.app, [*map(str, options), "--only", "sharpness"])
    assert again.exit_code == 0, again.output
    rows = re.findall(
        r"^\| (file size|sharpness|mean grey|raw [^|]+?) \|", out.read_text("utf-8"), re.MULTILINE
    )
    assert rows == ["file size", "mean grey", "sharpness", "raw 32 x 32 pixels, k 5"]
    before = bench_text.earlier(out.read_text("utf-8"))
    options[3] = tmp_path / "an empty cache"
    lost = CliRunner().invoke(bench_science.app, [*map(str, options), "--only", "file size"])
    assert lost.exit_code == 0, lost.output
    after = bench_text.earlier(out.read_text("utf-8"))
    assert list(after) == list(before) == [(CONTROL, name) for name in rows]
    assert {key: after[key] for key in list(after)[1:]} == {key: before[key] for key in list(before)[1:]}


def test_a_bank_of_the_training_normals_is_a_row_that_stays(folder: Path, tmp_path: Path) -> None:
    for name, images in (("fair", folder / "train" / "NORMAL"), ("leaky", folder)):
        order = Order(
            images=images,
            out=tmp_path / "banks",
            name=name,
            backbone="lite0-random",
            views=("squash",),
            preprocessing=Preprocessing(size=64, resize_short=72),
        )
        build(order, created_at=datetime(2026, 1, 1, tzinfo=UTC), started=print, progress=print)
    banks = tmp_path / "banks"
    (row,) = bank_rows([banks / "fair"])
    data = read_data(folder)
    found = row.run(Features(data, tmp_path / "cache", print), 0)
    scorer = load_scorer(banks / "fair")
    expected = [s.value for s in scorer.score_images([read_image(p)[0] for p in data.test.files])]
    assert found.test == pytest.approx(expected, rel=1e-5)
    assert np.array_equal(found.held, scorer.bank.calibration.scores)
    with pytest.raises(BankError, match=r"bank leaky holds \d+ of the test images"):
        bank_rows([banks / "leaky"])[0].run(Features(data, tmp_path / "cache", print), 0)

    out = tmp_path / "table.md"
    options = [*map(str, ("--data", folder, "--cache", tmp_path / "cache", "--out", out)), "--bootstrap", "100"]
    for further in (["--bank", str(banks / "fair"), "--only", "fair"], ["--only", "size"]):
        done = CliRunner().invoke(bench_science.app, [*options, *further])
        assert done.exit_code == 0, done.output
        text = out.read_text("utf-8")
        assert re.findall(
            r"^\| fair: deep-knn, lite0-random, head identity, A 1, k 1, 24 normals \|", text, re.M
        )
    assert "| file size |" in text


def test_banks_that_differ_in_their_seed_are_one_row_of_means(folder: Path, tmp_path: Path) -> None:
    for seed, calibration in ((0, 6), (2, 9)):
        order = Order(
            images=folder / "train" / "NORMAL",
            out=tmp_path / "banks",
            name=f"chest-s{seed}",
            backbone="lite0-random",
            views=("squash",),
            preprocessing=Preprocessing(size=64, resize_short=72),
            calibration=calibration,
            seed=seed,
            patches=0,
        )
        build(order, created_at=datetime(2026, 1, 1, tzinfo=UTC), started=print, progress=print)
    banks = [tmp_path / "banks" / f"chest-s{seed}" for seed in (2, 0)]
    (row,) = bank_rows(banks)
    assert row.name == "chest: deep-knn, lite0-random, head identity, A 1, k 1, 21 to 24 normals"
    assert row.seeds == (0, 2)
    held = [
        len(row.run(Features(read_data(folder), tmp_path / "cache", print), seed).held) for seed in row.seeds
    ]
    assert held == [6, 9]

    options = [*map(str, ("--data", folder, "--cache", tmp_path / "cache", "--out", tmp_path / "table.md"))]
    texts = []
    for further in (["--only", "chest", *(f"--bank={bank}" for bank in banks)], ["--only", "none"]):
        done = CliRunner().invoke(bench_science.app, [*options, "--bootstrap", "100", *further])
        assert done.exit_code == 0, done.output
        text = (tmp_path / "table.md").read_text("utf-8")
        texts += re.findall(r"^\| chest: .*\| 2: \d.*$", text, re.MULTILINE)
    assert len(texts) == 2
    assert texts[0] == texts[1]


def test_without_the_data_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    options = ["--data", tmp_path / "none", "--cache", tmp_path / "cache", "--out", tmp_path / "out.md"]
    done = CliRunner().invoke(bench_science.app, [*map(str, options)])
    assert done.exit_code == 0
    assert done.stdout.startswith("skipped: ")
    assert not (tmp_path / "out.md").exists()
