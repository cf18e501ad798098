"""The subcommands of ``gristmill``."""
