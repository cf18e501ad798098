"""Recipes on requests."""
