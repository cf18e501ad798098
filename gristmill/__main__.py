"""``python -m gristmill``: the command."""


def main() -> None:
    """Run the command line; a signal is heard before its modules are loaded."""
    from gristmill.pipelines.command import interruption

    interruption.listen()
    from gristmill.pipelines.command import cli

    cli.main()


if __name__ == "__main__":
    main()
