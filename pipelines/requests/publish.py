"""Publication of a run's models that read requests: a folder that is read with by itself, with a card."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from gristmill.actors.embed import model_files
from gristmill.pipelines.finished import open_finished
from gristmill.pipelines.publishing import BEST, Publication, Published
from gristmill.pipelines.requests.annotate import run_models
from gristmill.pipelines.requests.card import write_card
from gristmill.pipelines.requests.published import (
    EMBEDDER,
    MODELS,
    SETTINGS,
    WEIGHTS,
    described,
    folder_of,
    settings_of,
)
from gristmill.shards import canonical, processor, store
from gristmill.shards.artifact import MARK, Content
from gristmill.shards.safe_text import redacted

_CHUNK = 1 << 24


def publish(
    out: store.Place, system: str, dest: store.Place, say: Callable[[str], None] = lambda sentence: None
) -> Published:
    """Write a system of a finished run (``best``: its best one) to a folder, which is given to ``annotate``.

    The models are copied as their trainings committed them, and the folder of a sentence-transformers model that they
    read with them; one that has a name is found by it. What an earlier publication wrote is compared with its digests,
    and written again if it is damaged or missing.

    Raises:
        UserError: there is no such run or system, the folder contains something else, cannot be written or lies in the
            run's output, or this machine does not offer the instruction set.
        Damaged: a model is not as it was trained.
    """
    processor.check()
    out, dest = store.absolute(out), store.absolute(dest)
    run = open_finished(out, "annotate", "the output of a run that trains domain models", "publish")
    given = run_models(run, None if system == BEST else system)
    digests = {
        folder_of(kind, domain): one.digest
        for kind, made in ((MODELS, given.models), (WEIGHTS, given.weights))
        for domain, one in made.items()
    }
    publication = Publication(out, dest, canonical.digest(digests), (SETTINGS, MODELS, WEIGHTS, EMBEDDER))
    say(given.said)
    copied = {} if given.embedder is None else model_files(given.embedder.embedder)
    identity = {"published": given.system, "embedder": sorted(copied)}
    command = f"gristmill annotate {shlex.quote(dest)} REQUESTS.txt"
    if (there := publication.find(identity, say)) is not None:
        return Published(dest, there, command, fresh=False)
    settings = settings_of(described(given, copied=bool(copied)), run.report["recipe"])
    files: dict[str, Content] = {SETTINGS: redacted(settings).encode() + b"\n"}
    for kind, made in ((MODELS, given.models), (WEIGHTS, given.weights)):
        for domain, one in made.items():
            folder = folder_of(kind, domain)
            files[f"{folder}/{MARK}"] = store.read_bytes(store.join(one.url, MARK))
            files |= {f"{folder}/{path}": one.read(name) for name, path in one.files.items()}
    files |= {f"{EMBEDDER}/{name}": _chunks_of(path) for name, path in copied.items()}
    return Published(dest, publication.write(files, identity, write_card(run, given, copied=bool(copied))), command)


def _chunks_of(path: Path) -> Callable[[], Iterator[bytes]]:
    def chunks() -> Iterator[bytes]:
        with path.open("rb") as file:
            while data := file.read(_CHUNK):
                yield data

    return chunks
