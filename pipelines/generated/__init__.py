"""Synthetic corpora for the embedded defaults."""
