"""Files of compact n-gram stores, :mod:`gristmill.models.text.lm_store`: made of models at URLs, and opened."""

from __future__ import annotations

import contextlib
from typing import Any

from gristmill.actors.text.language_model import file_of, local_copy
from gristmill.actors.text.lm_engine import STORE
from gristmill.models.text.arpa import Arpa
from gristmill.models.text.lm_build import StoreSettings, build
from gristmill.models.text.lm_store import MAGIC, LmStore, chunks
from gristmill.shards import store
from gristmill.shards.errors import UserError


def build_store(model: str, dest: str, settings: StoreSettings) -> dict[str, Any]:
    """Write the store of an ARPA model to a URL; return what is told of it, and its ``bytes``.

    ``model`` is an artifact, a folder that holds ``lm.arpa``, or an ARPA file. A store that is at ``dest`` is replaced,
    whole.

    Raises:
        UserError: the model cannot be read, is no ARPA model, or ``dest`` is not a place for a store.
    """
    if not dest.endswith(STORE):
        raise UserError(f"{dest}: not the name of a store; expected one that ends with {STORE}")
    if store.is_taken(dest) and not _is_store(dest):
        raise UserError(f"{dest}: there is something that is no store; expected an unused path or URL")
    url = file_of(model)
    if not url.endswith(".arpa"):
        raise UserError(f"{url}: not an ARPA file; a store is built from one")
    with local_copy(url) as path, open(path, "rb") as file:
        built = build(Arpa.from_bytes(file.read(), url), settings, url)
    pieces = list(chunks(built))  # views of the arrays
    store.write_chunks(dest, lambda: map(bytes, pieces))
    return {**built.facts, "bytes": sum(map(len, pieces))}


def open_store(url: str) -> LmStore:
    """Return the store at a URL; a local file is mapped, so that all processes of the machine share one copy.

    Raises:
        UserError: see :meth:`~gristmill.models.text.lm_store.LmStore.open`.
    """
    with local_copy(url) as path:  # what is mapped stays when a copy of a remote file is removed
        return LmStore.open(path, source=url)


def _is_store(url: str) -> bool:
    with contextlib.suppress(OSError), store.open_read(url) as file:
        return file.read(len(MAGIC)) == MAGIC
    return False
