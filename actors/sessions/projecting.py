"""The emission of labels from rephrases: which pairs are used, their projection, and what is kept of each utterance.

A pair of turns is used if both mean the same, the first failed and the second did not. The interpretation of the
second is projected onto the first (:mod:`gristmill.models.sessions.projection`). Of an utterance all projections are
brought together: one is kept that enough users support, that most of them agree on, and against which the utterance's
own interpretation does not succeed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
from pydantic import Field

from gristmill.actors.nlu.folds import FOLD
from gristmill.actors.nlu.labels import CONFIDENCE, PROJECTED
from gristmill.actors.records import Filter, PerRecord, Record
from gristmill.actors.sessions.as_requests import TRAINED_FOLD
from gristmill.actors.sessions.candidate_pairs import FRICTION, NEXT
from gristmill.actors.sessions.pair_models import PARAPHRASE
from gristmill.models.nlu.domain import Slot
from gristmill.models.sessions.friction import reading
from gristmill.models.sessions.projection import ProjectionSettings, project
from gristmill.shards.errors import RejectRecord
from gristmill.shards.reducers import Reducer
from gristmill.shards.schema import REQUEST_FIELDS, SLOT
from gristmill.shards.settings import Settings

SUPPORT, AGREEMENT = pa.field("support", pa.int32()), pa.field("agreement", pa.float32())
RIGHT = pa.field("right", pa.float64())  # share of its failing turns whose truth the label is; of scoring alone
READ, UNDERSTOOD = pa.field("read", pa.int64()), pa.field("understood", pa.float64())
FAILED = pa.field("failed_turns", pa.int64())

NOT_SAME = "pair: not the same meaning"
FIRST_WORKED = "pair: the first turn did not fail"
SECOND_FAILED = "pair: the second turn failed"
NO_READING = "pair: the second turn has no interpretation"
SAME_WORDS = "pair: the same words"
SAME_READING = "projection: the interpretation that it had"
NOT_PLACED = "projection: a slot of the second turn does not stand in its words"
UNSURE = "projection: not certain enough"
FEW = "utterance: too few users"
DISAGREE = "utterance: users disagree"
DOUBTED = "utterance: not certain enough"
WORKS = "utterance: its own interpretation succeeds"
_READ = ("tokens", "domain", "intent", "slots")
_SURE = (PARAPHRASE.name, FRICTION.name, NEXT + FRICTION.name)


class RephraseSettings(Settings):
    """Which pairs are taken for a failed turn and its rephrase."""

    paraphrase: float = Field(0.5, ge=0, le=1)
    """The least probability that both turns mean the same."""
    friction: float = Field(0.5, ge=0, le=1)
    """The least probability that the first turn failed."""
    worked: float = Field(0.5, ge=0, le=1)
    """The least probability that the second turn did not fail."""


class Rephrases(Filter):
    """Rejects pairs that are no failed turn with a rephrase that was understood."""

    name = "rephrases"
    columns = ("tokens", NEXT + "tokens", NEXT + "domain", NEXT + "intent", *_SURE)
    settings: RephraseSettings

    def reason(self, record: Record) -> str | None:
        """Return why the pair is not used."""
        if not record[NEXT + "domain"] or not record[NEXT + "intent"]:
            return NO_READING
        if [word.lower() for word in record["tokens"]] == [word.lower() for word in record[NEXT + "tokens"]]:
            return SAME_WORDS
        if (record[PARAPHRASE.name] or 0.0) < self.settings.paraphrase:
            return NOT_SAME
        if (record[FRICTION.name] or 0.0) < self.settings.friction:
            return FIRST_WORKED
        if 1 - (record[NEXT + FRICTION.name] or 0.0) < self.settings.worked:
            return SECOND_FAILED
        return None


class ProjectSettings(ProjectionSettings):
    """How labels are projected, and how certain they are to be."""

    certain: float = Field(0.6, ge=0, le=1)
    """The least confidence of a projection."""
    lang: str = "en"
    """Language of turns that tell none, for number words."""


class Project(PerRecord):
    """Projects the interpretation of the later turn onto the words of the earlier one: ``projected_slots``.

    ``confidence`` is the product of the probabilities that the pair is what it is taken for, and of the confidence of
    the projection. A pair is rejected, with a reason, where a slot has no counterpart, slots cross, the projection is
    not certain enough, or the result is the interpretation that the earlier turn had.
    """

    name = "project"
    columns = ("lang", *_READ, *(NEXT + one for one in _READ), *_SURE)
    adds = (pa.field("projected_slots", pa.list_(SLOT)), CONFIDENCE)
    settings: ProjectSettings

    def record(self, record: Record) -> Mapping[str, Any]:
        """Return the slots and the confidence of a pair."""
        slots = [Slot(one["name"], one["value"], one["start"], one["end"]) for one in record[NEXT + "slots"] or ()]
        if any(slot.start is None or slot.end is None for slot in slots):
            raise RejectRecord(NOT_PLACED)
        given = self.settings.part(ProjectionSettings)
        lang = record["lang"] or self.settings.lang
        made = project(record[NEXT + "tokens"], slots, record["tokens"], given, lang=lang)
        if made.confidence < self.settings.certain:
            raise RejectRecord(UNSURE)
        found = [slot._asdict() for slot in made.slots]
        now = {"domain": record[NEXT + "domain"], "intent": record[NEXT + "intent"], "slots": found}
        if reading(now) == reading(record):
            raise RejectRecord(SAME_READING)
        sure = record[PARAPHRASE.name] * record[FRICTION.name] * (1 - (record[NEXT + FRICTION.name] or 0.0))
        return {"projected_slots": found, CONFIDENCE.name: sure * made.confidence}


class UtteranceReadingsSettings(Settings):
    """Whether truth is known."""

    truth: bool = False
    """Whether failing turns are counted, for scoring."""


class UtteranceReadings(Reducer):
    """Counts how often each utterance was ``read``, and how many of these times it was probably ``understood``.

    A known outcome (``succeeded``) counts as what it is, any other turn by its ``friction``.
    """

    settings: UtteranceReadingsSettings

    @classmethod
    def contract(cls, settings: UtteranceReadingsSettings) -> Mapping[str, Any]:
        """Return the columns that are read and added."""
        truth = settings.truth
        columns = ("succeeded", FRICTION.name, *(("failed",) if truth else ()))
        return {"columns": columns, "adds": (READ, UNDERSTOOD, *((FAILED,) if truth else ()))}

    def group(self, name: str, tables: Iterator[pa.Table]) -> Iterable[Mapping[str, Any]]:
        """Yield the counts of an utterance."""
        read, understood, failed = 0, 0.0, 0
        for table in tables:
            for row in table.to_pylist():
                known = row["succeeded"]
                read += 1
                understood += 1 - (row[FRICTION.name] or 0.0) if known is None else float(known)
                failed += bool(row.get("failed"))
        counts = {READ.name: read, UNDERSTOOD.name: understood}
        yield counts | ({FAILED.name: failed} if self.settings.truth else {})


class AgreementSettings(Settings):
    """Which labels of an utterance are kept."""

    support: int = Field(1, ge=1)
    """Users (sessions, where users are not known) whose rephrases give the label, at least."""
    agreement: float = Field(0.6, ge=0, le=1)
    """Share of the users that give this label, of all that give one, at least."""
    works: float = Field(0.5, ge=0, le=1)
    """Share of its turns in which the utterance's own interpretation succeeds, at most."""
    confidence: float = Field(0.55, ge=0, le=1)
    """The least mean confidence of the label's projections."""
    truth: bool = False
    """Whether the truth is compared, for scoring: adds ``right``."""


class Agreed(Reducer):
    """Makes of all projections onto an utterance one annotated request, with ``confidence`` (the mean of the label's
    projections), ``support`` (users) and ``agreement``; or rejects the utterance with a reason."""

    order = ("id",)
    settings: AgreementSettings

    @classmethod
    def contract(cls, settings: AgreementSettings) -> Mapping[str, Any]:
        """Return the columns that are read and added."""
        truth = ("true_domain", "true_intent", "true_slots") if settings.truth else ()
        own = ("session", "user", "lang", "tokens", NEXT + "domain", NEXT + "intent", "projected_slots")
        fields = [field for field in REQUEST_FIELDS if field.name != "id"]
        adds = (*fields, FOLD, CONFIDENCE, SUPPORT, AGREEMENT, *((RIGHT,) if settings.truth else ()))
        return {"columns": (*own, CONFIDENCE.name, READ.name, UNDERSTOOD.name, *truth), "adds": adds}

    def group(self, name: str, tables: Iterator[pa.Table]) -> Iterable[Mapping[str, Any]]:
        """Yield the request of an utterance."""
        labels: dict[Any, _Label] = {}
        works = 0.0
        for table in tables:
            for row in table.to_pylist():
                works = row[UNDERSTOOD.name] / row[READ.name] if row[READ.name] else 0.0
                now = {
                    "domain": row[NEXT + "domain"],
                    "intent": row[NEXT + "intent"],
                    "slots": row["projected_slots"],
                }
                label = labels.setdefault(reading(now), _Label(row, now))
                label.add(row, self.settings.truth)
        best = min(labels.values(), key=lambda label: (-len(label.users), -label.mean, repr(reading(label.reading))))
        agreement = len(best.users) / sum(len(label.users) for label in labels.values())
        if works > self.settings.works:
            raise RejectRecord(WORKS)
        if len(best.users) < self.settings.support:
            raise RejectRecord(FEW)
        if agreement < self.settings.agreement:
            raise RejectRecord(DISAGREE)
        if best.mean < self.settings.confidence:
            raise RejectRecord(DOUBTED)
        made = {
            "id": f"projected/{name}",
            "text": " ".join(best.tokens),
            "tokens": best.tokens,
            **best.reading,
            "lang": best.lang,
            "label_source": PROJECTED,
            FOLD.name: TRAINED_FOLD,
            CONFIDENCE.name: best.mean,
            SUPPORT.name: len(best.users),
            AGREEMENT.name: agreement,
        }
        yield made | ({RIGHT.name: best.right / best.rows} if self.settings.truth else {})


class _Label:
    """One label of an utterance: who supports it, and how certain they are."""

    def __init__(self, row: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        self.tokens, self.lang, self.reading = row["tokens"], row["lang"], now
        self.users: set[tuple[str, str]] = set()
        self.rows, self.right, self._sum = 0, 0, 0.0

    @property
    def mean(self) -> float:
        return self._sum / self.rows

    def add(self, row: Mapping[str, Any], truth: bool) -> None:
        self.users.add(("session", row["session"]) if row["user"] is None else ("user", row["user"]))
        self.rows += 1
        self._sum += row[CONFIDENCE.name]
        self.right += truth and reading(row, "true_") == reading(self.reading)
