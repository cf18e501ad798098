"""The actor that parses listed turns of sessions, under the user's own names of columns."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import Field, field_validator

from gristmill.actors.nlu.annotation import split
from gristmill.actors.sessions.parse_object import ParseObject
from gristmill.actors.sources.fields import check_fields
from gristmill.actors.sources.reading import NO_OBJECT, read_json
from gristmill.models.normalise import joined, normalise
from gristmill.shards.errors import RejectRecord
from gristmill.shards.schema import TURN_FIELDS
from gristmill.shards.settings import Settings
from gristmill.shards.stage import BatchLimits

NO_SESSION = "turn: no session"
NO_TEXT = "turn: neither text nor asr_text"
BAD_TEXT = "turn: what was said is no text"
BAD_TIME = "turn: time is neither seconds nor ISO 8601"
BAD_TURN = "turn: its number is no whole number from 0 on"
BAD_SLOTS = "turn: slots are no list of names and values"
BAD_NUMBER = "turn: score is no number from 0 to 1"
BAD_BOOLEAN = "turn: succeeded, barge_in or rewritten is no boolean"

FIELDS = (
    *("id", "session", "turn", "time", "user", "device", "text", "asr_text", "lang"),
    *("domain", "intent", "slots", "score", "succeeded", "barge_in", "rewritten"),
)
"""What the keys of a turn may hold; each has this name, unless the user gives another."""

_MILLISECONDS = 1e11  # a time above it is in thousandths: as seconds it would be in the year 5138
_LATEST = _MILLISECONDS * 1e9  # of nanoseconds
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


class TurnSettings(Settings):
    """How turns of a user's own sessions are read."""

    fields: dict[str, str] = Field(default_factory=dict)
    """The corpus's own names of keys (JSONL) or columns (Parquet), by what they hold: ``session``, ``turn``, ``time``,
    ``user``, ``device``, ``text``, ``asr_text``, ``lang``, ``domain``, ``intent``, ``slots``, ``score``, ``succeeded``,
    ``barge_in``, ``rewritten`` or ``id``. By default they have these names; ``session`` and a text are needed."""
    lang: str = "en"
    """Language of turns whose record does not name it."""
    salt: str = ""
    """What users are hashed with, beside their name. It is stored with the results, as every setting, so it is no
    secret: who has it can try names. It keeps the hashes of different outputs apart."""

    @field_validator("fields")
    @classmethod
    def _are_known(cls, fields: dict[str, str]) -> dict[str, str]:
        return check_fields(fields, FIELDS)


class ParseTurn(ParseObject):
    """Parses ``raw``, as listed by :mod:`gristmill.actors.sources.objects`, into the columns of a turn.

    ``turn`` is the number that the record gives, null where it has none: :mod:`gristmill.actors.sessions.turns` numbers
    the turns of each session.

    Example:
        >>> import pyarrow as pa
        >>> row = {"id": "own/1", "raw": '{"session": "s1", "text": "Play jazz", "succeeded": true}', "problem": None}
        >>> parse = ParseTurn(TurnSettings())
        >>> parse(pa.Table.from_pylist([row])).select(["session", "tokens", "succeeded"]).to_pylist()
        [{'session': 's1', 'tokens': ['Play', 'jazz'], 'succeeded': True}]
    """

    name = "parse_turn"
    version = 2  # numbers are no texts, nor negative turns or times beyond all clocks
    adds = TURN_FIELDS[1:]
    batch = BatchLimits(1024)
    settings: TurnSettings

    def parsed(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the columns of a turn."""
        given = {name: values.get(self.settings.fields.get(name, name)) for name in FIELDS}
        session = _text(given["session"])
        if not session:
            raise RejectRecord(NO_SESSION)
        lang = _text(given["lang"]) or self.settings.lang
        text, heard = (normalise(read_said(given[name]), lang) or None for name in ("text", "asr_text"))
        said = heard or text
        if not said:
            raise RejectRecord(NO_TEXT)
        tokens = split(said)
        user = _text(given["user"])
        return {
            "session": session,
            "turn": _whole(given["turn"]),
            "time": seconds(given["time"]),
            "user": hashed(user, self.settings.salt) if user else None,
            "device": _text(given["device"]) or None,
            "text": text,
            "asr_text": heard,
            "tokens": tokens,
            "lang": lang,
            "domain": _text(given["domain"]) or None,
            "intent": _text(given["intent"]) or None,
            "slots": located(tokens, given["slots"], lang),
            "score": _number(given["score"]),
            "alternatives": None,
            **{name: _boolean(given[name]) for name in ("succeeded", "barge_in", "rewritten")},
        }


def read_said(value: Any) -> str:
    """Return what was said; empty where nothing is given.

    Raises:
        RejectRecord: it is no text.
    """
    if value is None or value != value:  # NaN, of tables
        return ""
    if not isinstance(value, str):
        raise RejectRecord(BAD_TEXT)
    return value


def hashed(user: str, salt: str = "") -> str:
    """Return what stands for a user: 16 hexadecimal digits of a keyed hash."""
    return hashlib.blake2b(user.encode(), digest_size=8, key=salt.encode()[:64]).hexdigest()


def seconds(value: Any) -> float | None:
    """Return a time in seconds since 1970: given so, in milliseconds, microseconds or nanoseconds, or as ISO
    8601 (without a zone: UTC).

    Raises:
        RejectRecord: it is something else.

    Example:
        >>> seconds("2024-05-01T10:00:00Z") == seconds(1714557600) == seconds(1714557600000)
        True
    """
    if value is None or value == "" or value != value:
        return None
    number = math.nan
    if isinstance(value, str):
        try:
            at = datetime.fromisoformat(value.strip())
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            pass
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not 0 <= number <= _LATEST:  # nor NaN
        raise RejectRecord(BAD_TIME)
    while number > _MILLISECONDS:
        number /= 1000
    return number


def located(tokens: Sequence[str], slots: Any, lang: str = "") -> list[dict[str, Any]]:
    """Return slots, given as names with values or as a list of them, at their places in tokens.

    A value takes the first tokens that it equals, in any case, and that no slot before it takes; start and end of one
    that does not stand there are null: an interpretation may hold what the recogniser did not hear.

    Raises:
        RejectRecord: slots are given as something else.

    Example:
        >>> located(["play", "Blue", "River"], {"title": "blue river", "service": "radio"})[0]["start"]
        1
    """
    if isinstance(slots, str) and slots.strip():  # of a table: JSON
        try:
            slots = read_json(slots)
        except (ValueError, RecursionError):
            raise RejectRecord(BAD_SLOTS) from None
    if isinstance(slots, Mapping):
        slots = [{"name": name, "value": value} for name, value in slots.items()]
    if slots is not None and not isinstance(slots, list):
        raise RejectRecord(BAD_SLOTS)
    free, lower = [True] * len(tokens), [token.casefold() for token in tokens]
    found = []
    for slot in slots or []:
        pair = slot if isinstance(slot, list) and len(slot) == 2 else None
        name, value = pair or ((slot.get("name"), slot.get("value")) if isinstance(slot, dict) else (None, None))
        if isinstance(name, str) and name and value is None:  # Parquet has a field for each name in all rows
            continue
        if not isinstance(name, str) or not name or not isinstance(value, str | int | float):
            raise RejectRecord(BAD_SLOTS)
        words = split(normalise(str(value), lang))
        place = _place(lower, [word.casefold() for word in words], free)
        start, end = (None, None) if place is None else (place, place + len(words))
        if place is not None:
            free[place : place + len(words)] = [False] * len(words)
        found.append({"name": name, "value": joined(words), "start": start, "end": end})
    return found


def _place(tokens: Sequence[str], words: Sequence[str], free: Sequence[bool]) -> int | None:
    for start in range(len(tokens) - len(words) + 1 if words else 0):
        stop = start + len(words)
        if tokens[start:stop] == words and all(free[start:stop]):
            return start
    return None


def _text(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RejectRecord(NO_OBJECT)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RejectRecord(NO_OBJECT)
        if not value.is_integer():
            return str(value)
        value = int(value)  # a table with a null has whole numbers as 7.0
    return str(value).strip()


def _whole(value: Any) -> int | None:
    if value is None or value == "" or value != value:
        return None
    try:
        number = int(str(value).removesuffix(".0"))
    except ValueError:
        raise RejectRecord(BAD_TURN) from None
    if isinstance(value, bool) or not 0 <= number < 1 << 31:
        raise RejectRecord(BAD_TURN)
    return number


def _number(value: Any) -> float | None:
    if value is None or value == "" or value != value:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise RejectRecord(BAD_NUMBER) from None
    if not 0 <= number <= 1:
        raise RejectRecord(BAD_NUMBER)
    return number


def _boolean(value: Any) -> bool | None:
    if value is None or value == "" or value != value:
        return None
    said = str(value).strip().lower()
    if said not in (*_TRUE, *_FALSE):
        raise RejectRecord(BAD_BOOLEAN)
    return said in _TRUE
