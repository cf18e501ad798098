"""Texts translated per second: the stage's actors against bare CTranslate2 with the same model, texts and thread.

Bare CTranslate2 is SentencePiece, ``translate_batch`` over all texts in length-sorted batches of equal size, and the
joining of pieces. A translator is trained on generated pairs first, unless one is given.
Run: ``python -m benchmarks.translation [--texts 4000] [--translator URL]``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from gristmill.actors.text.translate import (
    UNITS,
    BeamSearchSettings,
    TranslationSettings,
    most_units,
    open_translator,
    stages,
)
from gristmill.actors.text.translator_files import load_fast
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.text.translator_units import END
from gristmill.pipelines.generated.assistant_pairs import pairs
from gristmill.pipelines.generated.assistant_templates import DOMAINS
from gristmill.pipelines.run import Run
from gristmill.pipelines.text.translators import TranslatorSettings, translator_job
from gristmill.shards.batching import canonical_batches
from gristmill.shards.dataset import seal_tables
from gristmill.shards.stage import ArtifactRef, Stage

import pyarrow as pa

REPEATS = 3
BEAM = 4


def bare(url: str, rows: int) -> Callable[[pa.Table], list[list[str]]]:
    files, units = load_fast(url)
    translator = open_translator(files, "float32")
    source, target = units.source.pieces, units.target.pieces
    return lambda table: _bare(translator, source, target, table["source"].to_pylist(), rows)


def _bare(translator: Any, source: Any, target: Any, texts: list[str], rows: int) -> list[list[str]]:
    tokens = [[*source.encode(text.lower(), out_type=str), END] for text in texts]
    found = translator.translate_batch(
        tokens,
        beam_size=BEAM,
        num_hypotheses=BEAM,
        max_batch_size=rows,
        return_scores=True,
        disable_unk=True,
        max_decoding_length=most_units(max(map(len, tokens))),
    )
    return [[target.decode_pieces(one) for one in result.hypotheses] for result in found]


def staged(url: str, rows: int) -> Callable[[pa.Table], list[list[str]]]:
    settings = TranslationSettings(decoding=BeamSearchSettings(n=BEAM, beam=BEAM, protect="none", rows=rows))
    chain = stages(ArtifactRef(url, ""), settings, source_lang="en", target_lang="hi")
    actors = [(stage, stage.build(0)) for stage in chain]
    return lambda table: _staged(actors, table)


def _staged(actors: list[tuple[Stage, Any]], table: pa.Table) -> list[list[str]]:
    for stage, actor in actors:
        batches = [table.take(places) for places in canonical_batches(table, stage.batch)]
        table = pa.concat_tables([actor(batch) for batch in batches])
    assert UNITS in table.column_names
    found = dict(zip(table["id"].to_pylist(), table["translations"].to_pylist(), strict=True))
    return [[one["text"] for one in found[key] or [{"text": ""}]] for key in sorted(found)]


def timed(act: Callable[[], list[list[str]]]) -> tuple[float, list[list[str]]]:
    begun = time.process_time()
    made = act()
    return time.process_time() - begun, made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--translator", help="a trained one, instead of training one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = given.translator
        if url is None:
            data = seal_tables(f"{folder}/pairs", "pairs", pairs(given.pairs, DOMAINS, 0))
            settings = TranslatorSettings(epochs=given.epochs)
            url = Run(f"{folder}/out", InProcessRunner()).train([translator_job("translator", [data], settings)])[0].url
        table = pa.concat_tables(itertools.chain(pairs(given.texts, DOMAINS, 1, name="texts")))
        order = table["id"].to_pylist()
        table = table.take([place for _, place in sorted(zip(order, range(len(order)), strict=True))])
        seconds: dict[str, list[float]] = {"bare": [], "stage": []}
        made: dict[str, list[list[str]]] = {}
        acts = {"bare": bare(url, given.rows), "stage": staged(url, given.rows)}  # loaded once, like an actor
        for _ in range(REPEATS):
            for kind, act in acts.items():
                took, made[kind] = timed(lambda act=act: act(table))
                seconds[kind].append(took)
    middle = {kind: statistics.median(times) for kind, times in seconds.items()}
    for kind, took in middle.items():
        print(f"{kind:6} {took:6.2f} CPU s, {len(table) / took:8.1f} texts/s (of {seconds[kind]})")
    equal = sum(one[0] == other[0] for one, other in zip(made["bare"], made["stage"], strict=True)) / len(table)
    print(json.dumps({"ratio": middle["bare"] / middle["stage"], "equal": equal}))


if __name__ == "__main__":
    main()
