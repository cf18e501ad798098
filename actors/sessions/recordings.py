"""The actor that parses SLURP's recordings: what was said and meant, what a recogniser heard, what systems answered.

Bastianelli et al., "SLURP: A Spoken Language Understanding Resource Package" (EMNLP 2020). An object has ``sentence``,
``scenario``, ``action``, ``entities`` (pairs of name and value), ``asr_text`` and, by system, ``predictions``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.actors.nlu.annotation import split
from gristmill.actors.sessions.bank import MEANING
from gristmill.actors.sessions.parse_object import ParseObject
from gristmill.actors.sessions.parse_turn import located
from gristmill.actors.sources.reading import NO_OBJECT
from gristmill.models.measures.wer import DELETED, INSERTED, align
from gristmill.models.normalise import normalise
from gristmill.models.sessions.interpretations import interpretation
from gristmill.shards.errors import RejectRecord
from gristmill.shards.schema import HYPOTHESES_FIELDS, REQUEST_FIELDS, TURN_FIELDS
from gristmill.shards.settings import Settings
from gristmill.shards.stage import BatchLimits

NOTHING_HEARD = "recording: nothing was heard"
NO_ANSWER = "recording: no answer of the system"
ASR_TEXT = next(field for field in TURN_FIELDS if field.name == "asr_text")


class AnswerSettings(Settings):
    """Which readings of recordings are taken."""

    system: str | None = None
    """The system of SLURP whose answers are the readings (``multi_sfid``, ...); ``None``: domain models read them."""


class ParseRecording(ParseObject):
    """Parses ``raw``, as listed by :mod:`gristmill.actors.sources.objects`, into the request as it was heard.

    ``tokens`` are of ``asr_text``; a slot is where its value's words were heard, by an alignment of what was said with
    what was heard, and has the words there as its value: a slot of which nothing was heard is not in ``slots``.
    ``meaning`` is of what was said. With a system, its answer is the only one of ``hypotheses``.
    """

    name = "parse_recording"
    batch = BatchLimits(512)
    settings: AnswerSettings

    @classmethod
    def contract(cls, settings: AnswerSettings) -> Mapping[str, Any]:
        """Return the columns that are added."""
        answered = HYPOTHESES_FIELDS[:1] if settings.system else ()
        return {"adds": (*REQUEST_FIELDS[1:], ASR_TEXT, MEANING, *answered)}

    def parsed(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the columns of a request, as heard."""
        try:
            said, heard = (normalise(values[name]).lower() for name in ("sentence", "asr_text"))
            domain, intent = values["scenario"], f"{values['scenario']}_{values['action']}"
            slots = located(said.split(), values["entities"])
            answers = values.get("predictions") or {}
            answer = answers.get(self.settings.system or "")
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            raise RejectRecord(NO_OBJECT) from None
        tokens = split(heard)
        if not tokens:
            raise RejectRecord(NOTHING_HEARD)
        made = {
            "text": said,
            "tokens": tokens,
            "domain": domain,
            "intent": intent,
            "slots": as_heard(said.split(), tokens, slots),
            "lang": "en",
            "label_source": "gold",
            "asr_text": heard,
            "meaning": interpretation(domain, intent, slots),
        }
        if self.settings.system is None:
            return made
        if not isinstance(answer, dict):
            raise RejectRecord(NO_ANSWER)
        reading = {
            "domain": answer.get("scenario"),
            "intent": f"{answer.get('scenario')}_{answer.get('action')}",
            "slots": located(tokens, answer.get("entities")),
        }
        return made | {"hypotheses": [reading]}


def as_heard(said: Sequence[str], heard: Sequence[str], slots: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return slots of what was said at their places in what was heard, without those of which no word was heard.

    Example:
        >>> slot = {"name": "person", "value": "pawel", "start": 2, "end": 3}
        >>> as_heard("meeting with pawel".split(), "a meeting with paul".split(), [slot])
        [{'name': 'person', 'value': 'paul', 'start': 3, 'end': 4}]
    """
    places: list[int | None] = []  # of each word that was said, among those that were heard
    at = 0
    for letter in align(said, heard):
        if letter == INSERTED:
            at += 1
            continue
        places.append(None if letter == DELETED else at)
        at += letter != DELETED
    found = []
    for slot in slots:
        if slot["start"] is None:
            continue
        own = [place for place in places[slot["start"] : slot["end"]] if place is not None]
        if own:
            start, end = own[0], own[-1] + 1
            found.append({"name": slot["name"], "value": " ".join(heard[start:end]), "start": start, "end": end})
    return sorted(found, key=lambda slot: slot["start"])
