"""Building and judging banks of normals. The Bank on disk is all that the node sees of this package."""
