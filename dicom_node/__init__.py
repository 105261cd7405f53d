"""A DICOM node that scores chest X-rays by their distance to a site's own normal chests.

receive -> store -> queue -> score -> report -> deliver. ARCHITECTURE.md says which room may know which.
"""

__version__ = "0.1.0"
