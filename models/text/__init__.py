"""Translators, n-gram models and the selection of text."""
