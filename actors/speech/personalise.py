"""The actor that transcribes utterances with lists of words, by several sets of techniques side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.actors.speech.features import rows_of
from gristmill.actors.speech.personal_model import PersonalModel
from gristmill.actors.speech.recognise import check_features
from gristmill.actors.speech.word_lists import WordLists, WordListSettings
from gristmill.models.speech.personal import PersonalSettings, Technique
from gristmill.shards.artifact import read_file
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

WORDS_FILE = "words.txt"  # of an artifact: words to draw lists from, one a line


class PersonaliseSettings(Settings):
    """Settings of the systems, and of the lists."""

    personal: PersonalSettings | None = None
    """Null: those that the model was tuned to."""
    lists: WordListSettings = WordListSettings()
    systems: Mapping[str, tuple[Technique, ...]] = {"base": ()}
    """The techniques of each system."""


class Personalise(Actor):
    """Adds ``hypothesis_<system>`` of each system, with the list of each record; drops the features.

    ``model`` is an artifact of :class:`~gristmill.actors.speech.personal_model.PersonalModel`, ``words`` one that lists
    are drawn from, ``pronounced`` one of pronunciations. Records have ``names``, and ``listed`` if lists are their own.
    """

    name = "personalise"
    drops = ("features",)
    batch = BatchLimits(rows=32, cost="feature_frames", max_cost=48000)
    settings: PersonaliseSettings

    def __init__(
        self, settings: PersonaliseSettings, model: str, words: str | None = None, pronounced: str | None = None
    ) -> None:
        super().__init__(settings)
        self.model = PersonalModel(model, settings.personal, pronounced=pronounced)
        pool = read_file(words, WORDS_FILE).decode().split() if words is not None else []
        self.lists = WordLists(pool, settings.lists)

    @classmethod
    def contract(cls, settings: PersonaliseSettings) -> Mapping[str, Any]:
        """Return the columns of the systems."""
        return {"adds": tuple(pa.field(f"hypothesis_{system}", pa.string()) for system in settings.systems)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the texts, which are empty for rows without feature frames."""
        check_features(self.model.base, "the model", batch)
        found: dict[str, list[str]] = {name: [] for name in self.settings.systems}
        columns = (rows_of(batch["features"]), batch["feature_frames"].to_pylist(), self.lists.of_batch(batch))
        for flat, frames, words in zip(*columns, strict=True):
            heard = self.model.hear(flat.reshape(frames, -1)) if frames else None
            listed = self.model.recogniser.listed(words) if words and heard is not None else None
            for name, techniques in self.settings.systems.items():
                several = (
                    self.model.recogniser.recognised(heard, listed, techniques, frame=self.model.frame)
                    if heard is not None
                    else []
                )
                found[name].append(several[0].text if several else "")
        for name, texts in found.items():
            batch = set_column(batch, f"hypothesis_{name}", pa.array(texts, pa.string()))
        return batch
