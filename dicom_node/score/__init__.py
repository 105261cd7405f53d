"""Pixels to a number: the frozen backbone, the head, the bank."""

import os

# Before torch and faiss load OpenMP: its threads shall sleep when idle. Spinning, they starve the decoding and
# the receiving of other images (624 images on two busy cores: 526 s against 19 s).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
