"""Listings of corpora in common formats: speech, requests and text."""
