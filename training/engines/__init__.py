"""Where embedding runs: here, or on a cluster."""
