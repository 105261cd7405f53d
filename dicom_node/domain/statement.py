"""A table of the Conformance Statement: what a room tells of itself, as values. Pure; standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """Names of the columns, and the rows in their order."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        """Return it in Markdown."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        first, rule, *rest = (_line(cells) for cells in lines)
        return "\n".join((first, rule.replace(" ", ""), *rest))


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
