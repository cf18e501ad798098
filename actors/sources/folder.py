"""Listing of folders of audio files, with transcripts beside them."""

from __future__ import annotations

import codecs
import itertools
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from gristmill.actors.sources.encoding import TEXT_ENCODING, refuse_wide
from gristmill.actors.sources.files import AUDIO_SUFFIXES, VIDEO_SUFFIXES, Say, base_of, key_of, matches, visible
from gristmill.actors.sources.pointers import version_of
from gristmill.actors.sources.reading import read_document
from gristmill.actors.sources.splits import are_labels, tell_unread
from gristmill.actors.sources.unlisted import guarded
from gristmill.shards.store import bare
from gristmill.shards.walking import walk

_SIDECARS = (".txt", ".lab", ".normalized.txt")
_TRANSCRIPT_BYTES = 64 << 20  # of all utterances of a folder, which are held in memory


def list_folder(url: str, corpus: str, fields: Mapping[str, str] | None, say: Say) -> Iterator[dict[str, Any]]:
    """Yield a pointer for each audio file below a folder, or that matches a pattern."""
    base = base_of(url)
    unread: list[str] = []
    files = (f for f in walk(base if "*" in url else url) if visible(f.url, base))
    for folder, group in itertools.groupby(files, key=lambda f: posixpath.dirname(f.url)):
        listed = list(group)
        names = {posixpath.basename(f.url): f for f in listed}
        lower = {name.lower(): name for name in names}  # TIMIT's text of SA1.WAV is SA1.TXT
        texts: dict[str, str | None] = {}
        for name in sorted(n for n in names if n.endswith(".trans.txt")):
            place = f"{folder}/{name}"
            yield from guarded(place, f"{corpus}/{key_of(place, base)}", partial(_transcripts, place, texts))
        unread += [key_of(f.url, base) for name, f in names.items() if are_labels(name)]
        for file in listed:
            name = posixpath.basename(bare(file.url))
            stem, suffix = posixpath.splitext(name)
            if suffix.lower() not in AUDIO_SUFFIXES or not matches(file.url, url):
                continue
            if suffix.lower() in VIDEO_SUFFIXES and _has_sound_beside(stem, names):
                continue
            pointer = {"id": f"{corpus}/{key_of(file.url, base)}", "kind": "file", "url": file.url, "size": file.size}
            made_from = [file]
            if stem in texts:
                pointer["text"] = texts[stem]
                pointer["problem"] = TEXT_ENCODING if texts[stem] is None else None
                if re.fullmatch(r"\d+-\d+-\d+", stem):  # LibriSpeech: speaker-chapter-utterance
                    pointer["speaker"] = stem.split("-")[0]
            else:
                beside = next((stem + s for s in _SIDECARS if stem + s in names), None)
                beside = beside or next((lower[n] for s in _SIDECARS if (n := f"{stem}{s}".lower()) in lower), None)
                if beside is not None:
                    pointer["labels"] = json.dumps({"text": {"url": f"{folder}/{beside}"}})
                    made_from.append(names[beside])
            yield pointer | {"version": version_of(*made_from)}
    if "*" not in url:
        tell_unread(url, unread, say)


def _has_sound_beside(stem: str, names: Mapping[str, Any]) -> bool:
    """Return whether the sound of a video lies beside it as a file of its own, and would be a record twice."""
    return any(stem + suffix in names for suffix in AUDIO_SUFFIXES if suffix not in VIDEO_SUFFIXES)


def _transcripts(file: str, texts: dict[str, str | None]) -> Iterator[dict[str, Any]]:
    """Add the texts of a ``*.trans.txt`` file, by utterance, ``None`` for one that is not UTF-8; there are no rows."""
    refuse_wide(file)
    for line in read_document(file, _TRANSCRIPT_BYTES).removeprefix(codecs.BOM_UTF8).splitlines():
        utterance, _, text = line.strip().partition(b" ")
        name = utterance.decode(errors="surrogateescape")
        try:
            said = text.decode().strip()
        except UnicodeDecodeError:
            texts[name] = None
            continue
        if name and said:
            texts[name] = said
    return iter(())
