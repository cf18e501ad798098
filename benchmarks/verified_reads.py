"""The cost of comparing what is read with its digest: a step over audio shards, with the comparison and without.

    python -m benchmarks.verified_reads FOLDER --gb 10         # FOLDER: a path or URL; needs twice the room
    python -m benchmarks.verified_reads s3://bucket/x --gb 1
    python -m benchmarks.verified_reads FOLDER --recipe configs/distill.yaml corpus.records=400

Speech-like FLAC is sealed in shards; log-mel features are made of it, and two of its columns are read. Each is done
with and without the comparison, in turns; seconds are of this process's CPU. The ratios, with the least and the largest
of all pairs of turns, are printed as JSON. With ``--recipe`` a recipe is run in this process instead, and the share of
its seconds, and of those of its steps, in which bytes are compared is printed (that of pages is Arrow's own, and is in
the ratio of columns).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from unittest import mock

from gristmill.actors.speech.features import LogMel
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.speech.features import FeatureSettings
from gristmill.pipelines import run
from gristmill.pipelines.command.launch import carry_out
from gristmill.pipelines.config import load
from gristmill.pipelines.progress import LogProgress
from gristmill.shards import checked, parquet, store
from gristmill.shards.dataset import SealedSet, open_sealed, seal_tables
from gristmill.shards.engine import run_step
from gristmill.shards.schema import AUDIO
from gristmill.shards.step import Step

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

RATE, SECONDS, DISTINCT = 16000, 10.0, 40
SHARD = 64 << 20  # bytes
T = TypeVar("T")


def voices() -> list[np.ndarray]:
    """Return some utterances without their noise: harmonics under a changing envelope."""
    made = []
    for number in range(DISTINCT):
        rng = np.random.default_rng(number)
        t = np.arange(int(RATE * SECONDS)) / RATE
        pitch = 90 + 150 * rng.random() + 10 * np.sin(2 * np.pi * 3 * t)
        voice = sum(np.sin(2 * np.pi * k * np.cumsum(pitch) / RATE) / k for k in range(1, 12))
        made.append(0.2 * np.clip(np.sin(2 * np.pi * 2.5 * t + rng.random()), 0.05, None) * voice)
    return made


def encoded(voice: np.ndarray, seed: int) -> bytes:
    """Return the FLAC of an utterance with noise of its own, so that no two are equal."""
    samples = voice + 0.01 * np.random.default_rng(seed).standard_normal(len(voice))
    out = io.BytesIO()
    soundfile.write(out, samples.astype(np.float32), RATE, format="FLAC", subtype="PCM_16")
    return out.getvalue()


def corpus(url: str, size: float) -> SealedSet:
    """Seal shards of ``size`` bytes in all."""
    sounds = voices()
    rows = SHARD // len(encoded(sounds[0], 0))
    schema = pa.schema([("id", pa.string()), ("audio", AUDIO), ("text", pa.string()), ("duration", pa.float64())])

    def tables() -> Iterator[pa.Table]:
        for shard in range(max(1, round(size / SHARD))):
            records = [
                {
                    "id": f"u/{shard:05d}/{row:05d}",
                    "audio": {"bytes": encoded(sounds[row % len(sounds)], shard * rows + row), "path": None},
                    "text": f"turn the light in room {row} on",
                    "duration": SECONDS,
                }
                for row in range(rows)
            ]
            yield pa.Table.from_pylist(records, schema=schema)

    return seal_tables(url, "audio", tables())


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Read as if nothing were compared."""
    opened = pq.ParquetFile

    def plain(*args: object, **kwargs: object) -> pq.ParquetFile:
        return opened(*args, **{**kwargs, "page_checksum_verification": False})

    with (
        mock.patch.object(checked, "read_file", lambda url, sha, size=None: store.read_bytes(url)),
        mock.patch.object(checked, "compare", lambda data, *_: data),
        mock.patch.object(parquet.pq, "ParquetFile", plain),
    ):
        yield


def measure(work: Callable[[int], None], turns: int) -> dict[str, float]:
    """Return the seconds of the work with and without the comparison, and their ratio over all pairs of turns."""
    spent: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(turns):
        for compares in (True, False) if turn % 2 else (False, True):
            with contextlib.nullcontext() if compares else unchecked():
                begun = time.process_time()
                work(2 * turn + compares)
                spent[compares].append(time.process_time() - begun)
    ratios = [a / b for a, b in zip(spent[True], spent[False], strict=True)]
    return {
        "seconds_compared": float(np.median(spent[True])),
        "seconds_plain": float(np.median(spent[False])),
        "ratio": float(np.median(ratios)),
        "low": min(ratios),
        "high": max(ratios),
    }


class Shares:
    """The seconds of a recipe, of its steps, and of the comparisons in each."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("recipe", "steps", "compared", "compared_in_steps"), 0.0)
        self._depth = self._in_step = 0

    def _timed(self, work: Callable[..., T], name: str) -> Callable[..., T]:
        def timed(*args: Any, **kwargs: Any) -> T:
            compares = name == "compared"
            outer = not (compares and self._depth)
            self._depth += compares
            self._in_step += not compares
            begun = time.process_time()
            try:
                return work(*args, **kwargs)
            finally:
                spent = time.process_time() - begun
                self._depth -= compares
                self._in_step -= not compares
                self.seconds[name] += spent if outer else 0.0
                self.seconds["compared_in_steps"] += spent if compares and outer and self._in_step else 0.0

        return timed

    def measure(self, config: str, settings: Sequence[str]) -> dict[str, float]:
        """Run a recipe and return the seconds and shares."""
        with contextlib.ExitStack() as patches:
            for name in ("compare", "check_file", "decode"):
                timed = self._timed(getattr(checked, name), "compared")
                patches.enter_context(mock.patch.object(checked, name, timed))
            patches.enter_context(mock.patch.object(run, "run_step", self._timed(run.run_step, "steps")))
            begun = time.process_time()
            carry_out(load(config, [*settings, "runner=inprocess"]), LogProgress())
            self.seconds["recipe"] = time.process_time() - begun
        shares = {
            "share": self.seconds["compared"] / self.seconds["recipe"],
            "share_of_steps": self.seconds["compared_in_steps"] / self.seconds["steps"],
        }
        return {**self.seconds, **shares}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--recipe", nargs="+", metavar=("CONFIG", "SETTING"))
    given = parser.parse_args()
    folder = store.absolute(given.folder)
    if given.recipe:
        config, *settings = given.recipe
        print(json.dumps(Shares().measure(config, [*settings, f"out={folder}"])))
        return
    sealed = corpus(store.join(folder, "audio"), given.gb * 1e9)
    settings = FeatureSettings(sampling_rate=RATE)

    def features(number: int) -> None:
        out = store.join(folder, f"turn_{number}")
        run_step(Step("features", (LogMel.stage(settings),), open_sealed(sealed.url)), out, InProcessRunner(), 0)
        store.remove(out)

    def columns(number: int) -> None:
        for table in open_sealed(sealed.url).tables(["id", "text"]):
            assert table.num_rows

    result = {"bytes": sum(entry.bytes for entry in sealed.shards), "turns": given.turns}
    print(json.dumps({**result, "features": measure(features, given.turns), "columns": measure(columns, given.turns)}))


if __name__ == "__main__":
    main()
