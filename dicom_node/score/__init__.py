"""Pixels to a number: the frozen backbone, the head, the bank."""
