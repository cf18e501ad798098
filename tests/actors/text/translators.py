"""A toy language pair and tiny translators for tests, word for word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from gristmill.actors.text.translator_trainer import TranslatorTraining, train
from gristmill.cluster.inprocess import InProcessContext
from gristmill.models.text.translator import TranslatorSizes
from gristmill.shards.artifact import Artifact, put_artifact
from gristmill.shards.dataset import SealedSet, seal_tables
from gristmill.shards.schema import PAIRS

ENGLISH = "turn on off the kitchen light lamp fan heater set to open close door window"
HINDI = "करो चालू बंद यह रसोई बत्ती दीपक पंखा हीटर रखो पर खोलो लगाओ दरवाजा खिड़की"
WORDS = dict(zip(ENGLISH.split(), HINDI.split(), strict=True))
SMALL = TranslatorTraining(
    model=TranslatorSizes(dim=32, encoder_layers=1, decoder_layers=1, ff=64, heads=2),
    units=120,
    epochs=12,
    lr=4e-3,
    batch_units=200,
)


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        words = list(rng.choice(list(WORDS), rng.integers(2, 5)))
        hindi = [WORDS[word] for word in words]
        if rng.random() < 0.5:
            number = str(rng.integers(1, 100))
            words.append(number)
            hindi.append(number)
        made.append((" ".join(words), " ".join(hindi)))
    return made


def pair_table(rows: list[tuple[str, str]], name: str = "p", langs: tuple[str, str] = ("en", "hi")) -> pa.Table:
    columns = {
        "id": [f"{name}{number}" for number in range(len(rows))],
        "source": [source for source, _ in rows],
        "target": [target for _, target in rows],
        "source_lang": [langs[0]] * len(rows),
        "target_lang": [langs[1]] * len(rows),
        "label_source": ["gold"] * len(rows),
    }
    return pa.table(columns, schema=PAIRS)


def sealed(folder: Path, name: str, rows: list[tuple[str, str]], langs: tuple[str, str] = ("en", "hi")) -> SealedSet:
    table = pair_table(rows, name, langs)
    half = len(rows) // 2
    return seal_tables(str(folder / name), name, [table.slice(0, half), table.slice(half)])


def trained(folder: Path, data: SealedSet) -> Artifact:
    """Train a tiny translator and commit it."""
    made = train(SMALL, InProcessContext(str(folder / "run")), data=[(data.url, 1.0)])
    return put_artifact(str(folder / "translator"), made["files"], {"data": data.digest})
