"""A score to DICOM objects."""
