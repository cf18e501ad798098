"""Files of n-gram models at URLs: where they are, and their compact stores, made and opened.

Numba is imported where a store is, so that the command begins without it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gristmill.models.ngrams.arpa import Arpa
from gristmill.shards import store
from gristmill.shards.artifact import get_artifact
from gristmill.shards.errors import UserError
from gristmill.shards.scratch import scratch

if TYPE_CHECKING:
    from gristmill.models.ngrams.build import StoreSettings
    from gristmill.models.ngrams.store import LmStore

FILE = "lm.arpa"  # in an artifact
STORE_FILE = "lm.store"  # the same
STORE = ".store"  # the end of the names of stores
BINARIES = (".binary", ".bin", ".klm", ".mmap")  # and of KenLM's


def build_store(model: str, dest: str, settings: StoreSettings) -> dict[str, Any]:
    """Write the store of an ARPA model to a URL; return what is told of it, and its ``bytes``.

    ``model`` is an artifact, a folder that holds ``lm.arpa``, or an ARPA file. A store that is at ``dest`` is replaced,
    whole.

    Raises:
        UserError: the model cannot be read, is no ARPA model, or ``dest`` is not a place for a store.
    """
    from gristmill.models.ngrams.build import build
    from gristmill.models.ngrams.store import chunks

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


def open_store(url: str, *, check: bool = True) -> LmStore:
    """Return the store at a URL; a local file is mapped, so that all processes of the machine share one copy.

    Pages are read when they are needed. ``check`` reads the whole file once and compares its checksums; leave it out
    only where another process of this machine has just done so.

    Raises:
        UserError: there is no such file, it is no store, of another version, or damaged.

    Example:
        words = open_store("models/hi.store")
        words.sentence(["turn", "it", "off"]).sum()
    """
    with local_copy(url) as path:  # what is mapped stays when a copy of a remote file is removed
        return _mapped(path, url, check)


def load_store(model: str) -> LmStore:
    """Return a store as :func:`open_store` does, or that of an ARPA model, which is made in this process's memory.

    ``model`` is a file, an artifact, or a folder that holds ``lm.arpa``.

    Raises:
        UserError: as :func:`open_store`, or it is a binary of KenLM.
    """
    url = file_of(model)
    with local_copy(url) as path:
        return read_store(path, url)


def read_store(path: str, url: str) -> LmStore:
    """Return the store of a local file that was given as a URL; see :func:`load_store`."""
    if path.endswith(STORE):
        return _mapped(path, url)
    if path.endswith(BINARIES):
        raise UserError(f"{url}: a binary of KenLM, which only KenLM reads; expected a store or an ARPA file")
    with open(path, "rb") as file:
        return built(Arpa.from_bytes(file.read(), url), url)


def _mapped(path: str, url: str, check: bool = True) -> LmStore:
    from gristmill.models.ngrams.store import LmStore

    try:
        with open(path, "rb") as file:
            held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise UserError(f"{url}: cannot be read as a store of n-grams: {error}") from None
    return LmStore.of(held, url, check=check)


def built(model: Arpa, source: str = "the model") -> LmStore:
    """Return the store of a model, in this process's memory."""
    from gristmill.models.ngrams.build import build
    from gristmill.models.ngrams.store import LmStore

    made = build(model, source=source)
    return LmStore(made.body, made.words, made.facts)


def file_of(url: str) -> str:
    """Return the URL of a model's file."""
    if url.endswith((".arpa", STORE, *BINARIES)):
        return url
    artifact = get_artifact(url)
    if artifact is None:
        return store.join(url, FILE)
    name = STORE_FILE if STORE_FILE in artifact.files else FILE
    if name not in artifact.files:
        raise UserError(f"{url}: holds no {FILE}; expected the artifact of an n-gram model")
    return artifact.checked_url(name)


@contextlib.contextmanager
def local_copy(url: str) -> Iterator[str]:
    """Yield the local path of a file; a remote file is downloaded for the duration."""
    if store.is_local(url):
        path = store.filesystem(url)[1]
        if not os.path.isfile(path):
            what = "no n-gram model here" if os.path.exists(path) else "no such file"
            raise UserError(f"{url}: {what}; expected a store, an ARPA file or a KenLM binary")
        yield path
        return
    with scratch() as folder:
        copy = folder / f"model{os.path.splitext(url)[1]}"
        try:
            with copy.open("wb") as out:
                out.writelines(store.read_pieces(url))
        except FileNotFoundError:
            raise UserError(f"{url}: no such file; expected a store, an ARPA file or a KenLM binary") from None
        yield str(copy)


def _is_store(url: str) -> bool:
    from gristmill.models.ngrams.store import MAGIC

    with contextlib.suppress(OSError), store.open_read(url) as file:
        return file.read(len(MAGIC)) == MAGIC
    return False
