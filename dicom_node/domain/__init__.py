"""The common language of all rooms. Standard library only; no I/O, no clock, no randomness."""
