"""The commands that look after an output: what is wrong with it, what of it is damaged, and what is not needed."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gristmill.pipelines.command.arguments import Out
from gristmill.shards.safe_text import escaped


def audit(out: Out) -> None:
    """Check every record and byte of the sealed sets below OUT: one JSON line a set; exit code 1 on a gap."""
    import json

    from gristmill.pipelines.command.audit import audit_output
    from gristmill.pipelines.command.export_check import refuse_export
    from gristmill.pipelines.progress import plural
    from gristmill.shards.store import absolute

    refuse_export(absolute(out))
    gaps = cleaned = 0
    for result in audit_output(absolute(out)):
        cleaned += result.cleaned is not None
        print(escaped(json.dumps(result.to_json(), ensure_ascii=False)), flush=True)
        for gap in result.gaps:
            print(f"gristmill: gap: {escaped(gap)}", file=sys.stderr)
        gaps += len(result.gaps)
    if cleaned:
        print(f"gristmill: {plural(cleaned, 'set')} cleaned: the counts are those of their seals", file=sys.stderr)
    if gaps:
        raise typer.Exit(1)


def clean(
    out: Out,
    intermediate: Annotated[
        bool,
        typer.Option("--intermediate", help="Also sets of the newest run that only finished sets were made of."),
    ] = False,
    keep: Annotated[list[str] | None, typer.Option(metavar="NAME", help="What to keep all the same.")] = None,
    quarantined: Annotated[
        bool, typer.Option("--quarantined", help="Also sets that hold quarantined records, which could be requeued.")
    ] = False,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Also what a newer run has made, which was not finished.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted, and delete nothing.")] = False,
) -> None:
    """Delete what the newest finished run of OUT does not use; a run makes again what it needs.

    Seals are kept, so that counts can be audited and finished work is found. Data of another program, and what lies
    behind links, are left alone.
    """
    from gristmill.pipelines.command.clean import clean_output
    from gristmill.pipelines.command.export_check import refuse_export
    from gristmill.pipelines.unused import CleaningChoice
    from gristmill.shards.store import absolute

    refuse_export(absolute(out))
    choice = CleaningChoice(intermediate, frozenset(keep or ()), quarantined, unfinished)
    clean_output(absolute(out), choice, dry_run=dry_run)


def repair(out: Out) -> None:
    """Move damaged work of OUT aside, so that the next run makes it again."""
    from gristmill.pipelines.command.export_check import refuse_export
    from gristmill.pipelines.command.repair import repair_output
    from gristmill.shards.store import absolute

    refuse_export(absolute(out))
    repair_output(absolute(out))


VERBS = (audit, clean, repair)
PLAIN = {verb.__name__ for verb in VERBS}  # they commit no work, so that one that was interrupted has nothing to resume
