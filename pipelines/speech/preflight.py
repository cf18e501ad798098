"""Checks of inputs before any work is done, so that mistakes leave no partial results."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from gristmill.actors.sources.fields import expected_column
from gristmill.actors.sources.pointers import named
from gristmill.actors.sources.speech import columns_of, list_sources
from gristmill.actors.speech.banks import list_noises
from gristmill.actors.speech.segment import load_detector
from gristmill.actors.speech.synthesise import check_voices
from gristmill.actors.speech.teacher import TeacherSource, describe
from gristmill.actors.speech.voices import voices_of
from gristmill.models.speech.rooms import check_exact
from gristmill.pipelines.filters import check_filters
from gristmill.pipelines.inputs import check_listed
from gristmill.pipelines.speech.corpora import CorpusSettings, loaded_schema
from gristmill.pipelines.speech.noise import NoiseSettings
from gristmill.pipelines.speech.separation import check_separation
from gristmill.shards.errors import UserError


def check_inputs(corpus: CorpusSettings, noise: NoiseSettings, teacher: str) -> None:
    """Raise a ``UserError`` for speech or noises that cannot be used, and for speech of the test that would be trained
    on."""
    check_corpus(corpus, teacher)
    if noise.folder is not None:
        list_noises(noise.folder)
    if noise.rooms.method == "exact":
        check_exact()
    check_separation(corpus, noise.folder)


def check_corpus(settings: CorpusSettings, teacher: str) -> None:
    """Raise a ``UserError`` for corpora that are missing, empty or not given, and for voices and detectors
    that are not installed."""
    if settings.chosen == "requests":
        check_voices(voices_of("labelled", settings.voices))
    if settings.transcribed:
        if teacher == "hama":
            raise UserError(
                "corpus.transcribed: hama's units are phonemes, not letters; expected another teacher.source"
            )
        load_detector(settings.align.method)
    if settings.segment is not None:
        load_detector(settings.segment.method, "corpus.segment.method")
    if settings.quality is not None:
        load_detector(settings.quality.detector, "corpus.quality.detector")
    if settings.chosen == "files":
        for part in ("labelled", "test", *(["unlabelled"] if settings.segment is None else [])):
            check_filters(settings.filters, loaded_schema(settings, part), part)
    places = settings.places()
    if settings.fields and not places:
        raise UserError("corpus.fields: generated speech has no columns; expected corpus.labelled, or other recordings")
    for part, urls in places.items():
        check_listed((partial(list_sources, url, fields=settings.fields) for url in urls), f"corpus.{part}")
        for url in urls:
            _check_columns(part, url, settings.fields)


def _check_columns(part: str, url: str, fields: Mapping[str, str]) -> None:
    """Raise a ``UserError`` for a list of recordings without a column that is named, or an annotated one without text.

    Speech without annotation may lack the columns of annotations.
    """
    annotated = part != "unlabelled"
    needed = {value: named(fields, value) for value in fields if annotated or value in ("audio", "id")}
    if annotated:
        needed["text"] = named(fields, "text")
    names = columns_of(url, fields, lambda found: all(any(one in found for one in some) for some in needed.values()))
    if names is None:
        return
    for value, some in needed.items():
        if not set(some).intersection(names):
            expected = expected_column(value, fields, names)
            raise UserError(f"corpus.{part}: {url}: no column of {value} among {', '.join(names)[:200]}{expected}")


def check_teacher(source: TeacherSource, model: str | None, frame_rate: float) -> None:
    """Raise a ``UserError`` for a teacher that cannot be loaded or has another frame rate (Hz) than the student."""
    found = describe(source, model)
    if abs(found.frame_rate - frame_rate) > 1e-6 * frame_rate:
        raise UserError(
            f"teacher: {source} gives {found.frame_rate:g} frames per second, the student {frame_rate:g}; "
            "expected the same: set systems.model.subsampling"
        )
