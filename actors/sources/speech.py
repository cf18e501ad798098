"""Listing of speech corpora as rows that point at audio, without reading any audio.

Folders, NeMo manifests, Lhotse cuts, Kaldi data folders, tables, Parquet and tar shards, a module each. Memory does
not grow with the corpus, except for the names of one folder, the members of one tar or the labels of a Kaldi folder.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal

import pyarrow as pa

from gristmill.actors.sources.files import SUFFIXES, Say, base_of, in_tables, visible
from gristmill.actors.sources.folder import list_folder
from gristmill.actors.sources.kaldi import is_data_folder, list_kaldi
from gristmill.actors.sources.lhotse import are_cuts, cuts_in, list_cuts
from gristmill.actors.sources.manifest import USUAL, begins_as_manifest, list_manifest, manifest_keys, manifests_in
from gristmill.actors.sources.parquet import list_parquet, parquet_columns
from gristmill.actors.sources.places import without_foreign
from gristmill.actors.sources.pointers import NAMES, POINTERS
from gristmill.actors.sources.splits import METADATA, metadata_of_splits
from gristmill.actors.sources.tables import list_table, table_columns, tables_in
from gristmill.actors.sources.tar import list_tar
from gristmill.actors.sources.unlisted import begun
from gristmill.shards.errors import UserError
from gristmill.shards.store import bare, exists, filesystem, is_local, list_names
from gristmill.shards.walking import walk

Kind = Literal["auto", "folder", "manifest", "lhotse", "kaldi", "table", "parquet", "tar"]
KINDS = ("folder", "manifest", "lhotse", "kaldi", "table", "parquet", "tar")

_EXPECTED = (
    "expected a folder of audio (.wav, .flac, .mp3, .m4a, ...), a JSONL manifest with audio_filepath, Lhotse cuts, a "
    "Kaldi data folder, TSV or CSV with a column of paths, Parquet with an audio column, or .tar shards"
)
_ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", ".7z", ".rar")
_LISTS = tuple(suffix for kind in ("manifest", "lhotse", "table", "parquet", "tar") for suffix in SUFFIXES[kind])
_LISTINGS = {
    "folder": list_folder,
    "manifest": list_manifest,
    "lhotse": list_cuts,
    "kaldi": list_kaldi,
    "table": list_table,
    "parquet": list_parquet,
    "tar": list_tar,
}
_COLUMNS = {"manifest": manifest_keys, "table": table_columns, "parquet": parquet_columns}


def list_sources(
    url: str,
    kind: Kind = "auto",
    *,
    corpus: str | None = None,
    fields: Mapping[str, str] | None = None,
    rows: int = 2000,
    elsewhere: Sequence[str] = (),
    say: Say = lambda sentence: None,
) -> Iterator[pa.Table]:
    """Yield the records of a corpus in order, as tables of ``pointers.POINTERS`` with at most ``rows`` rows each.

    ``url``: a file, a folder or a pattern with ``*``. ``corpus``: the first part of every id; by default the name of
    the folder or file. ``fields``: the source's names for ``audio``, ``text``, ``speaker``, ``lang``, ``duration`` or
    ``rate``, if they are not among the usual ones, and for ``id``, if records have one of their own. ``elsewhere``:
    URLs below which entries of another kind may lie (:class:`~gristmill.actors.sources.places.PlaceSettings`). ``say``
    is told of columns that are not read. A missing path, a corpus without audio and a file of unknown kind raise
    :class:`UserError` here, not at the first table; a malformed line becomes a row of kind "bad", and a file that
    cannot be listed (to its end) one of kind "unlisted", unless there is no other. Hidden files and folders
    (``.name``) are skipped.

    ``version`` changes when a file is rewritten, even at the same size: the audio file or the text beside it in a
    folder, the Parquet or tar file itself. Audio named by a manifest or a Parquet of paths has the version of that
    file, since checking each audio file costs a request: if such audio changed in place, rewrite the manifest.
    """
    url = _whole(url)
    unknown = sorted(set(fields or {}) - set(NAMES))
    if unknown:
        raise UserError(f"fields: {unknown[0]} is not a field of a record; expected {', '.join(NAMES)}")
    if "*" not in url and not exists(url):
        raise UserError(f"{url}: no such file or folder; {_EXPECTED}")
    chosen = _detect(url, fields) if kind == "auto" else kind
    if chosen not in KINDS:
        raise UserError(f"{url}: unknown kind of corpus {chosen!r}; expected auto, {', '.join(KINDS)}")
    name = corpus or corpus_name(url)
    pointers = without_foreign(_LISTINGS[chosen](url, name, fields, say), url, elsewhere)
    return in_tables(begun(pointers, lambda: _nothing(url)), POINTERS, rows)


def columns_of(
    url: str, fields: Mapping[str, str] | None = None, enough: Callable[[Collection[str]], bool] = lambda names: False
) -> list[str] | None:
    """Return the names of the columns of a corpus, in any of its files; ``None`` if files of its kind have none.

    Of a manifest they are the keys of its lines. Once those found are ``enough``, no more is read.
    """
    url = _whole(url)
    find = _COLUMNS.get(_detect(url, fields))
    if find is None:
        return None
    found: dict[str, None] = {}
    for names in find(url, fields):
        found |= dict.fromkeys(names)
        if enough(found):
            break
    return list(found) or None


def _whole(url: str) -> str:
    url = url.rstrip("/") or url
    return filesystem(url)[1] if is_local(url) else url  # absolute: a worker may have another working folder


def corpus_name(url: str) -> str:
    """Return the default name of a corpus: that of its file or folder."""
    parts = [p for p in _whole(bare(url)).split("/") if p and "*" not in p]
    stem = re.sub(r"\.(jsonl\.gz|jsonl|json|parquet|arrow|tar)$", "", parts[-1]) if parts else "corpus"
    return parts[-2] if stem in ("manifest", "cuts") and len(parts) > 1 else stem


def _detect(url: str, fields: Mapping[str, str] | None) -> str:
    """Return the kind of a corpus: by file name; in a folder, a manifest first, else the first file of any kind."""
    if are_cuts(bare(url)):
        is_other = "*" not in url and "cuts" not in posixpath.basename(bare(url)).lower()
        return "manifest" if is_other and begins_as_manifest(url, fields) else "lhotse"
    for kind, suffixes in SUFFIXES.items():
        if kind != "lhotse" and bare(url).lower().endswith(suffixes):
            return kind
    if "*" not in url:
        if is_data_folder(url):
            return "kaldi"
        names = list_names(url)
        if not set(USUAL).intersection(names) and cuts_in(url):
            return "lhotse"
        if manifests_in(url):
            return "manifest"
        if tables_in(url):
            return "table"
        own = [name for name in names if name in METADATA]
        found = {METADATA[posixpath.basename(file)] for file in own or metadata_of_splits(url)}
        if found:
            return next(kind for kind in METADATA.values() if kind in found)
        base = base_of(url)
        for info in walk(url):
            for kind in ("parquet", "tar", "folder"):
                if info.url.lower().endswith(SUFFIXES[kind]) and visible(info.url, base):
                    return kind
    raise _nothing(url)


def _nothing(url: str) -> UserError:
    """Return the error for a corpus without a record."""
    if "*" in url:
        return UserError(f"{url}: no audio matches this pattern (a * in a name stands for any); {_EXPECTED}")
    if bare(url).lower().endswith(_ARCHIVES):
        return UserError(f"{url}: a compressed archive, of which no member can be read alone; unpack it, or write .tar")
    fs, path = filesystem(url)
    what = "holds no record" if fs.isfile(path) and bare(url).lower().endswith(_LISTS) else "no audio found"
    return UserError(f"{url}: {what}; {_EXPECTED}")
