"""Weights that torchvision publishes: where they lie in torch's cache, and how they get there.

Asked by builders of banks and heads only: the node loads the copy that the bank keeps, and never reaches out.
"""

from __future__ import annotations

import hashlib
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from dicom_node.domain.errors import BankError
from dicom_node.score.torchvision_ops import import_models
from dicom_node.score.weights import Weights

LICENCE = "BSD-3-Clause (torchvision); terms of the training data may apply"

SECONDS = 30.0
"""After so long without an answer the network counts as away."""

_HASHED = re.compile(r"-([a-f0-9]{8,64})\.[^.]+\Z")


def published(short: str) -> Weights:
    """Return torchvision's own weights of a classifier, downloaded unless they lie in torch's cache already.

    The cache is ``$TORCH_HOME/hub/checkpoints``, by default ``~/.cache/torch/hub/checkpoints``.

    Raises
    ------
    BankError
        If torchvision has no such classifier or no weights of it, they cannot be downloaded, or the file in the
        cache is not the published one.
    """
    models = import_models()
    if short not in models.list_models(module=models):
        raise BankError(f"torchvision has no classifier {short!r}")
    entry = next(iter(models.get_model_weights(short)), None)
    if entry is None:
        raise BankError(f"torchvision publishes no weights of {short}; give a local file with --weights FILE")
    return of_entry(getattr(type(entry), "DEFAULT"), Path(torch.hub.get_dir()) / "checkpoints")  # noqa: B009


def of_entry(entry: Any, folder: Path) -> Weights:
    """Return one of torchvision's weights as a file in a folder, with what torchvision says of its origin.

    Parameters
    ----------
    entry
        Of a ``torchvision.models.WeightsEnum``, or alike: has `url`, `meta` and a name as its string.

    Raises
    ------
    BankError
        As `fetch`.
    """
    data = "ImageNet-1k" if "IMAGENET1K" in str(entry) else "as torchvision states"
    licence = str(entry.meta.get("license", "")) or LICENCE
    return Weights(fetch(entry.url, folder), licence, f"{data} ({entry})")


def fetch(url: str, folder: Path) -> Path:
    """Return the file of a URL in a folder; it is downloaded if it does not lie there. Its hash is checked.

    Parameters
    ----------
    url
        Of a file named as torch names weights: ``NAME-<first digits of its SHA-256>.pth``.

    Raises
    ------
    BankError
        If it cannot be downloaded, or the file is not what its name says.
    """
    path = folder / Path(urlparse(url).path).name
    hashed = _HASHED.search(path.name)
    remedy = f"or copy {path.name} here from a machine that has it, and give it with --weights FILE"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with _patience(SECONDS):
                torch.hub.download_url_to_file(
                    url, str(path), hashed[1] if hashed else None, progress=sys.stderr.isatty()
                )
        with path.open("rb") as file:
            seen = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, HTTPException) as error:
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise BankError(
            f"the weights {path.name} are not in {folder} and could not be downloaded ({why}); "
            f"try again with a network, {remedy}"
        ) from error
    except RuntimeError as error:
        raise BankError(f"the download of {path.name} is damaged ({error}); try again, {remedy}") from error
    if hashed and not seen.startswith(hashed[1]):
        raise BankError(
            f"{path} has SHA-256 {seen}; by its name it begins with {hashed[1]}: remove it and try again, {remedy}"
        )
    return path


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Let no connection that is opened meanwhile wait for longer; torch's download states no limit itself."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
