"""Counter-based randomness: a record's draws depend only on the seed, the stage and the record; a hash of numbers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RecordRandom:
    """Creates a generator for each record, so that draws do not depend on order, batch or worker.

    Philox is a counter-based generator (Salmon et al., SC 2011); its 128-bit key is a hash of
    (run seed, stage name, record id).

    Example:
        >>> one, again = (RecordRandom(seed=0, stage="noise")("utterance 1").random() for _ in range(2))
        >>> one == again, one == RecordRandom(seed=0, stage="noise")("utterance 2").random()
        (True, False)
    """

    seed: int
    stage: str

    def __call__(self, record_id: str) -> np.random.Generator:
        """Return the generator of one record; the same record always gets the same stream."""
        text = f"{self.seed}\x1f{self.stage}\x1f{record_id}".encode()
        key = np.frombuffer(hashlib.blake2b(text, digest_size=16).digest(), dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key))


def mixed(values: np.ndarray) -> np.ndarray:
    """Return hashed uint64 numbers: the finaliser of SplitMix64, a bijection (Steele et al., OOPSLA 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
