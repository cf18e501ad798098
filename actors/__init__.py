"""Actors: one class per kind of worker, with the models it loads once and its work on a batch."""
