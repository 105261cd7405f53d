"""DIMSE in: what peers may send, and the status that answers it."""
