"""What a recogniser with a user's words is fitted to: other spellings by what its base hears, and its settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from gristmill.actors.speech.features import rows_of
from gristmill.actors.speech.personal_model import SETTINGS_FILE, SPELLINGS, PersonalModel
from gristmill.actors.speech.personalise import WORDS_FILE
from gristmill.actors.speech.word_lists import WordLists, WordListSettings
from gristmill.models.measures.wer import CORRECT, align
from gristmill.models.speech.personal import DECODER, Heard, Listed, PersonalRecogniser, PersonalSettings, Technique
from gristmill.models.speech.spelling_variants import SpellingSettings, SpellingTable
from gristmill.shards.artifact import get_artifact, read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.settings import Settings, Size

TRIALS = "trials.json"  # of a tuned artifact
_PHASES: tuple[tuple[str, tuple[Technique, ...]], ...] = (
    ("decoder.", ()),
    ("bias.", ("boost", "unigram", "g2g")),
    ("rescoring.", DECODER),
)  # the beginnings of settings, and the techniques by which they are chosen


class SpellingFit(SpellingSettings):
    """How other spellings are learned."""

    records: Size = Field(1000, ge=1)
    """Utterances, at most."""


def learn_spellings(settings: SpellingFit, context: TrainContext, *, model: str, features: str) -> dict[str, Any]:
    """Learn how a base spells names: ``{"files": {"spellings.json": bytes}}``.

    ``model`` is an artifact of :class:`~gristmill.actors.speech.personal_model.PersonalModel`, ``features`` a set with
    names that the base has not learned.

    Raises:
        UserError: there is no name in it.
    """
    known = PersonalModel(model, PersonalSettings())
    pairs: list[tuple[str, str]] = []
    named: set[str] = set()
    for number, (row, one) in enumerate(utterances(features)):
        if number == settings.records:
            break
        heard = known.recogniser.recognised(known.hear(one), None, ())
        said, names = row["text"].split(), set(row["names"] or ())
        pairs += _pairs(said, heard[0].text.split() if heard else [], names)
        named |= names
    if not pairs and context.trial_steps is not None:  # a base of a few steps hears nothing yet
        pairs = [(name, name) for name in sorted(named)]
    if not pairs:
        raise UserError(f"spellings: no name is heard in {features}; expected utterances with names")
    table = SpellingTable.learned(pairs, settings.part(SpellingSettings))
    return {"files": {SPELLINGS: table.to_json().encode()}}


def _pairs(said: Sequence[str], heard: Sequence[str], names: set[str]) -> Iterator[tuple[str, str]]:
    """Yield the names of a text with the word that was heard in the place of each."""
    left, right = iter(said), iter(heard)
    for step in align(said, heard):
        word = next(left) if step != "I" else None
        other = next(right) if step != "D" else None
        if word in names and word is not None and other is not None:
            yield word, other


class PersonalTuning(Settings):
    """The settings that are tried on development speech, one after the other: the values of each."""

    personal: PersonalSettings = PersonalSettings()
    """Where it begins."""
    tried: Mapping[str, tuple[float, ...]] = {
        "decoder.weight": (0.3, 0.7),
        "decoder.unknown": (-9.0, -3.0),
        "bias.enter": (1.0, 3.0, 5.0),
        "bias.confusable": (0.0, 0.3),
        "bias.scale": (1.0,),
        "rescoring.weight": (0.05, 0.1, 0.3),
    }
    """Values by setting, in the order in which they are tried."""
    sizes: tuple[Size, ...] = Field((100, 1000), min_length=1)
    """Lengths of the lists; each value is tried with the utterances' own words on them, and without."""
    seed: int = 0
    """Of the drawing of lists."""


def tune(
    settings: PersonalTuning,
    context: TrainContext,
    *,
    model: str,
    features: str,
    words: str,
    spellings: str | None = None,
    pronounced: str | None = None,
) -> dict[str, Any]:
    """Choose settings by the fewest word errors on development speech; return the files of the model with them.

    Each value of a setting is tried with the others as they are; the errors are those with lists of all lengths, with
    the true words on them and without, together: so that what finds names does no harm where none is.

    Raises:
        UserError: there are too few words to draw lists from, or no utterance.
    """
    known = PersonalModel(model, settings.personal, pronounced=pronounced, table=spellings)
    pool = read_file(words, WORDS_FILE).decode().split()
    kinds = [
        WordLists(pool, WordListSettings(size=size, present=present, seed=settings.seed))
        for size in settings.sizes
        for present in (True, False)
    ]
    trial = _Trial(known)
    for row, one in utterances(features):
        names = row["names"] or ()
        trial.add(row["text"].split(), known.hear(one), [kind.of(row["id"], row["text"], names) for kind in kinds])
    if not trial.words:
        raise UserError(f"tuning: no utterance in {features}; expected development speech")
    best, trials = settings.personal, []
    for path, values in settings.tried.items():
        techniques = next(techniques for begin, techniques in _PHASES if path.startswith(begin))
        found = []
        for value in dict.fromkeys((_value(best, path), *values)):
            made = _but(best, path, value)
            found.append((trial.errors(made, techniques), made))
            trials.append({"setting": path, "value": value, "word_errors": found[-1][0], "words": trial.words})
        best = min(found, key=lambda one: one[0])[1]
    artifact = get_artifact(model)
    files = {name: read_file(model, name) for name in (artifact.files if artifact is not None else ())}
    if spellings is not None:
        files[SPELLINGS] = read_file(spellings, SPELLINGS)
    files |= {SETTINGS_FILE: best.model_dump_json().encode(), TRIALS: json.dumps(trials).encode()}
    return {"files": files}


class _Trial:
    """Development utterances as the base hears them, with their lists."""

    def __init__(self, model: PersonalModel) -> None:
        self.model = model
        self.utterances: list[tuple[list[str], Heard, list[Listed]]] = []
        self.words = 0
        self._known: dict[tuple[str, tuple[Technique, ...]], int] = {}

    def add(self, said: list[str], heard: Heard, lists: list[list[str]]) -> None:
        """Take an utterance."""
        self.utterances.append((said, heard, [self.model.recogniser.listed(words) for words in lists]))
        self.words += len(said) * len(lists)

    def errors(self, settings: PersonalSettings, techniques: tuple[Technique, ...]) -> int:
        """Return the word errors with all lists; without techniques lists do nothing."""
        key = settings.model_dump_json(), techniques
        if key not in self._known:
            recogniser = PersonalRecogniser(self.model.recogniser.parts, settings)
            self._known[key] = sum(self._wrong(recogniser, techniques, *one) for one in self.utterances)
        return self._known[key]

    def _wrong(
        self,
        recogniser: PersonalRecogniser,
        techniques: tuple[Technique, ...],
        said: list[str],
        heard: Heard,
        lists: list[Listed],
    ) -> int:
        wrong = 0
        for listed in lists if techniques else [None]:
            found = recogniser.recognised(heard, listed, techniques, frame=self.model.frame)
            letters = align(said, found[0].text.split() if found else [])
            wrong += len(letters) - letters.count(CORRECT)
        return wrong if techniques else wrong * len(lists)


def _value(settings: PersonalSettings, path: str) -> float:
    part, _, name = path.partition(".")
    found: float = getattr(getattr(settings, part), name)
    return found


def _but(settings: PersonalSettings, path: str, value: float) -> PersonalSettings:
    part, _, name = path.partition(".")
    return settings.but(**{part: getattr(settings, part).but(**{name: value})})


def utterances(features: str) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yield the rows of a set of features, and the features (T, n_mels) of each."""
    sealed = open_sealed(features)
    for table in sealed.tables():
        flat = rows_of(table["features"])
        for row, one in zip(table.drop_columns(["features"]).to_pylist(), flat, strict=True):
            if row["feature_frames"]:
                yield row, one.reshape(row["feature_frames"], -1)
