"""Domain models, which read requests, and re-rankers of their readings: what several wings train and use."""
