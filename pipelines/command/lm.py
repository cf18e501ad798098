"""The commands ``gristmill lm``: compact stores of n-gram models."""

from __future__ import annotations

from typing import Annotated

import typer

from gristmill.pipelines.command.using import Quiet, System, score
from gristmill.shards.errors import UserError

Store = Annotated[str, typer.Argument(metavar="STORE", help="A file that `gristmill lm build` wrote: a path or URL.")]


def build(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL-or-OUT", help="An ARPA file, a folder with lm.arpa, or the output of a run: its best system."
        ),
    ],
    dest: Annotated[str, typer.Argument(metavar="STORE", help="The file to write, such as lm.store; a path or URL.")],
    system: System = None,
    quantise: Annotated[
        int | None,
        typer.Option(
            min=2, max=16, metavar="BITS", help="Bits of the values of n-grams of two words and more [exact]."
        ),
    ] = None,
    fingerprint: Annotated[
        int | None,
        typer.Option(
            min=4,
            max=31,
            metavar="BITS",
            help="Bits of a word in n-grams of three words and more: others may be taken for listed ones [all].",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write a language model as a compact store: one file that all processes of a machine share.

    It is exact unless bits are left out, whose errors are told; a store that is there is replaced. It is a MODEL for
    score.
    """
    from gristmill.actors.ngram_files import build_store
    from gristmill.models.ngrams.build import StoreSettings
    from gristmill.pipelines.command.lm_shown import show_store
    from gristmill.pipelines.text.score import find_language_model
    from gristmill.shards.store import absolute

    _refuse_empty(model, dest)
    url, _, _ = find_language_model(model, system)
    to = absolute(dest)
    made = build_store(url, to, StoreSettings(quantise=quantise, fingerprint=fingerprint))
    if not quiet:
        show_store(made)
    print(f"store: {to}")


def info(
    place: Store,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a store, and show its n-grams, its size, and the errors of what it leaves out."""
    from gristmill.actors.ngram_files import open_store
    from gristmill.pipelines.command.lm_shown import show_store
    from gristmill.shards.store import absolute

    _refuse_empty(place)
    found = open_store(absolute(place))
    show_store(found.facts, as_json)


def _refuse_empty(*given: str) -> None:
    if "" in given:
        raise UserError("STORE or MODEL: an empty text; expected a path or URL")


VERBS = (build, score, info)  # `lm score` is `score`, which takes a store as well
PLAIN = {verb.__name__ for verb in VERBS}
