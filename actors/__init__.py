"""One class per kind of worker: the models it loads once, and its work on a batch."""
