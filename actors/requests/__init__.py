"""Actors on requests: filters, self-training, selection, paraphrases, peers of re-rankers."""
