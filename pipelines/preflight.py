"""What can be known to be wrong before any work is done, so that nothing is half written."""

from __future__ import annotations

from pipelines.corpora import CorpusSettings
from pipelines.noise import NoiseSettings
from shards.errors import UserError
from shards.store import walk


def check_corpus(settings: CorpusSettings) -> None:
    """Refuse corpora that are missing, empty or not given."""
    from actors.sources import list_sources

    if settings.chosen == "requests":
        return
    needed = ("digits",) if settings.chosen == "digits" else ("labelled", "unlabelled")
    for name in needed:
        if getattr(settings, name) is None:
            raise UserError(f"corpus.{name}: not given; expected the URL of audio, a manifest, Parquet or tar")
    for name in (*needed, "test") if settings.chosen == "files" else needed:
        places = getattr(settings, name)
        for place in (places,) if isinstance(places, str) else places or ():
            list_sources(place)  # refuses what it cannot list when it is called, before the first row


def check_noise(settings: NoiseSettings) -> None:
    """Refuse a noise folder without audio."""
    from actors.banks import FORMATS

    if settings.folder is not None and not any(file.url.lower().endswith(FORMATS) for file in walk(settings.folder)):
        raise UserError(f"noise: {settings.folder}: no audio here; expected a folder of {', '.join(FORMATS)} files")


def check_teacher(source: str, model: str | None, frame_rate: float) -> None:
    """Refuse a teacher that cannot be loaded, or whose frames (a second) are not the student's."""
    from actors.teacher import describe

    found = describe(source, model)
    if abs(found.frame_rate - frame_rate) > 1e-6 * frame_rate:
        raise UserError(
            f"teacher: {source} gives {found.frame_rate:g} frames a second, the student {frame_rate:g}; "
            "expected the same: set systems.model.subsampling"
        )
