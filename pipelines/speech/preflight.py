"""Checks of inputs before any work is done, so that mistakes leave no partial results."""

from __future__ import annotations

from functools import partial

from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.banks import list_noises
from gristmill.actors.speech.segment import load_detector
from gristmill.actors.speech.synthesise import check_voices
from gristmill.actors.speech.teacher import TeacherSource, describe
from gristmill.actors.speech.voices import voices_of
from gristmill.pipelines.inputs import check_listed
from gristmill.pipelines.speech.corpora import CorpusSettings
from gristmill.pipelines.speech.noise import NoiseSettings
from gristmill.shards.errors import UserError


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
    for urls in settings.places().values():
        check_listed(partial(list_sources, url) for url in urls)


def check_noise(settings: NoiseSettings) -> None:
    """Raise a ``UserError`` for a noise folder without audio."""
    if settings.folder is not None:
        list_noises(settings.folder)


def check_teacher(source: TeacherSource, model: str | None, frame_rate: float) -> None:
    """Raise a ``UserError`` for a teacher that cannot be loaded or has another frame rate (Hz) than the student."""
    found = describe(source, model)
    if abs(found.frame_rate - frame_rate) > 1e-6 * frame_rate:
        raise UserError(
            f"teacher: {source} gives {found.frame_rate:g} frames per second, the student {frame_rate:g}; "
            "expected the same: set systems.model.subsampling"
        )
