"""The commands that use trained models: ``transcribe``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Model = Annotated[
    str, typer.Argument(metavar="MODEL-or-OUT", help="The folder of a model, or the output of a run: its best system.")
]
System = Annotated[
    str | None, typer.Option(metavar="NAME", help="A system of the run's report, in place of the best one.")
]


def transcribe(
    model: Model,
    audio: Annotated[
        list[str],
        typer.Argument(
            metavar="AUDIO...", help="Files, folders, manifests, Parquet or tar shards; - is audio from standard input."
        ),
    ],
    form: Annotated[
        Literal["text", "jsonl", "ctm", "srt"],
        typer.Option("--format", "-f", help="jsonl has times and confidences, and is a NeMo manifest."),
    ] = "text",
    system: System = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: a GPU if there is one.")] = "auto",
    beam: Annotated[int, typer.Option(min=0, help="Width of the search; 0: the best path.")] = 0,
    segment: Annotated[
        Literal["silero", "energy"] | None,
        typer.Option(help="What finds speech in recordings of over 30 s [silero if it is installed]."),
    ] = None,
    elsewhere: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="Where entries of a list may lie that are not beside it.")
    ] = None,
    into: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write a file for each recording into DIR, not standard output.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="OUT", help="Transcribe a corpus as a run that commits shard by shard, and resumes, on Ray."
        ),
    ] = None,
    runner: Annotated[Literal["ray", "inprocess"], typer.Option(help="With --out.")] = "ray",
    workers: Annotated[int | None, typer.Option(min=1, metavar="N", help="With --out.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only what could not be transcribed.")] = False,
) -> None:
    """Transcribe recordings, in their order, by a model or by the best system of a run.

    One recording gives its text, a line an utterance; several, a folder or a list give the recording, a tab and the
    text. What cannot be read is told on standard error, and the others go on.

    Exit code 0: all are transcribed (of silence the text is empty); 1: some could not be read; 2: nothing was done.
    """
    from gristmill.pipelines.command.transcribe import print_transcripts, transcribe_corpus

    settings = {"system": system, "device": device, "beam": beam, "segment": segment, "elsewhere": elsewhere or ()}
    if out is None:
        unread = print_transcripts(model, audio, form, into, quiet=quiet, **settings)
    else:
        execution = [f"runner={runner}"] + ([f"workers={workers}"] if workers else [])
        unread = transcribe_corpus(model, audio, out, execution, quiet=quiet, **settings)
    if unread:
        raise typer.Exit(1)


VERBS = (transcribe,)
PLAIN = {"transcribe"}  # those that commit no work, so that one that was interrupted has nothing to resume
