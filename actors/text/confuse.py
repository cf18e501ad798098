"""N-best lists of a confusion channel (:mod:`gristmill.models.text.confusions`), for languages without a recogniser."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from gristmill.actors.text.ngram_texts import read_vocabulary
from gristmill.models.text.confusions import ChannelSettings, Confusions
from gristmill.shards.stage import Actor, BatchLimits

CANDIDATE = pa.struct([pa.field("text", pa.string()), pa.field("logprob", pa.float32())])
NBEST = pa.field("nbest", pa.list_(CANDIDATE))  # natural logarithms of the channel alone, best first


class Confuse(Actor):
    """Passes each record's ``text``, words separated by white space, through the channel."""

    name = "confuse"
    adds = (NBEST,)
    batch = BatchLimits(256)
    seeded = True
    settings: ChannelSettings

    def __init__(self, settings: ChannelSettings, vocabulary: str, rng: Callable[[str], np.random.Generator]) -> None:
        super().__init__(settings)
        self._channel = Confusions(read_vocabulary(vocabulary).words, settings)
        self._rng = rng

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``nbest``."""
        lists = []
        for key, text in zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True):
            candidates = self._channel.hear(text.split(), self._rng(key))
            lists.append([{"text": words, "logprob": logprob} for words, logprob in candidates])
        return batch.append_column(NBEST, pa.array(lists, NBEST.type))
