"""One file to what a bank needs of it: views and identifiers, or the reason why it is left out."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dicom_node.config import Eligibility
from dicom_node.domain.errors import CannotDecodeError, CannotUnderstandError
from dicom_node.score.attributes import text
from dicom_node.score.eligibility import judge, stated_view
from dicom_node.score.files import is_picture, parse_dicom, picture_to_grey, read_bytes
from dicom_node.score.manifest import Preprocessing
from dicom_node.score.pixels import Grey, to_grey
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


@dataclass(frozen=True, slots=True)
class Reader:
    """How files become views; the same for every file of a build."""

    preprocessing: Preprocessing
    views: tuple[str, ...]
    rules: Eligibility
    key: bytes

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
        modality, view, patient = "", entry.view, entry.patient
        try:
            content = read_bytes(entry.path)
            file_id = hashlib.sha256(content).hexdigest()[:32]
            if is_picture(content):
                if view and self.rules.view_positions and view not in self.rules.view_positions:
                    return Item(file_id, skipped=f"view: the manifest says {view}"), None
                grey = picture_to_grey(content, entry.path.name, rescale=prep.rescale)
            else:
                ds = parse_dicom(content, entry.path.name)
                refusal = judge(ds, self.rules)
                if refusal is not None:
                    return Item(file_id, skipped=f"{refusal.code}: {refusal.reason}"), None
                modality, view = text(ds, "Modality"), stated_view(ds) or view
                stated = text(ds, "PatientID") or text(ds, "StudyInstanceUID")
                patient = patient or (hash_patient(stated, self.key) if stated else "")
                grey = to_grey(ds, window=prep.window, rescale=prep.rescale)
        except CannotUnderstandError as error:
            return Item(skipped=f"unreadable: {error}"), None
        except CannotDecodeError as error:
            return Item(skipped=f"decode: {error}"), None
        shape = np.array(grey.shape, dtype=np.int64).tobytes()
        pixel_id = hashlib.sha256(shape + np.ascontiguousarray(grey).tobytes()).hexdigest()
        item = Item(file_id, pixel_id, patient or f"file-{file_id}", modality, view)
        return item, make_views(grey, self.views, prep.size, prep.resize_short)
