"""Actors on requests: parsing, domain models, lists of hypotheses, re-rankers."""
