"""Models that choose, label and compare requests."""
