"""Speakers who are held out for the test, and whose other speech is not trained on."""

from __future__ import annotations

from gristmill.actors.records import Filter, Record
from gristmill.shards.settings import Settings

HELD_OUT = "speaker of the test"


class SpeakerSettings(Settings):
    """Settings of the filter."""

    speakers: tuple[str, ...]
    """The names of those who are held out, in order."""


class RejectSpeakers(Filter):
    """Rejects the speech of speakers who are held out."""

    name = "held_out"
    columns = ("speaker",)
    settings: SpeakerSettings

    def __init__(self, settings: SpeakerSettings) -> None:
        super().__init__(settings)
        self._held_out = frozenset(settings.speakers)

    def reason(self, record: Record) -> str | None:
        """Return why the record is not kept."""
        return HELD_OUT if record["speaker"] in self._held_out else None
