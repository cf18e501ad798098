"""The commands that use what a run made. Each writes to standard output what it finds, in the order of its input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import typer

from gristmill.shards.errors import UserError

Model = Annotated[
    str, typer.Argument(metavar="MODEL-or-OUT", help="The folder of a model, or the output of a run: its best system.")
]
System = Annotated[
    str | None, typer.Option(metavar="NAME", help="A system of the run's report, in place of the best one.")
]


def _refuse_empty(what: str, *given: str | None) -> None:
    """Refuse an empty path, which is mostly a shell's variable that is not set; as a path it would be this folder."""
    if "" in given:
        raise UserError(f"{what}: an empty text; expected a path or URL")


def _refuse_together(out: str | None, without: Mapping[str, object], with_it: Mapping[str, object]) -> None:
    """Refuse the options that say nothing beside ``--out``, or beside its lack."""
    for option, value in (without if out is not None else with_it).items():
        if value is not None and out is None:
            raise UserError(f"{option}: is for a corpus that is transcribed as a run; expected --out OUT beside it")
        if value is not None:
            raise UserError(
                f"{option}: is for transcripts that are printed, and with --out they are a set of the run; expected "
                "one of the two (`gristmill export` writes a set in other forms)"
            )


def transcribe(
    model: Model,
    audio: Annotated[
        list[str],
        typer.Argument(
            metavar="AUDIO...", help="Files, folders, manifests, Parquet or tar shards; - is audio from standard input."
        ),
    ],
    form: Annotated[
        Literal["text", "jsonl", "ctm", "srt"] | None,
        typer.Option("--format", "-f", help="jsonl has times and confidences, and is a NeMo manifest [text]."),
    ] = None,
    system: System = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto: a GPU if there is one.")] = "auto",
    beam: Annotated[
        int | None, typer.Option(min=0, help="Width of the search; 0: the best path [0; through words 16].")
    ] = None,
    lm: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="A language model of the words to search for: a store or an ARPA file.",
        ),
    ] = None,
    lexicon: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="The words of the search, one a line; for a model of phonemes with a tab and a pronunciation [the "
            "words of --lm, as characters or pieces spell them].",
        ),
    ] = None,
    words: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="A list of names and terms that may be said, a word or phrase a line; no training is needed for it.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of the search through words: decoder.weight=0.8 is the language model's weight, "
            "bias.enter=5 the price of a listed word; the documentation has all [those that the model was tuned to].",
        ),
    ] = None,
    segment: Annotated[
        Literal["silero", "energy"] | None,
        typer.Option(
            help="What finds speech where recordings are cut: those of over twice the mean length of what the model "
            "was trained on, or of 10 s if that is unknown [silero if it is installed]."
        ),
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
    runner: Annotated[Literal["ray", "inprocess"] | None, typer.Option(help="With --out [ray].")] = None,
    workers: Annotated[int | None, typer.Option(min=1, metavar="N", help="With --out.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only what could not be transcribed.")] = False,
) -> None:
    """Transcribe recordings, in their order, by a model or by the best system of a run.

    One recording gives its text, a line an utterance; several, a folder or a list give the recording, a tab and the
    text. What cannot be read is told on standard error, and the others go on.

    Exit code 0: all are transcribed (of silence the text is empty); 1: some, or all, could not be read; 2: nothing was
    tried, as there is no model or a file is missing.
    """
    from gristmill.pipelines.speech.known_words import KnownWords

    _refuse_empty("MODEL", model)
    _refuse_empty("AUDIO", *audio)
    _refuse_empty("--into", into)
    _refuse_empty("--out", out)
    _refuse_empty("--lm", lm)
    _refuse_empty("--lexicon", lexicon)
    _refuse_empty("--words", words)
    _refuse_together(out, {"--format": form, "--into": into}, {"--runner": runner, "--workers": workers})
    known = None
    if (lm, lexicon, words) != (None, None, None):
        known = KnownWords(lm, lexicon, words, changed=settings or ())
    elif settings:
        raise UserError(
            f"--set {settings[0]}: is for a search through words; expected --lm, --lexicon or --words beside it"
        )
    given: dict[str, object] = {"system": system, "device": device, "beam": beam, "words": known}
    given |= {"segment": segment, "elsewhere": elsewhere or ()}
    if out is None:
        from gristmill.pipelines.command.transcribe import print_transcripts

        unread = print_transcripts(model, audio, form or "text", into, quiet=quiet, **given)
    else:
        from gristmill.pipelines.command.transcribe_corpus import transcribe_corpus

        execution = [f"{key}={value}" for key, value in (("runner", runner), ("workers", workers)) if value]
        unread = transcribe_corpus(model, audio, out, execution, quiet=quiet, **given)
    if unread:
        raise typer.Exit(1)


Texts = Annotated[
    list[str] | None,
    typer.Argument(metavar="[TEXTS]...", help="Files with a text in each line, .gz too [-, standard input]."),
]
TextForm = Annotated[Literal["text", "jsonl"], typer.Option("--format", "-f", help="jsonl has all that is known.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say only what went wrong.")]


def translate(
    model: Model,
    texts: Texts = None,
    form: TextForm = "text",
    system: System = None,
    beam: Annotated[int, typer.Option(min=1, help="Width of the search.")] = 4,
    n: Annotated[int, typer.Option("-n", min=1, help="Translations of each text, in jsonl.")] = 1,
    prefix: Annotated[str, typer.Option(help="The token of the target language, of multilingual translators.")] = "",
    quiet: Quiet = False,
) -> None:
    """Translate texts by a translator, or by the best one of a run: a line for each line.

    Exit code 1: some could not be translated, and their lines are empty.
    """
    from gristmill.pipelines.command.texts import print_translations

    _refuse_empty("MODEL", model)
    _refuse_empty("TEXTS", *texts or ())
    if print_translations(model, texts or ["-"], form, quiet, system=system, beam=beam, n=n, prefix=prefix):
        raise typer.Exit(1)


def score(
    model: Model,
    texts: Texts = None,
    form: TextForm = "text",
    system: System = None,
    lang: Annotated[
        str | None,
        typer.Option(
            metavar="LANG",
            help="Write texts in lower case without punctuation first, as LANG has it [a run's own language].",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Score texts by a language model: log-probability (nats), perplexity, unknown words and the text, a line each.

    The perplexity of all is told on standard error.

    Exit code 1: some lines could not be read, and theirs are empty.
    """
    from gristmill.pipelines.command.texts import print_scores

    _refuse_empty("MODEL", model)
    _refuse_empty("TEXTS", *texts or ())
    if print_scores(model, texts or ["-"], form, quiet, system=system, lang=lang):
        raise typer.Exit(1)


def annotate(
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="The output of a run of the recipe rerank, expand or sessions, or a folder that publish wrote of one.",
        ),
    ],
    requests: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[REQUESTS]...",
            help='Files with a request in each line, or in .jsonl {"text": ...} with its context [-, standard input].',
        ),
    ] = None,
    form: TextForm = "text",
    system: System = None,
    quiet: Quiet = False,
) -> None:
    """Read requests: domain, intent, confidence, slots and the text, a line each.

    Exit code 1: some have no reading, and their lines are empty.
    """
    from gristmill.pipelines.command.texts import print_annotations

    _refuse_empty("OUT", out)
    _refuse_empty("REQUESTS", *requests or ())
    if print_annotations(out, requests or ["-"], form, quiet, system=system):
        raise typer.Exit(1)


def publish(
    out: Annotated[str, typer.Argument(metavar="OUT", help="The output of a finished run.")],
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="A system of its report; best: the best one.")],
    dest: Annotated[str, typer.Argument(metavar="DEST", help="An unused path or URL outside of OUT.")],
) -> None:
    """Write models of a run as a folder to pass on: weights, settings and a card; of a recogniser also an ONNX graph.

    The folder of a recogniser is a MODEL for transcribe, that of models of requests an OUT for annotate. The
    outputs of the graph are compared with torch's.
    """
    from gristmill.pipelines.command.transcribe import tell
    from gristmill.pipelines.finished import read_finished
    from gristmill.pipelines.requests import publish as requests
    from gristmill.pipelines.speech import publish as speech
    from gristmill.shards.store import absolute

    _refuse_empty("OUT", out)
    _refuse_empty("DEST", dest)
    found = read_finished(absolute(out))
    reads = found is not None and found.verb == "annotate"
    made = (requests.publish if reads else speech.publish)(out, system, dest, tell)
    if not made.fresh:
        print("nothing to do: it was published earlier")
    print(f"published: {made.url} ({', '.join(made.files)})")
    print(f"next: {made.command}")


VERBS = (transcribe, translate, annotate, score, publish)
PLAIN = {verb.__name__ for verb in VERBS}  # they commit no work, so that one that was interrupted has nothing to resume
