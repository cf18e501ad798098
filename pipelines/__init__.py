"""Recipes, one module each, the command line, evaluation and reports."""
