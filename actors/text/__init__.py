"""Actors on text: parsing, selection, translation, n-gram models."""
