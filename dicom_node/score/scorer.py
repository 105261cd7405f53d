"""What the node calls for one image: rules, routing to a bank, pixels, score.

Reads banks; never writes anything. How a score comes about is for `scoring` to know.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import torch
from pydicom.dataset import Dataset

from dicom_node.config import Eligibility, Explain, ScoreSection
from dicom_node.domain.errors import BankError, CannotDecodeError, CannotUnderstandError
from dicom_node.domain.explanation import Explanation
from dicom_node.domain.types import ImageResult, Measurement, Refusal
from dicom_node.score import files
from dicom_node.score.active import ActiveBanks
from dicom_node.score.attributes import text, value_of
from dicom_node.score.backbone import Backbone
from dicom_node.score.bank_store import BankStore
from dicom_node.score.eligibility import judge, stated_view
from dicom_node.score.explaining import explanation_of
from dicom_node.score.heat_picture import draw
from dicom_node.score.manifest import BankKind
from dicom_node.score.measured import measurements, result_of
from dicom_node.score.named import NamedBank
from dicom_node.score.pixels import MAXIMUM_PIXELS, Grey, Rescale, Window, assumptions, to_grey, value_range
from dicom_node.score.population import stated_age, stated_institution
from dicom_node.score.scoring import AnyScorer, Scorer, load_scorer
from dicom_node.score.unserved import no_bank, not_admitted, not_admitted_by

__all__ = ["Analyser", "Scorer"]

log = logging.getLogger(__name__)


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
    explain
        Of which scored images `examine` can tell where they lie far from normal.
    """

    def __init__(
        self,
        banks: Path,
        rules: Eligibility,
        *,
        kinds: tuple[BankKind, ...] = ("deep-knn",),
        threads: int = 0,
        maximum_pixels: int = MAXIMUM_PIXELS,
        explain: Explain = "above",
    ) -> None:
        self._store = BankStore(banks)
        self._rules = rules
        self._kinds = kinds
        self._maximum_pixels = maximum_pixels
        self._explain = explain
        self._backbones: dict[tuple[str, str], Backbone] = {}
        self._named = NamedBank(self._store, self._backbones)
        self._active = ActiveBanks(self._store, self._backbones)
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
            explain=section.explain,
        )

    def warm_up(self, bank: str = "") -> None:
        """Load the active banks, or one by its name, and compute once: the first image does not wait for it.

        Raises
        ------
        BankError
            As for `analyse`.
        """
        ramp = np.linspace(0.0, 1.0, 256 * 256, dtype=np.float32).reshape(256, 256)
        for scorer in [self._named.scorer(bank)] if bank else self._active.scorers():
            self._compute(Dataset(), [(scorer, ramp)])

    def changed(self, bank: str = "") -> bool:
        """Say whether other banks are active than those loaded, so that the next image has to wait for them.

        With the name of a bank, whether that one has to be loaded.
        """
        return not self._named.loaded(bank) if bank else self._active.changed()

    def analyse(self, ds: Dataset, bank: str = "") -> ImageResult:
        """Score one image, or say why not.

        Parameters
        ----------
        ds
            Data set with its pixel data and file meta.
        bank
            Name of the one bank to score with, of whatever kind; "" routes to the active ones.

        Returns
        -------
        ImageResult
            With a refusal of code "no_bank" where no active bank serves the image, "decode" where its pixels
            cannot be used, "memory" where decoding them needs more than this process may use, or one of
            `eligibility.CODES`.

        Raises
        ------
        BankError
            If an active bank is missing or damaged: a person must act, no score is made up.
        """
        return self.examine(ds, bank)[0]

    def examine(self, ds: Dataset, bank: str = "") -> tuple[ImageResult, Callable[[], Explanation] | None]:
        """Score one image, or say why not, as `analyse`; and return what tells where it lies far from normal.

        That is None where it was not scored, is not asked for, or no bank that scored it can tell places. Calling it
        takes longer than the scoring, and may raise CannotDecodeError and MemoryError.
        """
        refusal = judge(ds, self._rules)
        if refusal is not None:
            return result_of(ds, refusal), None
        found = self._named_for(ds, bank) if bank else self._route(ds)
        pairs = found if isinstance(found, Refusal) else self._grey(ds, found)
        if isinstance(pairs, Refusal):
            return result_of(ds, pairs), None
        result = self._compute(ds, pairs)
        above = result.score is not None and result.score.above
        asked = self._explain == "all" or (self._explain == "above" and above)
        telling = next((pair for pair in pairs if pair[0].explains), None) if asked else None
        return result, None if telling is None else partial(self._explained, ds, result, *telling)

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
                pairs = self._grey(ds, [named]) if refusal is None else refusal
                return result_of(ds, pairs) if isinstance(pairs, Refusal) else self._compute(ds, pairs)
            scorers = self._choose(self._active.scorers()) if named is None else [named]
            if not scorers:
                return result_of(Dataset(), no_bank(self._kinds[0]))
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
            return result_of(Dataset(), Refusal("decode", str(error)))
        return self._compute(Dataset(), list(zip(scorers, greys, strict=True)))

    def explain_file(self, path: Path, bank: str | None = None) -> tuple[ImageResult, bytes]:
        """Score one file and draw where it lies far from normal.

        The PNG is of the first bank that scored the file and can tell places; it is empty where the file was refused.

        Raises
        ------
        BankError
            As for `analyse_file`, and if no bank that scored the file can tell places.
        """
        result = self.analyse_file(path, bank)
        measured = measurements(result)
        if not measured:
            return result, b""
        for one in measured:
            scorer = load_scorer(self._store.path(one.provenance.bank_name), self._backbones)
            if scorer.explains:
                prep, most = scorer.bank.manifest.preprocessing, self._maximum_pixels
                grey, _ = files.read_image(path, window=prep.window, rescale=prep.rescale, maximum_pixels=most)
                with self._computing:
                    return result, draw(grey, scorer.explain(grey), one.score, one.provenance)
        names = ", ".join(one.provenance.bank_name for one in measured)
        raise BankError(
            f"{names} cannot tell places, so there is no heat map; one needs a deep-knn bank with --patches, or an "
            "aligned-knn bank of this version (salad compares whole images)"
        )

    def _explained(self, ds: Dataset, result: ImageResult, scorer: AnyScorer, grey: Grey) -> Explanation:
        made_by = scorer.provenance()
        measured = next(one for one in measurements(result) if one.provenance == made_by)
        values = value_range(ds, maximum_pixels=self._maximum_pixels)
        with self._computing:
            saliency = scorer.explain(grey)
        return explanation_of(result.sop_instance_uid, grey, saliency, measured, values)

    def _grey(self, ds: Dataset, scorers: Sequence[AnyScorer]) -> list[tuple[AnyScorer, Grey]] | Refusal:
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
            code = "memory" if isinstance(error.__cause__, MemoryError) else "decode"
            return Refusal(code, str(error))
        for note in assumptions(ds):
            log.info(
                "assumed", extra={"sop_instance_uid": str(value_of(ds, "SOPInstanceUID") or ""), "note": note}
            )
        return [(s, greys[how]) for s, how in zip(scorers, wanted, strict=True)]

    def _compute(self, ds: Dataset, pairs: Sequence[tuple[AnyScorer, Grey]]) -> ImageResult:
        with self._computing:
            faiss.omp_set_num_threads(self._threads)
            scores = [(scorer.score_images([grey])[0], scorer.provenance()) for scorer, grey in pairs]
        return result_of(ds, *(Measurement(score, made_by) for score, made_by in scores))

    def _choose(self, admitting: Sequence[AnyScorer]) -> list[AnyScorer]:
        """Return the first of each kind, the one that decides first; none where that one is missing."""
        first: dict[BankKind, AnyScorer] = {}
        for scorer in admitting:
            first.setdefault(scorer.bank.manifest.kind, scorer)
        return [first[kind] for kind in self._kinds if kind in first] if self._kinds[0] in first else []

    def _route(self, ds: Dataset) -> list[AnyScorer] | Refusal:
        scorers = self._active.scorers()
        if not self._choose(scorers):
            return no_bank(self._kinds[0])
        chosen = self._choose([scorer for scorer in scorers if _admits(scorer, ds)])
        return chosen or not_admitted(ds, self._kinds[0], [scorer.bank.manifest.name for scorer in scorers])

    def _named_for(self, ds: Dataset, bank: str) -> list[AnyScorer] | Refusal:
        scorer = self._named.scorer(bank)
        return [scorer] if _admits(scorer, ds) else not_admitted_by(ds, bank)


def _admits(scorer: AnyScorer, ds: Dataset) -> bool:
    population = scorer.bank.manifest.population
    return population.admits(text(ds, "Modality"), stated_view(ds), stated_age(ds), stated_institution(ds))
