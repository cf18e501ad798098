"""N-best lists of a confusion channel (:mod:`gristmill.models.text.confusions`), for languages without a recogniser."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from gristmill.actors.text.ngram_texts import read_vocabulary
from gristmill.models.text.confusions import Confusions
from gristmill.shards.stage import ArtifactRef, BatchLimits, Stage

CANDIDATE = pa.struct([pa.field("text", pa.string()), pa.field("logprob", pa.float32())])
NBEST = pa.field("nbest", pa.list_(CANDIDATE))  # natural logarithms of the channel alone, best first


class Confuse:
    """Hears the ``text`` of each record through the channel; its words must be apart by white space."""

    def __init__(
        self,
        candidates: int,
        width: float,
        noise: float,
        n: int,
        vocabulary: str,
        rng: Callable[[str], np.random.Generator],
    ) -> None:
        self._channel = Confusions(read_vocabulary(vocabulary).words, candidates)
        self._width, self._noise, self._n, self._rng = width, noise, n, rng

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        lists = []
        for key, text in zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True):
            heard = self._channel.hear(text.split(), self._rng(key), width=self._width, noise=self._noise, n=self._n)
            lists.append([{"text": words, "logprob": logprob} for words, logprob in heard])
        return batch.append_column(NBEST, pa.array(lists, NBEST.type))


def stage(
    vocabulary: ArtifactRef,
    *,
    candidates: int = 12,
    width: float = 0.4,
    noise: float = 1.5,
    n: int = 50,
    name: str = "confuse",
) -> Stage:
    """Return the stage: each word is heard as one of ``candidates`` of the vocabulary, ``n`` texts are kept."""
    params = {"candidates": candidates, "width": width, "noise": noise, "n": n}
    return Stage(
        name,
        "gristmill.actors.text.confuse:Confuse",
        (NBEST,),
        params=params,
        artifacts={"vocabulary": vocabulary},
        batch=BatchLimits(256),
        seeded=True,
    )
