"""One file to what a bank needs of it: views and identifiers, or the reason why it is left out."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from dicom_node.config import Eligibility
from dicom_node.domain.errors import CannotDecodeError, CannotUnderstandError
from dicom_node.domain.types import Refusal
from dicom_node.score.attributes import text
from dicom_node.score.eligibility import judge, stated_view
from dicom_node.score.files import is_picture, parse_dicom, picture_to_grey, read_bytes
from dicom_node.score.manifest import Population, Preprocessing
from dicom_node.score.pixels import Grey, to_grey
from dicom_node.score.population import stated_age, stated_institution
from dicom_node.score.views import make_views
from training.manifest import Entry, hash_patient


@dataclass(frozen=True, slots=True)
class Item:
    """What is kept of one file.

    Attributes
    ----------
    file_id
        Shortened SHA-256 of the file.
    pixel_id
        SHA-256 of the grey image: two files of one image have the same.
    patient
        Keyed hash; a file that states no patient is a patient of its own.
    modality, view
        As stated, in upper case, else "".
    skipped
        Why the file is left out ("code: sentence"), or "".
    """

    file_id: str = ""
    pixel_id: str = ""
    patient: str = ""
    modality: str = ""
    view: str = ""
    skipped: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


def with_header(entry: Entry, ds: Dataset, key: bytes) -> Entry:
    """Return the entry with what a DICOM header states; the patient of the CSV stays where it names one."""
    identifier = text(ds, "PatientID") or text(ds, "StudyInstanceUID")
    age = stated_age(ds)
    return replace(
        entry,
        patient=entry.patient or (hash_patient(identifier, key) if identifier else ""),
        modality=text(ds, "Modality") or entry.modality,
        view=stated_view(ds) or entry.view,
        age=entry.age if age is None else age,
        site=stated_institution(ds) or entry.site,
    )


@dataclass(frozen=True, slots=True)
class Reader:
    """How files become views; the same for every file of a build.

    A file that states something outside `population` is left out; one that states nothing is taken at the word
    of whoever ordered the build.
    """

    preprocessing: Preprocessing
    views: tuple[str, ...]
    rules: Eligibility
    key: bytes
    population: Population = field(default_factory=Population)

    def read(self, entry: Entry) -> tuple[Item, Grey | None]:
        """Read one file.

        Returns
        -------
        item : Item
            With `skipped` set where the file is left out.
        views : numpy.ndarray or None
            (A, S, S) float32 in [0, 1]; None where the file is left out.
        """
        prep = self.preprocessing
        try:
            content = read_bytes(entry.path)
            file_id = hashlib.sha256(content).hexdigest()[:32]
            ds = None if is_picture(content) else parse_dicom(content, entry.path.name)
            if ds is not None:
                refusal = judge(ds, self.rules)
                entry = with_header(entry, ds, self.key)
            elif entry.view and self.rules.view_positions and entry.view not in self.rules.view_positions:
                refusal = Refusal("view", f"the manifest says {entry.view}")
            else:
                refusal = None
            outside = self.population.contradicts(entry.modality, entry.view, entry.age, entry.site)
            if refusal is None and outside:
                refusal = Refusal("population", f"its {outside} is not that of the bank's population")
            if refusal is not None:
                return Item(file_id, skipped=f"{refusal.code}: {refusal.reason}"), None
            if ds is None:
                grey = picture_to_grey(content, entry.path.name, rescale=prep.rescale)
            else:
                grey = to_grey(ds, window=prep.window, rescale=prep.rescale)
        except CannotUnderstandError as error:
            return Item(skipped=f"unreadable: {error}"), None
        except CannotDecodeError as error:
            return Item(skipped=f"decode: {error}"), None
        shape = np.array(grey.shape, dtype=np.int64).tobytes()
        pixel_id = hashlib.sha256(shape + np.ascontiguousarray(grey).tobytes()).hexdigest()
        item = Item(file_id, pixel_id, entry.patient or f"file-{file_id}", entry.modality, entry.view)
        return item, make_views(grey, self.views, prep.size, prep.resize_short)
