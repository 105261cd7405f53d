"""The benchmark's data: ZhangLab's official split, and features that are computed once and kept in a cache.

Owns the folder layout of the data set, the split of its training normals, and the cache's files. Knows no
method: a row of the benchmark asks for features and makes of them what it is about.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dicom_node.domain.errors import BankError
from dicom_node.score.backbone import Backbone, load_backbone
from dicom_node.score.files import read_image
from dicom_node.score.manifest import NORMALISATIONS, Preprocessing
from dicom_node.score.pixels import Grey
from dicom_node.score.scoring import embed_views
from dicom_node.score.views import make_views
from training.manifest import PICTURES
from training.planted import plant

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Made = TypeVar("Made")

HELD_OUT = 0.2
"""Share of the training patients that calibrate; whose turn it is follows from the patient's name alone."""

POOL = 300
"""Training images of pneumonia out of which contaminants are drawn; at most half of them."""

VALIDATION = 600
"""Training images of pneumonia, of other patients, by which configurations are chosen without the test's labels."""

_SHARD = 128
_PATIENT = re.compile(r"^((?:NORMAL2-)?IM-\d+|person\d+)")


@dataclass(frozen=True, slots=True)
class Part:
    """Some images of the data set.

    Attributes
    ----------
    name
        "train", "test", "contaminants" or "validation".
    files
        In a fixed order.
    patients
        Whom each shows, as the file name says; "" is nobody known.
    planted
        Whether each is seen with an opacity drawn into it (see `planted`).
    """

    name: str
    files: tuple[Path, ...]
    patients: tuple[str, ...]
    planted: bool = False

    def read(self, path: Path, recipe: Preprocessing) -> Grey:
        """Return one of its images as the node reads it, (H, W) float32."""
        grey, _ = read_image(path, window=recipe.window, rescale=recipe.rescale)
        return plant(grey, np.random.default_rng(int(_key(path.name)[:8], 16))) if self.planted else grey


@dataclass(frozen=True, slots=True)
class Data:
    """The official split.

    Attributes
    ----------
    train
        Normal training images.
    contaminants
        A pool of training images of pneumonia. Their labels serve to contaminate a bank and nothing else.
    validation
        Further ones, of other patients. Nothing is trained on them, no bank holds them.
    test
        Test images, normal ones first.
    labels
        (T,) int64 of the test images; 1 is pneumonia.
    """

    train: Part
    contaminants: Part
    validation: Part
    test: Part
    labels: Rows

    @property
    def held_out(self) -> npt.NDArray[np.bool_]:
        """Say which training normals calibrate thresholds, (N,)."""
        return np.array([_share(patient) < HELD_OUT for patient in self.train.patients], dtype=np.bool_)

    @property
    def planted(self) -> Part:
        """Return the held-out training normals with an opacity drawn into each."""
        return planted([path for path, held in zip(self.train.files, self.held_out, strict=True) if held])


def planted(files: Sequence[Path]) -> Part:
    """Return normals with an opacity drawn into each, the same at every time."""
    return replace(_part("planted", files), planted=True)


def read_data(folder: Path) -> Data:
    """List ``train`` and ``test`` with ``NORMAL`` and ``PNEUMONIA`` in each.

    Raises
    ------
    BankError
        If a folder is missing or empty.
    """
    normal = _files(folder / "train" / "NORMAL")
    sick = _files(folder / "train" / "PNEUMONIA")
    test_normal, test_sick = (_files(folder / "test" / kind) for kind in ("NORMAL", "PNEUMONIA"))
    drawn = sorted(sick, key=lambda path: _share(path.name))
    pool = drawn[: min(POOL, len(drawn) // 2)]
    known = set(map(_patient, pool))
    validation = [path for path in drawn if _patient(path) not in known][:VALIDATION]
    labels = np.array([0] * len(test_normal) + [1] * len(test_sick), dtype=np.int64)
    return Data(
        _part("train", normal),
        _part("contaminants", pool),
        _part("validation", validation),
        _part("test", test_normal + test_sick),
        labels,
    )


@dataclass
class Features:
    """Backbone features of every part, computed on first use and kept under `cache`.

    Attributes
    ----------
    cache
        Folder outside the repository.
    told
        Called with a line of progress now and then.
    """

    data: Data
    cache: Path
    told: Callable[[str], None]
    _backbones: dict[str, Backbone] = field(default_factory=dict)
    _done: dict[str, Any] = field(default_factory=dict)

    def of(self, part: Part, views: Sequence[str], backbone: str = "lite0", normalise: str = "127") -> Vectors:
        """Return features (N, A, D) float32, before any head, in the order of files and of `views`."""
        if backbone not in self._backbones:
            self._backbones[backbone] = load_backbone(backbone)
        network = self._backbones[backbone]
        mean, std = NORMALISATIONS[normalise]
        recipe = Preprocessing(mean=mean, std=std)
        return np.concatenate([self._one_view(part, view, network, recipe) for view in views], axis=1)

    def once(self, key: str, make: Callable[[], Made]) -> Made:
        """Return what `make` gives, made once for a key: rows that differ in k share their distances."""
        if key not in self._done:
            self._done[key] = make()
        made: Made = self._done[key]
        return made

    def greys(self, part: Part) -> list[Grey]:
        """Return every image of a part as the node reads it."""
        return [read_image(path)[0] for path in part.files]

    def _one_view(self, part: Part, view: str, network: Backbone, recipe: Preprocessing) -> Vectors:
        key = _key(network.weights_sha256, recipe.model_dump_json(), view, *map(_stamp, part.files))
        whole = self.cache / "features" / f"{part.name}-{network.name}-{view}-{key[:16]}.npy"
        if not whole.exists():
            whole.parent.mkdir(parents=True, exist_ok=True)
            shards = []
            for at in range(0, len(part.files), _SHARD):
                place = whole.with_suffix(f".{at}.part.npy")
                if not place.exists():
                    _save(place, _embed(part, part.files[at : at + _SHARD], view, network, recipe))
                    self.told(f"{part.name}, {network.name}, {view}: {at} of {len(part.files)}")
                shards.append(place)
            _save(whole, np.concatenate([np.load(place, allow_pickle=False) for place in shards]))
            for place in shards:
                place.unlink()
        loaded: Vectors = np.load(whole, allow_pickle=False)
        return loaded


def _embed(part: Part, files: Sequence[Path], view: str, network: Backbone, recipe: Preprocessing) -> Vectors:
    def cut(path: Path) -> Grey:
        return make_views(part.read(path, recipe), (view,), recipe.size, recipe.resize_short)

    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        return embed_views(network, np.stack(list(pool.map(cut, files))), recipe)


def _save(place: Path, array: Vectors) -> None:
    staging = place.with_suffix(f".{os.getpid()}.writing")
    with staging.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    staging.replace(place)


def _files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURES)
    if not found:
        raise BankError(
            f"{folder} holds no PNG or JPEG file; the data set has train and test, NORMAL and PNEUMONIA"
        )
    return found


def _part(name: str, files: Sequence[Path]) -> Part:
    return Part(name, tuple(files), tuple(_patient(path) for path in files))


def _patient(path: Path) -> str:
    found = _PATIENT.match(path.name)
    return found.group(1) if found else path.stem


def _share(text: str) -> float:
    """Return a number in [0, 1) that follows from the text and looks random."""
    return int(_key(text)[:8], 16) / 2**32


def _stamp(path: Path) -> str:
    facts = path.stat()
    return f"{path.name} {facts.st_size} {facts.st_mtime_ns}"


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
