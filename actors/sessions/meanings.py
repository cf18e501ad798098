"""The actor that parses groups of texts that mean the same: sets of wordings, and pairs of a text and its rewrite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gristmill.actors.nlu.annotation import read_brackets, split
from gristmill.actors.sessions.parse_object import ParseObjects
from gristmill.actors.sessions.parse_turn import located
from gristmill.actors.sources.reading import NO_OBJECT
from gristmill.models.normalise import normalise
from gristmill.shards.errors import RejectRecord
from gristmill.shards.schema import PARENT_ID, REQUEST_FIELDS, TRUTH_FIELDS
from gristmill.shards.settings import Settings
from gristmill.shards.stage import BatchLimits

FEW = "meaning: fewer than two texts"
_PAIRS = (
    ("original", "disfluent"),  # Disfl-QA
    ("question", "rewrite"),  # CANARD
    ("utterance", "manual_rewrite"),  # TREC CAsT
    ("ill_formed", "well_formed"),  # MQR
)
_KEPT = ("text", "tokens", "intent", "slots", "lang")
_FIELDS = (PARENT_ID, TRUTH_FIELDS[0], *(field for field in REQUEST_FIELDS if field.name in _KEPT))


class MeaningSettings(Settings):
    """Where an object has its texts."""

    pair: tuple[str, str] | None = None
    """The two keys of texts that mean the same; by default ``wordings``, a list, or those of a known set (Disfl-QA,
    CANARD, TREC CAsT, MQR)."""
    lang: str = "en"
    """Language of the texts."""


class ParseMeanings(ParseObjects):
    """Makes texts with their ``meaning`` of objects, as listed by :mod:`gristmill.actors.sources.objects`.

    An object has two texts that mean the same, or ``wordings``: texts, or lists of an id, a text and the text with its
    slots in brackets; ``intent`` (and ``scenario``) and ``slots``, pairs of a name and a value, help where they are
    there.
    """

    name = "parse_meanings"
    adds = _FIELDS
    batch = BatchLimits(512)
    settings: MeaningSettings

    def several(self, name: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the texts of an object."""
        texts = list(self._texts(values))
        if len({text["text"] for text in texts}) < 2:
            raise RejectRecord(FEW)
        shared = {"meaning": name, "lang": self.settings.lang}
        return [{"id": f"{name}/{number}", **shared, **text} for number, text in enumerate(texts)]

    def _texts(self, values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        try:
            intent = "_".join(one for name in ("scenario", "intent") if (one := values.get(name))) or None
            for given in self._given(values):
                yield {"intent": intent, **_text(given, values.get("slots"), self.settings.lang)}
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError):
            raise RejectRecord(NO_OBJECT) from None

    def _given(self, values: Mapping[str, Any]) -> list[Any]:
        pairs = [self.settings.pair] if self.settings.pair else _PAIRS
        if self.settings.pair is None and isinstance(values.get("wordings"), list):
            return values["wordings"]
        pair = next((pair for pair in pairs if all(isinstance(values.get(name), str) for name in pair)), None)
        return [] if pair is None else [values[name] for name in pair]


def _text(given: Any, slots: Any, lang: str) -> dict[str, Any]:
    if isinstance(given, list):
        tokens, spans = read_brackets(normalise(given[2], lang).lower())
        found = [{"name": name, "value": " ".join(tokens[a:b]), "start": a, "end": b} for name, a, b in spans]
    else:
        tokens = split(normalise(given, lang).lower())
        found = [slot for slot in located(tokens, slots, lang) if slot["start"] is not None]
    return {"text": " ".join(tokens), "tokens": tokens, "slots": found if slots is not None else None}
