"""A Bank on disk: written once as a whole, verified on every load.

Owns the folder's files. Knows nothing of images or backbones, nor which bank is in use.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node.domain.errors import BankError
from dicom_node.score.calibration import Calibration
from dicom_node.score.durable import write_folder
from dicom_node.score.head import Head, load_head, save_head
from dicom_node.score.index_file import MAPPED_FROM, IndexFile, flat_parts, open_index
from dicom_node.score.knn import Index
from dicom_node.score.manifest import BankKind, Manifest, parse_manifest
from dicom_node.score.normal_pictures import FILE as NORMALS
from dicom_node.score.normal_pictures import save_normals
from dicom_node.score.patch_bank import FILE as PATCHES
from dicom_node.score.patch_bank import PatchBank, load_patches, save_patches

MANIFEST = "manifest.json"
INDEX = "index.faiss"
HEAD = "head.safetensors"
CALIBRATION = "calibration.json"
IMAGES = "images.json"
FILES = (INDEX, HEAD, CALIBRATION, IMAGES)
"""Every file of a bank beside its manifest."""

STATISTICS = "backbone_bn.safetensors"
"""BatchNorm statistics (see `batch_norm`); a bank without the file uses the backbone as published."""

WEIGHTS = "weights"
"""Folder beside the banks for weights files of backbones that bring none, each named by its SHA-256."""

NAME = re.compile(r"(?!\.)[A-Za-z0-9_.-]{1,64}\Z")


@dataclass(frozen=True, slots=True)
class Bank:
    """A bank in memory; every byte of it was checked against the manifest's hashes when it was loaded.

    Attributes
    ----------
    index
        Over (M, D') unit vectors, image by image, view by view; mapped from its file where that is large.
    images
        Identifier of each normal image: the SHA-256 of its file, shortened; nothing of the patient.
    statistics
        The backbone's BatchNorm statistics where the bank has its own (see `batch_norm`), else empty.
    patches
        What heat maps are made with; a bank without them has none.
    """

    manifest: Manifest
    bank_hash: str
    index: Index
    head: Head
    calibration: Calibration
    images: tuple[str, ...]
    statistics: bytes = b""
    patches: PatchBank | None = None


def write_bank(
    folder: Path,
    *,
    vectors: npt.NDArray[np.float32] | IndexFile,
    head: Head,
    calibration: Calibration,
    images: Sequence[str],
    facts: dict[str, Any],
    statistics: bytes = b"",
    patches: PatchBank | None = None,
    pictures: Mapping[str, bytes] | None = None,
) -> Manifest:
    """Write a bank beside its place, sync it, and rename it there: it exists whole or not at all.

    Parameters
    ----------
    folder
        Where the bank will be; its name is the bank's. Must not exist.
    vectors
        (M, D') float32, unit L2, image by image, view by view; or the index over them, written already, whose
        file is moved into the bank.
    facts
        The manifest's other fields; counts, hashes, dim and threshold are filled in here.
    statistics
        The backbone's own BatchNorm statistics, if it was not used as published.
    patches
        For heat maps, if there shall be any.
    pictures
        JPEG of each normal by its identifier, if the bank shall carry them.

    Raises
    ------
    BankError
        If the folder exists, the name is unfit, or the parts do not fit each other.
    """
    if isinstance(vectors, IndexFile):
        shape: tuple[int, ...] = (vectors.vectors, vectors.dim)
        stored: bytes | Path = vectors.path
        facts = {**facts, "index": vectors.facts}
    else:
        if not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-4):
            raise BankError("the bank's vectors are not of unit length")
        shape, stored = vectors.shape, b"".join(flat_parts(vectors))
    contents: dict[str, bytes | Path] = {INDEX: stored, HEAD: save_head(head)}
    contents |= {STATISTICS: statistics} if statistics else {}
    contents |= {} if patches is None else {PATCHES: save_patches(patches)}
    contents |= {NORMALS: save_normals(pictures)} if pictures else {}
    values = {**facts, "head": head.description, "dim": shape[1], "vectors": shape[0]}
    return write_files(folder, contents, calibration=calibration, images=images, facts=values)


def write_files(
    folder: Path,
    contents: Mapping[str, bytes | Path],
    *,
    calibration: Calibration,
    images: Sequence[str],
    facts: dict[str, Any],
) -> Manifest:
    """Write the files of a bank of any kind, with its calibration, images and manifest; see `write_bank`.

    Parameters
    ----------
    contents
        What is particular to the kind, by file name; a path is a file of the same file system, and is moved.
    facts
        The manifest's other fields, shape and head included.
    """
    name = check_name(folder.name)
    if folder.exists():
        raise BankError(f"bank {name} exists; a bank is never changed, build it under another name")
    contents = {
        **contents,
        CALIBRATION: to_json(
            {"mean": calibration.mean, "std": calibration.std, "scores": calibration.scores.tolist()}
        ),
        IMAGES: to_json({"images": list(images)}),
    }
    values = {
        **facts,
        "name": name,
        "files": {file: _sha256_of(content) for file, content in contents.items()},
        "normal_images": len(images),
        "calibration_images": len(calibration.scores),
        "threshold": calibration.threshold(facts["false_positive_rate"]),
    }
    try:
        manifest = Manifest.model_validate(values)
    except ValueError as error:
        raise BankError(f"bank {name} does not fit together: {error}") from error
    try:
        write_folder(folder, {**contents, MANIFEST: manifest.to_json()})
    except OSError as error:
        raise BankError(f"bank {name} cannot be written: {error}") from error
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a bank, without looking at its other files.

    Raises
    ------
    BankError
        If there is none or it is damaged.
    """
    manifest = parse_manifest(_read(folder, MANIFEST), folder.name)
    if manifest.name != folder.name:
        raise BankError(f"bank {folder.name}: the manifest is that of bank {manifest.name}")
    return manifest


def load_bank(folder: Path) -> Bank:
    """Load a bank after checking every file against its hash.

    Raises
    ------
    BankError
        If a file is missing or is not what its hash says; names the file, the hash seen and the one expected.
    """
    files = tuple(file for file in FILES if file != INDEX)
    manifest, contents = read_files(folder, "deep-knn", files, (STATISTICS, PATCHES))
    calibration, images = read_calibration(manifest, contents)
    index = _load_index(folder, manifest)
    if NORMALS in manifest.files:  # for people; nothing is scored with it
        _verify(folder, manifest, NORMALS, _read(folder, NORMALS))
    head, statistics = load_head(contents[HEAD]), contents.get(STATISTICS, b"")
    patches = load_patches(contents[PATCHES]) if PATCHES in contents else None
    return Bank(manifest, manifest.bank_hash, index, head, calibration, images, statistics, patches)


def read_files(
    folder: Path, kind: BankKind, files: Sequence[str], optional: Sequence[str] = ()
) -> tuple[Manifest, dict[str, bytes]]:
    """Return a bank's manifest and the content of its files, each compared with its hash.

    Parameters
    ----------
    optional
        Files that are read only where the manifest names them.

    Raises
    ------
    BankError
        As `load_bank`, and if the bank is of another kind.
    """
    manifest = read_manifest(folder)
    if manifest.kind != kind:
        raise BankError(f"bank {folder.name} is of kind {manifest.kind}; {kind} was asked for")
    contents = {}
    for file in [*files, *(file for file in optional if file in manifest.files)]:
        contents[file] = _read(folder, file)
        _verify(folder, manifest, file, contents[file])
    return manifest, contents


def read_calibration(manifest: Manifest, contents: dict[str, bytes]) -> tuple[Calibration, tuple[str, ...]]:
    """Return calibration and image identifiers out of the files' contents.

    Raises
    ------
    BankError
        If they cannot be read, or are not as many as the manifest says.
    """
    try:
        values = json.loads(contents[CALIBRATION])
        images = tuple(json.loads(contents[IMAGES])["images"])
        scores = np.asarray(values["scores"], dtype=np.float64)
        calibration = Calibration(scores, float(values["mean"]), float(values["std"]))
    except (ValueError, KeyError, TypeError) as error:
        raise BankError(f"bank {manifest.name} cannot be read: {error}") from error
    counted = (len(images), len(scores))
    if counted != (manifest.normal_images, manifest.calibration_images):
        raise BankError(f"bank {manifest.name}: {counted} images and calibration scores; the manifest differs")
    return calibration, images


def check_name(name: str) -> str:
    """Return the name of a bank.

    Raises
    ------
    BankError
        If it is not 1 to 64 of letters, digits, ``_ . -``, or begins with a dot.
    """
    if not NAME.match(name):
        raise BankError(f"{name[:80]!r} is no name of a bank: 1 to 64 of A-Z a-z 0-9 _ . - and no leading dot")
    return name


def to_json(value: Any) -> bytes:
    """Return the one form in which a bank's JSON files are written."""
    return (json.dumps(value, indent=1) + "\n").encode()


def _load_index(folder: Path, manifest: Manifest) -> Index:
    """Open the index: read and checked, or, where it is large, checked as a stream and then mapped."""
    path = folder / INDEX
    large = path.is_file() and path.stat().st_size >= MAPPED_FROM
    source = path if large else _read(folder, INDEX)
    _verify(folder, manifest, INDEX, source)
    try:
        return open_index(source, manifest.index, (manifest.vectors, manifest.dim))
    except BankError as error:
        raise BankError(f"bank {folder.name}: {error}") from error


def _verify(folder: Path, manifest: Manifest, file: str, content: bytes | Path) -> None:
    seen, expected = _sha256_of(content), manifest.files.get(file)
    if seen != expected:
        raise BankError(f"bank {folder.name}: {file} has SHA-256 {seen}; the manifest says {expected}")


def _sha256_of(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(folder: Path, file: str) -> bytes:
    try:
        return (folder / file).read_bytes()
    except OSError as error:
        raise BankError(f"bank {folder.name}: {file} cannot be read: {error.strerror}") from error
