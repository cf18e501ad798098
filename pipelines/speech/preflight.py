"""Checks of everything that can be known before any work is done, so that nothing is half written."""

from __future__ import annotations

from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.banks import list_noises
from gristmill.actors.speech.teacher import TeacherSource, describe
from gristmill.pipelines.speech.corpora import CorpusSettings
from gristmill.pipelines.speech.noise import NoiseSettings
from gristmill.shards.errors import UserError


def check_corpus(settings: CorpusSettings) -> None:
    """Refuse corpora that are missing, empty or not given."""
    for urls in settings.places().values():
        for url in urls:
            list_sources(url)  # refuses what it cannot list when it is called, before the first row


def check_noise(settings: NoiseSettings) -> None:
    """Refuse a noise folder without audio."""
    if settings.folder is not None:
        list_noises(settings.folder)


def check_teacher(source: TeacherSource, model: str | None, frame_rate: float) -> None:
    """Refuse a teacher that cannot be loaded, or whose frames (a second) are not the student's."""
    found = describe(source, model)
    if abs(found.frame_rate - frame_rate) > 1e-6 * frame_rate:
        raise UserError(
            f"teacher: {source} gives {found.frame_rate:g} frames a second, the student {frame_rate:g}; "
            "expected the same: set systems.model.subsampling"
        )
