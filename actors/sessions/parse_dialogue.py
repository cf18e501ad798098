"""The actor that parses dialogues, as they are published whole, into the turns of their users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gristmill.actors.nlu.annotation import read_text
from gristmill.actors.sessions.dialogues import DialogueFrame, DialogueTurn, Mentioned, acting_frame, read_dialogue
from gristmill.actors.sessions.parse_object import ParseObjects
from gristmill.actors.sessions.parse_turn import NO_TEXT, read_said
from gristmill.actors.sources.reading import NO_OBJECT
from gristmill.models.normalise import joined, normalise
from gristmill.shards.errors import RejectRecord
from gristmill.shards.schema import PARENT_ID, TURN_FIELDS
from gristmill.shards.settings import Settings
from gristmill.shards.stage import BatchLimits

NO_TURNS = "dialogue: no turn of a user"
BAD_SPAN = "turn: span is not in the text"
TURNS_KEYS = ("turns", "log")
IDS = ("dialogue_id", "id")

_NOT_SAID = {"yes", "no", "true", "false", "dontcare"}  # values that stand for what is said


class DialogueSettings(Settings):
    """How dialogues are read."""

    lang: str = "en"
    """Their language."""


class ParseDialogue(ParseObjects):
    """Parses ``raw``, as listed by :mod:`gristmill.actors.sources.objects`, into the turns of a dialogue's user.

    ``session`` is the dialogue's id, and ``turn`` the place among all of its turns; users and times are not known.
    ``domain`` and ``intent`` are those of the frame in which the user acts, with the ``slots`` of that frame alone. A
    token ends where a slot does; a slot without a place in the text, or on words of a slot before it, has none.
    ``succeeded`` is what the system's next turn tells of the domain. A turn without a text, or with a span that is not
    in it, is rejected by itself; a dialogue without a user's turn, or of another layout, as a whole.

    Example:
        >>> import pyarrow as pa
        >>> frame = '{"service": "Music_1", "intent": "Play", "spans": [["genre", 5, 9]]}'
        >>> raw = '{"turns": [{"speaker": "USER", "text": "Play jazz.", "frames": [' + frame + ']}]}'
        >>> parse = ParseDialogue(DialogueSettings())
        >>> made = parse(pa.table({"id": ["d1"], "raw": [raw], "problem": pa.array([None], pa.string())}))
        >>> made.select(["id", "session", "tokens", "intent"]).to_pylist()
        [{'id': 'd1/0', 'session': 'd1', 'tokens': ['Play', 'jazz', '.'], 'intent': 'Play'}]
    """

    name = "parse_dialogue"
    version = 2  # tells which turn is of no known layout
    adds = (PARENT_ID, *TURN_FIELDS[1:])
    batch = BatchLimits(64)
    settings: DialogueSettings

    def several(self, name: str, values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the user's turns of a dialogue."""
        turns = _spoken(values)
        before: dict[str, str | None] = {}
        for number, turn in enumerate(turns):
            if not turn.user:
                continue
            frame = acting_frame(turn.frames, before)
            before |= {one.domain: one.intent for one in turn.frames}
            answer = turns[number + 1] if number + 1 < len(turns) else turn
            made = {"id": f"{name}/{number}"}
            try:
                yield made | {"session": name, "turn": number, **self._turn(turn.text, frame, answer.answers)}
            except RejectRecord as reject:
                yield made | {"reject_reason": reject.reason}

    def _turn(self, given: Any, frame: DialogueFrame | None, answers: Mapping[str | None, bool]) -> dict[str, Any]:
        lang = self.settings.lang
        given = read_said(given)
        if not normalise(given, lang):
            raise RejectRecord(NO_TEXT)
        text, tokens, slots = placed(given, frame.slots if frame else (), lang)
        domain = frame.domain if frame else None
        return {
            "text": text,
            "tokens": tokens,
            "lang": lang,
            "domain": domain,
            "intent": frame.intent if frame else None,
            "slots": slots,
            "succeeded": answers.get(domain, answers.get(None)),
        }


def _spoken(values: Mapping[str, Any]) -> list[DialogueTurn]:
    try:
        turns = read_dialogue(values)
    except TypeError:
        raise RejectRecord(NO_OBJECT) from None
    if not any(turn.user for turn in turns):
        raise RejectRecord(NO_TURNS)
    return turns


def placed(given: str, slots: tuple[Mentioned, ...], lang: str) -> tuple[str, list[str], list[dict[str, Any]]]:
    """Return a text, normalised, its tokens, and its slots at their places in these: null where they have none.

    Raises:
        RejectRecord: a place is not in the text.

    Example:
        >>> placed("To Bonn, please", (Mentioned("to", None, 3, 7), Mentioned("seats", "2")), "en")[1:]
        (['To', 'Bonn', ',', 'please'], [{'name': 'to', 'value': 'Bonn', 'start': 1, 'end': 2}, \
{'name': 'seats', 'value': '2', 'start': None, 'end': None}])
    """
    found: list[dict[str, Any]] = []
    none: list[dict[str, Any]] = []
    for slot in sorted(slots, key=lambda slot: (slot.start is None, slot.implied)):
        one = _wanted(slot, given, lang)
        if slot.implied and any(one["name"] == other["name"] for other in (*found, *none)):
            continue
        if one.get("value", "").lower() not in _NOT_SAID and _has_place(given, [*found, one], lang):
            found.append(one)
        elif not slot.implied:
            value = one["value"] if "value" in one else normalise(given[one["start"] : one["end"]], lang)
            none.append({"name": slot.name, "value": value, "start": None, "end": None})
    text, tokens, places = read_text(given, found, lang, letters=True)
    made = [
        {"name": name, "value": joined(tokens[start:end]), "start": start, "end": end}
        for name, start, end in sorted(places, key=lambda place: place[1])
    ]
    return text, tokens, [*made, *none]


def _has_place(text: str, slots: list[dict[str, Any]], lang: str) -> bool:
    try:
        read_text(text, slots, lang, letters=True)
    except RejectRecord:
        return False
    return True


def _wanted(slot: Mentioned, text: str, lang: str) -> dict[str, Any]:
    """Return a slot as :func:`gristmill.actors.nlu.annotation.read_text` takes it."""
    if slot.start is None and slot.value is not None:
        return {"name": slot.name, "value": normalise(slot.value, lang)}
    start, end = slot.start, slot.end
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
        raise RejectRecord(BAD_SPAN)
    if not normalise(text[start:end], lang):
        raise RejectRecord(BAD_SPAN)
    return {"name": slot.name, "start": start, "end": end}
