"""One class for each kind of worker: what it loads once, and what it does to a batch."""
