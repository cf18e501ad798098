"""Corpora that are made up, for the embedded defaults."""
