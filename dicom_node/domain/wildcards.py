"""Wild card matching of DICOM (PS3.4 section C.2.2.2.4). Standard library only."""

from __future__ import annotations


def like(pattern: str, text: str) -> bool:
    """Return whether a text matches a pattern in which "*" stands for anything and "?" for one character.

    It takes time that grows with the product of both lengths, whatever a peer asks; a regular expression does not.
    """
    at, behind, star, mark = 0, 0, -1, 0
    while at < len(text):
        if behind < len(pattern) and pattern[behind] == "*":
            star, mark, behind = behind, at, behind + 1
        elif behind < len(pattern) and pattern[behind] in ("?", text[at]):
            at, behind = at + 1, behind + 1
        elif star >= 0:
            mark += 1
            at, behind = mark, star + 1
        else:
            return False
    return not pattern[behind:].strip("*")
