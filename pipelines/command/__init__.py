"""The verbs of the command ``gristmill``."""
