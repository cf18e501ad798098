"""``python -m gristmill``: the command."""

from gristmill.pipelines.command.cli import main

if __name__ == "__main__":
    main()
