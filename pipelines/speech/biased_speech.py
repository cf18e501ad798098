"""Real speech with published lists of words, by which the personalisation recipe is tested."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pyarrow as pa
from pydantic import Field

from gristmill.actors.sources.reading import all_lines, read_json
from gristmill.actors.speech.biasing_lists import LISTS_FILE, GiveLists, read_lists
from gristmill.actors.speech.features import LogMel
from gristmill.actors.speech.hama_weights import FEATURES
from gristmill.actors.speech.speakers import RejectSpeakers, SpeakerSettings
from gristmill.actors.speech.word_lists import read_entries
from gristmill.models.ngrams.estimate import NgramSettings
from gristmill.models.speech.units import normalise
from gristmill.pipelines.inputs import Places
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech.corpora import CorpusSettings, prepare_speech
from gristmill.pipelines.speech.named_corpus import NamedCorpusSettings, spoken_part
from gristmill.pipelines.speech.personal_parts import (
    FrequentWords,
    Material,
    drawn_words,
    language_model,
    list_words,
    outside_base,
    pronunciations,
    word_file,
    word_set,
)
from gristmill.shards import canonical, store
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import Settings, Size
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step

_ROWS = 2000  # of a table of texts


class TextPlace(Settings):
    """Text for a language model: a file of lines, or of JSON lines; either may be compressed by gzip."""

    place: str
    """Path or URL."""
    field: str = "text"
    """Of JSON lines (.jsonl, .jsonl.gz): what holds the text."""


class BiasedSpeechSettings(Settings):
    """Real speech with lists of words, and the text and words of its language."""

    places: Places
    """Annotated speech: files, manifests, Parquet or tar."""
    lists: str
    """A TSV with a line an utterance: id, text, rare words and list, as the public benchmark for LibriSpeech has it."""
    words: str
    """Words to draw lists of other lengths from, one a line."""
    texts: tuple[TextPlace, ...] = Field(min_length=1)
    """Text for the language model."""
    lexicon: Size = Field(8000, ge=1)
    """Words that can be heard beside those of lists: the most frequent ones of the text."""
    common: str | None = None
    """Words that can be heard as well, one a line."""
    development: float = Field(0.5, gt=0, lt=1)
    """Share of the speakers by whom settings are chosen; the others are the test."""
    corpus: CorpusSettings = CorpusSettings(sampling_rate=16000)
    """How the speech is read."""


def prepare_biased(
    run: Run, settings: BiasedSpeechSettings, named: NamedCorpusSettings, language: NgramSettings, words: int
) -> Material:
    """Make the features of real speech with its lists, and of generated speech with names for the adapter.

    The base is the recogniser of phonemes of the package ``hama``. ``words`` are those that lists are drawn from.
    """
    speech = _speech(run, settings)
    parts = {part: run.step(Step(part, (stage,), speech)) for part, stage in _apart(run, settings, speech).items()}
    adapter = spoken_part(run, named, "adapter", FEATURES)
    texts = _texts(run, settings)
    common = read_lines(settings.common, "speech.common") if settings.common is not None else []
    pool = drawn_words(sorted(set(read_lines(settings.words, "speech.words"))), words, "lists", run.seed)
    drawn = word_file(run, "list_words", pool)
    frequent = FrequentWords(texts, settings.lexicon, common)
    known = word_set(run, "words", [adapter], frequent.words)
    return Material(
        adapter,
        parts["development"],
        parts["test"],
        known=pronunciations(run, "lexicon", known),
        listed=pronunciations(run, "listed_lexicon", list_words(run, "listed_words", speech, pool)),
        words={"development": drawn, "test": drawn},
        language=language_model(run, language, texts, frequent),
        base=outside_base(run),
    )


def _speech(run: Run, settings: BiasedSpeechSettings) -> SealedSet:
    """Return the features of all speech, with the rare words and the list of each utterance."""
    places = (settings.places,) if isinstance(settings.places, str) else settings.places
    spoken = prepare_speech(run, "speech", places, settings.corpus)
    data = store.read_bytes(settings.lists)
    lists = run.artifact("lists", lambda url: {LISTS_FILE: data}, {"sha256": canonical.sha256(data)})
    stages = (LogMel.stage(FEATURES), GiveLists.stage(Settings(), lists=lists.ref))
    return run.step(Step("speech_listed", stages, spoken))


def _apart(run: Run, settings: BiasedSpeechSettings, speech: SealedSet) -> dict[str, Stage]:
    """Return the stages that leave out the speakers of the other part."""
    speakers = sorted({name or "" for table in speech.tables(["speaker"]) for name in table["speaker"].to_pylist()})
    if len(speakers) < 2:
        raise UserError("speech.places: one speaker; expected two or more, some to choose settings by and some to test")
    order = sorted(speakers, key=lambda name: RecordRandom(run.seed, "development")(name).random())
    count = min(max(1, round(settings.development * len(order))), len(order) - 1)
    out = {"development": order[count:], "test": order[:count]}
    return {part: RejectSpeakers.stage(SpeakerSettings(speakers=tuple(some))) for part, some in out.items()}


def check_biased(settings: BiasedSpeechSettings) -> None:
    """Check what can be before anything is made.

    Raises:
        UserError: a file is missing or has another form.
    """
    read_lists(settings.lists)
    read_lines(settings.words, "speech.words")
    for one in settings.texts:
        if next(_lines(one), None) is None:
            raise UserError(f"speech.texts: {one.place} has no text; expected some")
    if settings.common is not None:
        read_lines(settings.common, "speech.common")


def read_lines(url: str, what: str) -> list[str]:
    """Return the lines of a text that are not empty.

    Raises:
        UserError: there is no such file, or it is no text.
    """
    return read_entries(url, f"{what}: {{}}: {url}")


def _texts(run: Run, settings: BiasedSpeechSettings) -> SealedSet:
    """Return the texts of the language model, normalised, a row each."""

    def tables() -> Iterator[pa.Table]:
        texts = (text for one in settings.texts for line in _lines(one) if (text := normalise(line)))
        for number, some in enumerate(iter(lambda: list(islice(texts, _ROWS)), [])):
            yield pa.table({"id": [f"text/{number * _ROWS + place}" for place in range(len(some))], "text": some})

    digests = [(canonical.sha256(store.read_bytes(one.place)), one.field) for one in settings.texts]
    return run.source("texts", tables, {"texts": digests, "version": 1})


def _lines(one: TextPlace) -> Iterator[str]:
    """Yield the texts of a place."""
    is_json = one.place.removesuffix(".gz").endswith(".jsonl")
    for number, line in enumerate(all_lines(one.place), start=1):
        text = line.decode("utf-8", "replace").strip()
        if is_json and text:
            try:
                row = read_json(text)
            except (ValueError, RecursionError):
                raise UserError(f"speech.texts: {one.place}: line {number} is no JSON; expected an object") from None
            found = row.get(one.field) if isinstance(row, dict) else None
            if not isinstance(found, str):
                raise UserError(f"speech.texts: {one.place}: line {number} has no text in {one.field!r}")
            yield found
        elif text:
            yield text
