"""What the node calls for one image: rules, routing to a bank, pixels, score.

Reads banks; never writes anything. How a score comes about is for `scoring` to know.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import torch
from pydicom.dataset import Dataset

from dicom_node.config import Eligibility, ScoreSection
from dicom_node.domain.errors import BankError, CannotDecodeError, CannotUnderstandError
from dicom_node.domain.types import ImageResult, Measurement, Refusal
from dicom_node.score import files
from dicom_node.score.attributes import text
from dicom_node.score.backbone import Backbone
from dicom_node.score.bank_store import ACTIVE, BankStore
from dicom_node.score.eligibility import judge, stated_view
from dicom_node.score.heat_picture import draw
from dicom_node.score.manifest import BankKind
from dicom_node.score.pixels import MAXIMUM_PIXELS, Grey, Rescale, Window, assumptions, to_grey
from dicom_node.score.population import stated_age, stated_institution
from dicom_node.score.scoring import AnyScorer, Scorer, load_scorer

__all__ = ["Analyser", "Scorer"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Active:
    """The scorers of the active banks, and the state of the file that named them."""

    stamp: tuple[int, ...]
    scorers: tuple[AnyScorer, ...]


class Analyser:
    """What the node calls for one image: rules, routing, pixels, score. Safe to share between threads.

    A change of the active banks takes effect with the next image, without a restart.

    Parameters
    ----------
    banks
        Folder of banks.
    rules
        Which images are eligible.
    kinds
        Kinds of bank that score an image: its first active bank of each. The first kind decides; without a
        bank of it the image is not analysed. Further ones are measured beside it where they have a bank.
    threads
        CPU threads of one image's computation; 0 takes one for each core this process may use.
    maximum_pixels
        Rows x Columns above which an image is not decoded.
    """

    def __init__(
        self,
        banks: Path,
        rules: Eligibility,
        *,
        kinds: tuple[BankKind, ...] = ("deep-knn",),
        threads: int = 0,
        maximum_pixels: int = MAXIMUM_PIXELS,
    ) -> None:
        self._store = BankStore(banks)
        self._rules = rules
        self._kinds = kinds
        self._maximum_pixels = maximum_pixels
        self._backbones: dict[tuple[str, str], Backbone] = {}
        self._active: _Active | None = None
        self._loading = threading.Lock()
        # One image computes at a time, on every core: two at once would only slow each other down.
        self._computing = threading.Lock()
        self._threads = threads or len(os.sched_getaffinity(0))
        torch.set_num_threads(self._threads)

    @classmethod
    def from_config(cls, section: ScoreSection) -> Analyser:
        """Return the analyser that ``[score]`` describes."""
        return cls(
            section.banks,
            section.eligibility,
            kinds=section.kinds,
            threads=section.threads,
            maximum_pixels=int(section.maximum_megapixels * 1_000_000),
        )

    def warm_up(self) -> None:
        """Load the active banks and compute once, so that the first image does not wait for it.

        Raises
        ------
        BankError
            As for `analyse`.
        """
        ramp = np.linspace(0.0, 1.0, 256 * 256, dtype=np.float32).reshape(256, 256)
        for scorer in self._scorers():
            self._compute(Dataset(), [(scorer, ramp)])

    def analyse(self, ds: Dataset) -> ImageResult:
        """Score one image, or say why not.

        Parameters
        ----------
        ds
            Data set with its pixel data and file meta.

        Returns
        -------
        ImageResult
            With a refusal of code "no_bank" where no active bank serves the image, "decode" where its pixels
            cannot be used, or one of `eligibility.CODES`.

        Raises
        ------
        BankError
            If an active bank is missing or damaged: a person must act, no score is made up.
        """
        refusal = judge(ds, self._rules)
        if refusal is not None:
            return _result(ds, refusal)
        found = self._route(ds)
        return _result(ds, found) if isinstance(found, Refusal) else self._score(ds, found)

    def analyse_file(self, path: Path, bank: str | None = None) -> ImageResult:
        """Score one file: DICOM, PNG or JPEG; the latter have no header, so no rule and no routing applies.

        Parameters
        ----------
        bank
            Name of a bank; None takes the active ones (for PNG and JPEG the first).

        Raises
        ------
        BankError
            As for `analyse`, and if `bank` does not exist.
        """
        named = None if bank is None else load_scorer(self._store.path(bank), self._backbones)
        try:
            content = files.read_bytes(path)
            if not files.is_picture(content):
                ds = files.parse_dicom(content, path.name)
                if named is None:
                    return self.analyse(ds)
                refusal = judge(ds, self._rules)
                return self._score(ds, [named]) if refusal is None else _result(ds, refusal)
            scorers = self._choose(self._scorers()) if named is None else [named]
            if not scorers:
                return _result(Dataset(), self._no_bank())
            greys = [
                files.picture_to_grey(
                    content,
                    path.name,
                    rescale=scorer.bank.manifest.preprocessing.rescale,
                    maximum_pixels=self._maximum_pixels,
                )
                for scorer in scorers
            ]
        except (CannotDecodeError, CannotUnderstandError) as error:
            return _result(Dataset(), Refusal("decode", str(error)))
        return self._compute(Dataset(), list(zip(scorers, greys, strict=True)))

    def explain_file(self, path: Path, bank: str | None = None) -> tuple[ImageResult, bytes]:
        """Score one file and draw where it lies far from normal.

        The PNG is of the first bank that scored the file and has patches; it is empty where the file was refused.

        Raises
        ------
        BankError
            As for `analyse_file`, and if no bank that scored the file has patches.
        """
        result = self.analyse_file(path, bank)
        if result.score is None or result.provenance is None:
            return result, b""
        measured = [Measurement(result.score, result.provenance), *result.also]
        for one in measured:
            scorer = load_scorer(self._store.path(one.provenance.bank_name), self._backbones)
            if isinstance(scorer, Scorer) and scorer.bank.patches is not None:
                prep, most = scorer.bank.manifest.preprocessing, self._maximum_pixels
                grey, _ = files.read_image(path, window=prep.window, rescale=prep.rescale, maximum_pixels=most)
                with self._computing:
                    return result, draw(grey, scorer.explain(grey), one.score, one.provenance)
        names = ", ".join(one.provenance.bank_name for one in measured)
        raise BankError(f"{names} has no patches of normals, so there is no heat map: build it with --patches")

    def _score(self, ds: Dataset, scorers: Sequence[AnyScorer]) -> ImageResult:
        greys: dict[tuple[Window, Rescale], Grey] = {}
        wanted = [
            (s.bank.manifest.preprocessing.window, s.bank.manifest.preprocessing.rescale) for s in scorers
        ]
        try:
            for window, rescale in dict.fromkeys(wanted):
                greys[window, rescale] = to_grey(
                    ds, window=window, rescale=rescale, maximum_pixels=self._maximum_pixels
                )
        except CannotDecodeError as error:
            return _result(ds, Refusal("decode", str(error)))
        for note in assumptions(ds):
            log.info("assumed", extra={"sop_instance_uid": str(ds.get("SOPInstanceUID", "")), "note": note})
        return self._compute(ds, [(s, greys[how]) for s, how in zip(scorers, wanted, strict=True)])

    def _compute(self, ds: Dataset, pairs: Sequence[tuple[AnyScorer, Grey]]) -> ImageResult:
        with self._computing:
            faiss.omp_set_num_threads(self._threads)
            scores = [(scorer.score_images([grey])[0], scorer.provenance()) for scorer, grey in pairs]
        return _result(ds, *(Measurement(score, made_by) for score, made_by in scores))

    def _choose(self, admitting: Sequence[AnyScorer]) -> list[AnyScorer]:
        """Return the first of each kind, the one that decides first; none where that one is missing."""
        first: dict[BankKind, AnyScorer] = {}
        for scorer in admitting:
            first.setdefault(scorer.bank.manifest.kind, scorer)
        return [first[kind] for kind in self._kinds if kind in first] if self._kinds[0] in first else []

    def _no_bank(self) -> Refusal:
        how = "" if self._kinds[0] == "deep-knn" else f" --method {self._kinds[0]}"
        return Refusal(
            "no_bank",
            f"no bank of normals of kind {self._kinds[0]} is active; build one with "
            f"`dicom-node bank build{how}` and activate it with `dicom-node bank activate`",
        )

    def _route(self, ds: Dataset) -> list[AnyScorer] | Refusal:
        scorers = self._scorers()
        if not self._choose(scorers):
            return self._no_bank()
        modality, view, age = text(ds, "Modality"), stated_view(ds), stated_age(ds)
        institution = stated_institution(ds)
        chosen = self._choose(
            [s for s in scorers if s.bank.manifest.population.admits(modality, view, age, institution)]
        )
        return chosen or Refusal(
            "no_bank",
            f"no active bank of kind {self._kinds[0]} serves modality {modality or 'unknown'}, "
            f"view {view or 'unknown'}, "
            f"Institution Name {institution or 'unknown'} "
            f"and this patient's {'age' if age is not None else 'age, which is not stated'}; active are: "
            f"{', '.join(scorer.bank.manifest.name for scorer in scorers)}",
        )

    def _scorers(self) -> tuple[AnyScorer, ...]:
        """Return the active banks' scorers, loaded anew when ``active.json`` has changed."""
        stamp = self._stamp()
        current = self._active
        if current is not None and current.stamp == stamp:
            return current.scorers
        with self._loading:
            stamp = self._stamp()
            if self._active is None or self._active.stamp != stamp:
                self._active = _Active(stamp, tuple(self._load()))
            return self._active.scorers

    def _load(self) -> list[AnyScorer]:
        scorers: list[AnyScorer] = []
        for name, pinned in self._store.active_hashes().items():
            scorer = load_scorer(self._store.path(name), self._backbones)
            if scorer.bank.bank_hash != pinned:
                raise BankError(
                    f"bank {name} has hash {scorer.bank.bank_hash}; {pinned} was activated: "
                    "activate it again if it was replaced on purpose"
                )
            scorers.append(scorer)
            log.info("bank loaded", extra={"bank": name, "bank_hash": pinned})
        return scorers

    def _stamp(self) -> tuple[int, ...]:
        try:
            facts = (self._store.root / ACTIVE).stat()
        except FileNotFoundError:
            return ()
        return (facts.st_ino, facts.st_mtime_ns, facts.st_size)


def _result(ds: Dataset, *what: Measurement | Refusal) -> ImageResult:
    """Return the result: one refusal, or measurements of which the first decides."""
    first, measured = what[0], tuple(one for one in what if isinstance(one, Measurement))
    return ImageResult(
        sop_class_uid=str(ds.get("SOPClassUID") or ""),
        sop_instance_uid=str(ds.get("SOPInstanceUID") or ""),
        series_instance_uid=str(ds.get("SeriesInstanceUID") or ""),
        score=first.score if isinstance(first, Measurement) else None,
        refusal=first if isinstance(first, Refusal) else None,
        provenance=first.provenance if isinstance(first, Measurement) else None,
        also=measured[1:],
    )
