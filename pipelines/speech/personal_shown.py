"""What a recogniser with a user's words does with some utterances of a test: where it attends, how long it takes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gristmill.actors.speech.personal_fits import utterances
from gristmill.actors.speech.personal_model import PersonalModel
from gristmill.actors.speech.word_lists import WordLists, WordListSettings
from gristmill.models.speech.personal import Technique
from gristmill.pipelines.report.report import NumberTable, Spectrogram
from gristmill.shards.dataset import SealedSet

UTTERANCES = 10  # of which times are measured
_SIZE = 10  # entries of the list that is shown


def attention(known: PersonalModel, test: SealedSet, words: Sequence[str]) -> list[Spectrogram]:
    """Return the attention of the adapter over a short list, in the first utterance with names."""
    adapter = known.recogniser.parts.adapter
    row, features = next(((row, one) for row, one in utterances(test.url) if row["names"]), (None, None))
    if row is None or features is None or adapter is None:
        return []
    entries = WordLists(words, WordListSettings(size=min(_SIZE, len(words)))).of(row["id"], row["text"], row["names"])
    listed = known.recogniser.listed(entries)
    heard = known.hear(features)
    found = known.recogniser.attention(heard, listed.plain)
    names = ", ".join(listed.plain.words)
    title = f"Attention over a list of {len(listed.plain.words)} words: {row['text']}"
    return [Spectrogram(title, np.log(found + 1e-3), known.frame, f"From below: no word, {names}.")]


def speed(
    known: PersonalModel,
    test: SealedSet,
    words: Sequence[str],
    lists: Mapping[str, WordListSettings],
    systems: Mapping[str, tuple[Technique, ...]],
) -> NumberTable:
    """Return how many times faster than real time systems are with lists, features to text, on one thread."""
    some = [one for one, _ in zip(utterances(test.url), range(UTTERANCES), strict=False)]
    seconds = sum(row["duration"] for row, _ in some)
    rows: list[dict[str, Any]] = []
    for name, settings in lists.items():
        made = WordLists(words, settings)
        listed = [
            known.recogniser.listed(made.of(row["id"], row["text"], row["names"] or (), row.get("listed")))
            for row, _ in some
        ]
        found: dict[str, Any] = {"list": name}
        for system, techniques in systems.items():
            for lap in range(2):  # the first makes what is kept
                begun = time.perf_counter()
                for (_, features), words_of in zip(some, listed, strict=True):
                    known.recogniser.recognised(known.hear(features), words_of, techniques, frame=known.frame)
                if lap:
                    found[f"{system}, x real time"] = seconds / (time.perf_counter() - begun)
        rows.append(found)
    note = f"Of {len(some)} utterances, with lists that were made before; another machine, or a busy one, has others."
    return NumberTable("Speed", rows, note, timed=True)
