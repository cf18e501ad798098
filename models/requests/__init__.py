"""Models that read requests, and re-rankers of their readings."""
