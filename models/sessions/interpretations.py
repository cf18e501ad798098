"""Interpretations as text: the nodes of a chain of reformulations.

Ponnusamy et al., "Feedback-based self-learning in large-scale conversational AI agents" (AAAI 2020): requests in many
wordings are one where they are interpreted alike, by domain, intent and slot values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models.normalise import words

FAILURE, SUCCESS = 0, 1  # the absorbing states, in the place of a node's number
UNKNOWN = -1  # in that place: a chain ended, and it is not known how
_FIRST = 2  # number of a node, at least
_ESCAPED = str.maketrans({one: f"\\{one}" for one in "\\;=/()"})
_NONE = pa.scalar(None, pa.string())


def utterances(turns: pa.Table) -> pa.Array:
    """Return what was read of each turn, ``asr_text`` or where that is null ``text``, in lower case and without
    punctuation (:func:`gristmill.models.normalise.words`); "" where neither is known.

    Example:
        >>> turns = pa.table({"asr_text": ["Turn it ON!", None], "text": ["turn it on", "Stop."]})
        >>> utterances(turns).to_pylist()
        ['turn it on', 'stop']
    """
    given = [turns[name].combine_chunks() for name in ("asr_text", "text") if name in turns.column_names]
    texts = pc.fill_null(pc.coalesce(*given), "")
    if "lang" not in turns.column_names:
        return _mapped(texts, utterance)
    langs = pc.fill_null(turns["lang"].combine_chunks(), "")
    joined = pc.binary_join_element_wise(langs, texts, "\t")
    return _mapped(joined, lambda one: utterance(*reversed(one.split("\t", 1))))


def utterance(text: str, lang: str = "") -> str:
    """Return a text as :func:`utterances` does."""
    return " ".join(words(text, lang))


def interpretations(turns: pa.Table, heard: pa.Array | None = None) -> pa.Array:
    """Return the interpretation of each turn as text: domain, intent, and slots in the order of names and values.

    Values are compared as utterances are. A turn that was not interpreted (no domain and no intent) has its utterance
    after a question mark. ``heard`` are the :func:`utterances`, if they are known already.

    Example:
        >>> slots = [[{"name": "song", "value": "Dragons"}, {"name": "artist", "value": "Imagine"}], None]
        >>> turns = {"text": ["play dragons", "blah"], "domain": ["music", None], "intent": ["play", None]}
        >>> interpretations(pa.table({**turns, "slots": slots})).to_pylist()
        ['music/play(artist=imagine; song=dragons)', '?blah']
    """
    return _joined(turns, ("domain", "intent", "slots"), heard)


def true_interpretations(turns: pa.Table) -> pa.Array:
    """Return the true interpretation of each turn as :func:`interpretations` does; null where it is not known."""
    known = pc.or_(pc.is_valid(turns["true_domain"]), pc.is_valid(turns["true_intent"])).combine_chunks()
    nothing = pa.repeat("", turns.num_rows)
    return pc.if_else(known, _joined(turns, ("true_domain", "true_intent", "true_slots"), nothing), _NONE)


def interpretation(domain: str | None, intent: str | None, slots: Sequence[Mapping[str, Any]], text: str = "") -> str:
    """Return one interpretation as :func:`interpretations` does.

    Example:
        >>> interpretation("light", "on", [{"name": "room", "value": "Kitchen"}])
        'light/on(room=kitchen)'
    """
    given = [{"name": slot["name"], "value": slot["value"]} for slot in slots]
    kind = pa.list_(pa.struct([("name", pa.string()), ("value", pa.string())]))
    columns = {"text": [text], "domain": [domain], "intent": [intent]}
    row = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    return interpretations(row.append_column("slots", pa.array([given], kind)))[0].as_py()


def numbers(texts: pa.Array) -> np.ndarray:
    """Return the number of each text: 63 bits of its BLAKE2b hash, (texts,) int64, at least 2. A null has that of "".

    Of ten million texts two have one number with a probability of five in a million.

    Example:
        >>> numbers(pa.array(["light/on()", "light/on()"])).tolist() == [number("light/on()")] * 2
        True
    """
    found = pc.fill_null(texts, "").dictionary_encode()
    each = np.array([number(one) for one in found.dictionary.to_pylist()], np.int64)
    return each[found.indices.to_numpy()] if len(each) else np.zeros(0, np.int64)


def number(text: str) -> int:
    """Return the number of one text; see :func:`numbers`."""
    return max(_FIRST, int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1)


def _joined(turns: pa.Table, names: tuple[str, str, str], heard: pa.Array | None) -> pa.Array:
    domain, intent = (turns[name].combine_chunks() for name in names[:2])
    parts = [_mapped(pc.fill_null(one, ""), lambda text: text.translate(_ESCAPED)) for one in (domain, intent)]
    read = pc.binary_join_element_wise(*parts, "/")
    read = pc.binary_join_element_wise(read, "(", _slots(turns[names[2]].combine_chunks()), ")", "")
    unread = pc.and_(pc.is_null(domain), pc.is_null(intent))
    if not pc.any(unread).as_py():
        return read
    return pc.if_else(unread, pc.binary_join_element_wise("?", utterances(turns) if heard is None else heard, ""), read)


def _slots(slots: pa.ListArray) -> pa.Array:
    """Return the slots of each turn as one text, sorted."""
    lengths = np.asarray(pc.fill_null(pc.list_value_length(slots), 0))
    flat = slots.flatten()
    names = _mapped(pc.fill_null(pc.struct_field(flat, "name"), ""), lambda text: text.translate(_ESCAPED))
    values = _mapped(pc.fill_null(pc.struct_field(flat, "value"), ""), lambda text: utterance(text).translate(_ESCAPED))
    pairs = pc.binary_join_element_wise(names, values, "=").dictionary_encode()
    rank = np.empty(len(pairs.dictionary), np.int64)
    rank[pc.sort_indices(pairs.dictionary).to_numpy()] = np.arange(len(rank))
    places = pairs.indices.to_numpy()
    order = np.lexsort((rank[places], np.repeat(np.arange(len(lengths)), lengths)))
    ends = pa.array(np.cumsum(np.append(0, lengths)), pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(ends, pairs.dictionary.take(pa.array(places[order]))), "; ")


def _mapped(texts: pa.Array, function: Callable[[str], str]) -> pa.Array:
    """Return a function's results, each computed once of equal texts."""
    found = texts.dictionary_encode()
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    made = pa.array([function(one) for one in found.dictionary.to_pylist()], pa.string())
    return made.take(found.indices)
