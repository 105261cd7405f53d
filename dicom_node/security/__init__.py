"""Secrets and certificates: TLS contexts, expiry, hashed passcodes. Files and values in, nothing of DICOM known."""
