"""Listing of Lhotse cuts: JSONL, compressed or not, of ``MonoCut`` objects whose recordings are files.

Of Lhotse Shar, the recordings are in tars beside. Cuts that are not one channel of a recording in files (mixed, padded
or multi-channel cuts, audio in memory, transforms that Lhotse would apply on loading), and those whose text is of more
than their audio, become rows of kind "bad" with a reason.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from gristmill.actors.sources.bases import base_of_entries, folders_of_recipe
from gristmill.actors.sources.files import LOOKED_AT, Say, Seen, named_or_found, pointers_of
from gristmill.actors.sources.pointers import (
    MALFORMED,
    NO_CHANNEL,
    NOT_IN_FILE,
    PART_OF_TEXT,
    SEVERAL_CHANNELS,
    UNSUPPORTED_CUT,
    resolve,
    seconds,
    version_of,
)
from gristmill.actors.sources.reading import lines
from gristmill.actors.sources.tar import Member, members_of
from gristmill.actors.sources.unlisted import MISSING, UNREADABLE, FileFault, guarded
from gristmill.shards.errors import RejectRecord, UserError
from gristmill.shards.store import bare, exists, list_names
from gristmill.shards.walking import walk

_EDGE = 0.05  # s, by which a supervision may lie beyond its cut, or its cut beyond it: times are rounded
_SHAR = re.compile(r"cuts(\.\d+)?\.jsonl(\.gz)?")  # of Lhotse Shar, beside recording.000000.tar
_NO_AUDIO = (".json", ".nodata", ".nometa")  # beside the audio in Shar's tars
_CUTS = ("MonoCut", "Cut", "MultiCut", "MixedCut", "PaddingCut")  # "Cut": MonoCut before Lhotse 0.8


def are_cuts(url: str) -> bool:
    """Return whether a file or pattern is one of cuts by its name; plain ``.jsonl`` must have "cuts" in the name."""
    name = posixpath.basename(url).lower()
    called = re.search(r"(^|[^a-z])cuts([^a-z]|$)", name)
    return name.endswith(".jsonl.gz") or bool(called and name.endswith(".jsonl"))


def cuts_in(folder: str) -> list[str]:
    """Return the file of cuts of a folder, if it has one; recordings and supervisions beside it are ignored."""
    names = [n for n in list_names(folder) if re.search(r"(^|[^a-z])cuts([^a-z].*)?\.jsonl(\.gz)?$", n.lower())]
    names = [n for n in names if not n.startswith(".")]
    if len(names) > 1 and not all(map(_SHAR.fullmatch, names)):
        raise UserError(f"{folder}: holds several files of cuts ({', '.join(names[:5])}); name one of them")
    return [f"{folder}/{n}" for n in names]


def list_cuts(url: str, corpus: str, fields: Mapping[str, str] | None, say: Say) -> Iterator[dict[str, Any]]:
    """Yield a pointer for each cut. ``fields`` is ignored: Lhotse's field names are fixed."""
    seen = Seen()
    for file in named_or_found(url, "lhotse", cuts_in):
        yield from guarded(file, f"{corpus}/{posixpath.basename(bare(file))}", partial(_listed, file, corpus, seen))


def _listed(file: str, corpus: str, seen: Seen) -> Iterator[dict[str, Any]]:
    folder, tar = _check(file), _shar_tar(file)
    packed: dict[str, Member] = {}
    if tar is not None:
        # A member is named by its cut: the id and, after the last dot, the format. It holds the cut's channel alone.
        packed = {posixpath.splitext(one.name)[0]: one for one in members_of(tar) if not one.name.endswith(_NO_AUDIO)}

    def place(cut: Mapping[str, Any], recording: Mapping[str, Any]) -> dict[str, Any]:
        channel = _channel(cut)
        if tar is None or _kind(recording) != "shar":
            path, index = _source(recording, channel)
            return {"kind": "file", "url": resolve(folder, path), "channel": index}
        if cut["id"] not in packed:
            raise RejectRecord(MISSING)
        member = packed[cut["id"]]
        where = {"member": member.name, "offset": member.offset, "size": member.size, "version": version}
        return {"kind": "member", "url": tar, **where}

    version = version_of(*walk(file), *(walk(tar) if tar else ()))
    return pointers_of(file, corpus, lines(file), lambda line: _pointer(_parse(line), corpus, place), seen)


def _shar_tar(file: str) -> str | None:
    """Return the tar with the recordings of a file of cuts, if it is one of Lhotse Shar."""
    folder, name = posixpath.split(bare(file))
    form = _SHAR.fullmatch(name)
    tar = f"{folder}/recording{form[1] or ''}.tar" if form else ""
    return tar if tar and exists(tar) else None


def _kind(recording: Mapping[str, Any]) -> str | None:
    """Return the kind of a recording's first source."""
    try:
        kind: str | None = recording["sources"][0]["type"]
    except (IndexError, KeyError, TypeError):
        return None
    return kind


def _parse(line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise RejectRecord(MALFORMED) from None
    if not isinstance(values, dict) or values.get("type") not in _CUTS:
        raise RejectRecord(MALFORMED)
    return values


def _check(url: str) -> str:
    """Return the folder to which the paths of a file of cuts are relative."""
    cuts = []
    for _, line in itertools.islice(lines(url), LOOKED_AT):
        try:
            cuts.append(_parse(line))
        except RejectRecord:
            continue
    if not cuts:
        raise FileFault(
            url, UNREADABLE, "no Lhotse cuts are in it; expected one cut per line, as CutSet.to_file writes them"
        )
    return base_of_entries(_places(cuts), folders_of_recipe(posixpath.dirname(bare(url))))


def _places(cuts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for cut in cuts:
        with contextlib.suppress(AttributeError, RejectRecord):
            yield _source(cut.get("recording") or {}, _channel(cut))[0]


Place = Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]  # of a cut and its recording


def _pointer(cut: Mapping[str, Any], corpus: str, place: Place) -> dict[str, Any]:
    if cut["type"] not in ("MonoCut", "Cut", "MultiCut"):
        raise RejectRecord(UNSUPPORTED_CUT)
    recording = cut.get("recording")
    if not isinstance(recording, dict) or recording.get("transforms"):
        raise RejectRecord(UNSUPPORTED_CUT)
    start, length = seconds(cut.get("start")), seconds(cut.get("duration"))
    whole, rate = seconds(recording.get("duration")), seconds(recording.get("sampling_rate"))
    if not isinstance(cut.get("id"), str) or rate < 1:
        raise RejectRecord(MALFORMED)
    pointer = {
        "id": f"{corpus}/{cut['id']}",
        **place(cut, recording),
        "declared_duration": length,
        "declared_rate": int(min(rate, 2**31 - 1)),
        **_labels(cut, length),
    }
    if start or abs(length - whole) > 1.0 / rate:
        pointer |= {"start": start, "length": length}
    return pointer


def _channel(cut: Mapping[str, Any]) -> int:
    """Return the one channel of a cut."""
    channel = cut.get("channel", 0)
    if isinstance(channel, list):
        if len(channel) != 1:
            raise RejectRecord(SEVERAL_CHANNELS)
        (channel,) = channel
    if type(channel) is not int:
        raise RejectRecord(MALFORMED)
    return channel


def _source(recording: Mapping[str, Any], channel: int) -> tuple[str, int | None]:
    """Return the path or URL of the audio of a recording's channel, and its place in there; alone it has none.

    The channels of a recording may be those of several files.
    """
    sources = recording.get("sources")
    if not isinstance(sources, list) or not sources or not all(isinstance(source, dict) for source in sources):
        raise RejectRecord(MALFORMED)
    held = [source.get("channels") or [0] for source in sources]
    source, channels = next((pair for pair in zip(sources, held, strict=True) if channel in pair[1]), (None, []))
    if source is None:
        raise RejectRecord(NO_CHANNEL)
    if source.get("type") not in ("file", "url") or not isinstance(source.get("source"), str):
        raise RejectRecord(NOT_IN_FILE)
    return source["source"], channels.index(channel) if len(channels) > 1 else None


def _labels(cut: Mapping[str, Any], length: float) -> dict[str, Any]:
    """Return the labels of a cut of some length (s): texts in order; speaker and language if all of them agree.

    A supervision may lie beyond its cut: windows keep those that they cut, ``trim_to_supervisions`` those that overlap.
    """
    given = cut.get("supervisions") or []
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise RejectRecord(MALFORMED)
    order = _within(sorted(given, key=_begin), length, _number(cut.get("start")))
    texts = [text.strip() for one in order if isinstance(text := one.get("text"), str) and text.strip()]
    extra: dict[str, Any] = {}
    for custom in (cut.get("custom"), *(one.get("custom") for one in order if len(order) == 1)):
        extra |= custom if isinstance(custom, dict) else {}
    return {
        "text": " ".join(texts) or None,
        "speaker": _common(order, "speaker"),
        "lang": _common(order, "language"),
        "extra": json.dumps(extra, sort_keys=True, ensure_ascii=False) if extra else None,
    }


def _within(supervisions: Sequence[Mapping[str, Any]], length: float, clock: float) -> list[Mapping[str, Any]]:
    """Return the supervisions that lie in a cut; of one that begins or ends elsewhere, its words that do.

    ``clock``: where the cut begins in its recording, s.

    Without the times of its words, it may only lie where another one does, whole: speech that overlaps.

    Raises:
        RejectRecord: the cut has speech whose words cannot be told.
    """
    whole, parts = [], []
    for one in supervisions:
        start, end = _begin(one), _begin(one) + (_number(one.get("duration")) if "duration" in one else length)
        if min(end, length) - max(start, 0.0) <= _EDGE:
            continue
        if start >= -_EDGE and end <= length + _EDGE:
            whole.append(one)
        else:
            parts.append(one)
    taken = list(whole)
    for one in parts:
        inside = _words_within(one, length, clock)
        start, end = max(0.0, _begin(one)), min(length, _begin(one) + _number(one.get("duration")))
        if inside is not None:
            taken.append({**one, "text": inside})
        elif str(one.get("text") or "").strip() and not _is_covered(start, end, whole):
            raise RejectRecord(PART_OF_TEXT)
    return sorted(taken, key=_begin)


def _is_covered(start: float, end: float, whole: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a stretch of time lies within one supervision."""
    return any(
        _begin(one) - _EDGE <= start and end <= _begin(one) + _number(one.get("duration")) + _EDGE for one in whole
    )


def _words_within(supervision: Mapping[str, Any], length: float, clock: float) -> str | None:
    """Return the words of a supervision that lie in its cut, if their times tell.

    Times of words are those of the cut, or still those of the recording, as Lhotse leaves them when it cuts: those that
    lie within the supervision. Where both do, and the words in the cut would be others, nothing tells.
    """
    aligned = supervision.get("alignment")
    items = aligned.get("word") if isinstance(aligned, Mapping) else None
    if not isinstance(items, list) or not all(isinstance(item, list) and len(item) >= 3 for item in items):
        return None
    first, last = _begin(supervision) - _EDGE, _begin(supervision) + _number(supervision.get("duration")) + _EDGE
    found = set()
    for shift in (0.0, clock):
        times = [(begin := _number(item[1]) - shift, begin + _number(item[2])) for item in items]
        if all(first <= begin and end <= last for begin, end in times):
            inside = [begin >= -_EDGE and end <= length + _EDGE for begin, end in times]
            found.add(" ".join(str(item[0]) for item, is_in in zip(items, inside, strict=True) if is_in))
    return found.pop() if len(found) == 1 else None


def _begin(supervision: Mapping[str, Any]) -> float:
    return _number(supervision.get("start"))  # negative if it starts before its cut


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0


def _common(supervisions: Sequence[Mapping[str, Any]], key: str) -> str | None:
    values = {value for one in supervisions if isinstance(value := one.get(key), str) and value}
    return values.pop() if len(values) == 1 else None
