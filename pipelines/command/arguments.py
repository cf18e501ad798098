"""The arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer


def _show_versions(wanted: bool) -> None:
    if wanted:
        from gristmill.pipelines.versions import told

        print(told())
        raise typer.Exit


Config = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="A recipe file, or the name of a bundled one, such as distill.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Settings that override those of the file; `gristmill config` shows them.",
    ),
]
Recipe = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG",
        help="A recipe file, the name of a bundled one, or a recipe, such as bootstrap_lm.",
    ),
]
Sections = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SECTION|KEY=VALUE]...",
        help="Sections to show, such as systems.student [all]; and settings that override those of the file.",
    ),
]
Out = Annotated[str, typer.Argument(metavar="OUT", help="The output of a run: a path or URL.")]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="URL", envvar="RAY_API_SERVER_ADDRESS", help="The URL of the dashboard, such as http://HOST:8265."
    ),
]
Version = Annotated[
    bool,
    typer.Option("--version", callback=_show_versions, is_eager=True, help="Show the versions for a bug report."),
]
