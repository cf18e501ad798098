"""Actors and trainings of domain models and re-rankers: annotation, lists of hypotheses, weights."""
