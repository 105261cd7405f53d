"""The Conformance Statement as tests read it: its sections and tables."""

from __future__ import annotations

import re

from tests.deployment import DEPLOY

TEXT = (DEPLOY / "CONFORMANCE.md").read_text(encoding="utf-8")
FLAT = " ".join(TEXT.split())


def section(*path: str) -> str:
    """Return the text under a heading, from the heading before it on; each heading is found after the last."""
    text = TEXT
    for heading in path:
        found = re.search(rf"^(#+) {re.escape(heading)}$(.*)", text, re.MULTILINE | re.DOTALL)
        assert found, f"there is no heading {heading!r}"
        end = re.search(rf"^#{{1,{len(found[1])}}} ", found[2], re.MULTILINE)
        text = found[2][: end.start()] if end else found[2]
    return text


def table(text: str, *header: str) -> list[list[str]]:
    """Return the rows of the table with this header."""
    lines = text.splitlines()
    start = lines.index(f"| {' | '.join(header)} |")
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


SCP = section("4 Networking", "4.2 AE specifications", "4.2.1 Storage SCP AE")
SCU = section("4 Networking", "4.2 AE specifications", "4.2.2 Storage SCU AE")
