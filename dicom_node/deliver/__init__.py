"""DIMSE and DICOMweb out."""
