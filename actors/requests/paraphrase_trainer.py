"""Training of a paraphrase detector on sealed requests with the requests made of them, without some domains.

The same settings give the same files (on a CPU), independent of the order of the records in the set. The records come
from the actor :class:`gristmill.actors.requests.paraphrases.Paraphrases` and have an ``embedding``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gristmill.actors.embed import EMBEDDING, vectors_of
from gristmill.actors.requests.paraphrases import ANNOTATION, PAIR_KIND, check_columns
from gristmill.actors.training.loop import run_training
from gristmill.actors.training.settings import LoopSettings, Schedule
from gristmill.actors.training.training import LoopPhase, Training, TrainingObjective
from gristmill.models.measures.discrimination import auc_interval
from gristmill.models.requests.diversity import PairSimilarity
from gristmill.models.requests.grams import RequestRows
from gristmill.models.requests.paraphrase import (
    ARTICLE,
    MODEL,
    NEAR,
    NEGATIVES,
    POSITIVES,
    SAME,
    WEIGHTS,
    DetectorSettings,
    ParaphraseDetector,
)
from gristmill.models.requests.paraphrase_features import (
    EmbeddedRequests,
    pair_features,
    value_counts,
    value_words,
)
from gristmill.models.requests.templates import Annotated, annotated
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import Settings

COLUMNS = (*ANNOTATION, "parent_id", PAIR_KIND.name, EMBEDDING)
_ROWS = 1 << 10  # of requests whose nearest ones are looked for at once


class ParaphraseTraining(Settings):
    """Training of a paraphrase detector."""

    left_out: tuple[str, ...] = ()
    """Domains that the detector is not trained on; it is evaluated on the pairs of their requests, if there are any."""
    requests: int = Field(20_000, ge=1)
    """Requests whose pairs are used, at most; drawn by their ids."""
    detector: DetectorSettings = DetectorSettings()
    """The network and its training."""
    seed: int = 0
    """Of the draw of requests, the first weights and the order of pairs."""
    loop: LoopSettings = LoopSettings()
    """The training loop."""
    device: str = "cpu"
    """``auto`` uses a GPU if there is one, and the network then runs in bfloat16."""


class PairLoss:
    """Binary cross entropy of whether the two of a pair are paraphrases, by the weights of pairs."""

    name = "pairs"

    def __call__(self, output: Tensor, batch: PairBatch) -> Tensor:
        """Return the mean loss of a batch."""
        wanted, weight = batch.positive.to(output.device), batch.weight.to(output.device)
        return F.binary_cross_entropy_with_logits(output, wanted, weight)


class RequestPairs(NamedTuple):
    """Pairs of requests: the places (n, 2) of the two, the kind and the domain of each pair (n,)."""

    places: np.ndarray
    kinds: np.ndarray
    domains: np.ndarray


@dataclass
class PairBatch:
    """A batch of pairs, as input of the network, with what they are and count."""

    features: Tensor  # (B, features)
    left: Tensor  # (B, dim or 0)
    right: Tensor
    positive: Tensor  # (B,) float
    weight: Tensor  # (B,)


def train(settings: ParaphraseTraining, context: TrainContext, *, data: str) -> dict[str, Any]:
    """Train a detector on the pairs at ``data``, without those of the domains left out.

    Returns its files, the curves, the numbers of pairs by kind, and ``auc``: of the pairs of the domains left out, the
    area under the ROC curve with its interval by kind of negatives (``article``: the kinds that the article names); the
    interval is over domains, and too narrow for fewer than some ten. Without pairs of them ``auc`` is empty.

    Raises:
        UserError: records lack a column or a value, a domain left out is not in the set, or no positive or no negative
            pair is left.
    """
    records = read_records(settings, data)
    everywhere = {request.domain for request in records.requests}
    unknown = sorted(set(settings.left_out) - everywhere)
    if unknown:
        raise UserError(
            f"paraphrase: left_out {unknown} are no domains of {data}; expected some of {', '.join(sorted(everywhere))}"
        )
    used = np.array([request.domain not in settings.left_out for request in records.requests], bool)
    pairs = records.pairs(used)
    trainer = ParaphraseTrainer(records.embedded, records.requests, pairs, settings)
    trained = run_training(trainer, settings.loop, context)
    numbers = {str(kind): int(count) for kind, count in zip(*np.unique(pairs.kinds, return_counts=True), strict=True)}
    held = {}
    if settings.left_out and context.rank == 0:
        held = aucs(trainer.detector, records.embedded, records.pairs(~used))
    return {"left_out": list(settings.left_out), "pairs": numbers, "auc": held, **trained}


@dataclass
class PairRecords:
    """Requests and those made of them, in the order of their ids."""

    requests: list[Annotated]
    kinds: list[str | None]
    parents: np.ndarray  # (n,) the place of the request that each is made of
    embedded: EmbeddedRequests

    def pairs(self, used: np.ndarray) -> RequestPairs:
        """Return the pairs of the requests that are used (n,) bool: with those made of them, with the nearest of
        another intent, and with themselves."""
        given = np.array([kind is None for kind in self.kinds], bool)
        own = np.flatnonzero(given & used)
        made = np.flatnonzero(~given & used[self.parents])
        near = nearest(self.embedded, self.requests, own)
        places = np.concatenate([np.stack([self.parents[made], made], 1), near, np.stack([own, own], 1)])
        names = [*(self.kinds[row] for row in made), *[NEAR] * len(near), *[SAME] * len(own)]
        kinds = np.array(names, dtype=object)
        domains = np.array([self.requests[row].domain for row in places[:, 0]], dtype=object)
        return RequestPairs(places, kinds, domains)


def read_records(settings: ParaphraseTraining, data: str) -> PairRecords:
    """Return the records at ``data``, of at most so many requests as the settings say."""
    sealed = open_sealed(data)
    check_columns(sealed.schema.names, COLUMNS, sealed.name)
    rows: dict[str, tuple[Annotated, str | None, str]] = {}
    vectors: dict[str, np.ndarray] = {}
    counted = sum(table[PAIR_KIND.name].null_count for table in sealed.tables([PAIR_KIND.name]))
    share = min(1.0, settings.requests / max(1, counted))
    random = RecordRandom(settings.seed, "paraphrase_requests")
    drawn: dict[str, bool] = {}
    for table in sealed.tables(COLUMNS):
        found = _vectors(table)
        for row, vector in zip(table.drop_columns([EMBEDDING]).to_pylist(), found, strict=True):
            name, parent = row["id"], row["parent_id"]
            if parent not in drawn:
                drawn[parent] = share >= 1 or random(parent).random() < share
            if drawn[parent]:
                rows[name] = annotated(row, sealed.name), row[PAIR_KIND.name], parent
                vectors[name] = vector
    # A request without an embedding is rejected by its step: what is made of it goes with it, and it with none.
    whole = sorted(name for name, (_, _, parent) in rows.items() if parent in rows)
    place = {name: number for number, name in enumerate(whole)}
    dim = len(next(iter(vectors.values()), ()))
    return PairRecords(
        [rows[name][0] for name in whole],
        [rows[name][1] for name in whole],
        np.array([place[rows[name][2]] for name in whole], np.int64),
        EmbeddedRequests(
            [rows[name][0].tokens for name in whole],
            np.stack([vectors[name] for name in whole]) if whole else np.zeros((0, dim), np.float16),
        ),
    )


def nearest(embedded: EmbeddedRequests, requests: Sequence[Annotated], among: np.ndarray) -> np.ndarray:
    """Return the pairs (n, 2) of each request, of those at the places ``among``, and the nearest of another intent.

    A request with the same words as its nearest has no pair: it is one request with two intents.
    """
    vectors = np.asarray(embedded.vectors)[among].astype(np.float32)
    labels = [f"{requests[row].domain}\t{requests[row].intent}" for row in among]
    intent = np.unique(np.array(labels, dtype=str), return_inverse=True)[1]
    found = []
    for start in range(0, len(among) if intent.any() else 0, _ROWS):
        own = slice(start, start + _ROWS)
        cosine = vectors[own] @ vectors.T
        cosine[intent[own, None] == intent[None]] = -np.inf
        found.append(np.stack([among[own], among[cosine.argmax(1)]], 1))
    pairs = np.concatenate(found) if found else np.zeros((0, 2), np.int64)
    words = [[word.lower() for word in requests[row].tokens] for row in pairs.ravel().tolist()]
    return pairs[[one != other for one, other in zip(words[::2], words[1::2], strict=True)]]


class ParaphraseTrainer(Training[np.ndarray, PairBatch]):
    """The training of a detector on pairs.

    How value-like the words of a pair are is, in training, told by the other domains: so they are as new to the network
    as those of a domain that it has not seen.
    """

    betas = (0.9, 0.999)
    smaller = "batch"

    def __init__(
        self,
        embedded: EmbeddedRequests,
        requests: Sequence[Annotated],
        pairs: RequestPairs,
        settings: ParaphraseTraining,
    ) -> None:
        positive = np.isin(pairs.kinds, POSITIVES)
        paraphrases = int((pairs.kinds == "positive").sum())
        if not paraphrases or positive.all():
            raise UserError(
                f"paraphrase: {paraphrases} positive and {int((~positive).sum())} negative pairs are left to "
                "train on; expected both: requests with slots, of intents with several templates"
            )
        self.given, self.embedded, self.pairs = settings.detector, embedded, pairs
        self.seed = int(RecordRandom(settings.seed, "paraphrase")("weights").integers(1 << 30))
        self.draws = RecordRandom(settings.seed, "paraphrase_order")
        self.device, self.weight_decay = settings.device, settings.detector.weight_decay
        firsts = np.unique(pairs.places[:, 0])
        counts = {
            domain: value_counts(requests[row] for row in firsts if requests[row].domain == domain)
            for domain in sorted(set(pairs.domains))
        }
        self.detector = ParaphraseDetector(self.given, value_words(counts.values()), embedded.vectors.shape[1])
        features = np.zeros((len(positive), len(self.detector.network.mean)), np.float32)
        for domain in counts:
            values = value_words(own for name, own in counts.items() if name != domain)
            rows = np.flatnonzero(pairs.domains == domain)
            features[rows] = pair_features(embedded, embedded, pairs.places[rows], values)
        self.features = torch.from_numpy(features)
        self.positive = torch.from_numpy(positive.astype(np.float32))
        weight = np.array([self.given.weights.get(kind, 1.0) for kind in pairs.kinds], np.float32)
        negative = weight[~positive].sum()
        if positive.any() and negative > 0 and weight[positive].sum() > 0:
            weight[positive] *= negative / weight[positive].sum()
        self.weight = torch.from_numpy(weight / max(weight.mean(), 1e-9))

    def build(self, device: torch.device) -> nn.Module:
        """Return the network with random weights, and the scale of the features."""
        self.detector = ParaphraseDetector(self.given, self.detector.values, self.detector.dim)
        self.detector.network.standardise(self.features)
        return self.detector.network.to(device)

    def phases(self) -> list[LoopPhase]:
        """Return the only phase."""
        passes = max(self.given.epochs, math.ceil(self.given.steps / len(self.batches(0, 0))))
        schedule = Schedule(epochs=passes, lr=self.given.lr, final=0.0, decay="linear")
        objectives: list[TrainingObjective] = [PairLoss()]
        return [LoopPhase(schedule, objectives, "paraphrase", "the pairs")]

    def batches(self, phase: int, epoch: int) -> list[np.ndarray]:
        """Return the batches of an epoch, in random order."""
        order = self.draws(str(epoch)).permutation(len(self.positive))
        return [order[start : start + self.given.batch] for start in range(0, len(order), self.given.batch)]

    def load(self, item: np.ndarray) -> PairBatch:
        """Return the inputs and labels of pairs."""
        rows, places = torch.from_numpy(item), self.pairs.places[item]
        left, right = (self.detector.vectors(self.embedded, places[:, side]) for side in (0, 1))
        return PairBatch(self.features[rows], left, right, self.positive[rows], self.weight[rows])

    def forward(self, network: nn.Module, batch: PairBatch, phase: int, seed: int) -> Tensor:
        """Return the log-odds of a batch."""
        device = self.detector.network.mean.device
        return network(batch.features.to(device), batch.left.to(device), batch.right.to(device)).float()

    def files(self) -> dict[str, bytes]:
        """Return the files of the detector."""
        return self.detector.files()


def aucs(detector: ParaphraseDetector, embedded: EmbeddedRequests, pairs: RequestPairs) -> dict[str, dict[str, Any]]:
    """Return the area under the ROC curve of the positive pairs against each kind of negatives that there is.

    Each has ``value``, ``low``, ``high`` and ``n``, the number of pairs.
    """
    scores = detector.probabilities(embedded, embedded, pairs.places)
    positive = pairs.kinds == "positive"
    groups: dict[str, tuple[str, ...]] = {"article": ARTICLE, **{kind: (kind,) for kind in NEGATIVES}}
    found = {}
    for name, kinds in groups.items():
        rows = positive | np.isin(pairs.kinds, kinds)
        if positive.any() and (rows & ~positive).any():
            area = auc_interval(scores[rows], positive[rows], pairs.domains[rows].tolist())
            found[name] = {"value": area.value, "low": area.low, "high": area.high, "n": int(rows.sum())}
    return found


def _vectors(table: pa.Table) -> np.ndarray:
    """Return the embeddings of a table, (rows, dim)."""
    if table[EMBEDDING].null_count:
        raise UserError("paraphrase: a record without embedding; expected one of each")
    return vectors_of(table[EMBEDDING])


def embedded_of(table: pa.Table) -> EmbeddedRequests:
    """Return the requests of a table with ``tokens`` and ``embedding``, as a detector compares them.

    Raises:
        UserError: it lacks one of them.
    """
    check_columns(table.column_names, ("tokens", EMBEDDING), "paraphrase")
    return EmbeddedRequests([tokens or [] for tokens in table["tokens"].to_pylist()], _vectors(table))


def read_detector(url: str) -> ParaphraseDetector:
    """Return the detector of an artifact."""
    return ParaphraseDetector.from_files(json.loads(read_file(url, MODEL)), read_file(url, WEIGHTS))


def pair_similarity(url: str) -> PairSimilarity:
    """Return the similarity of pairs by a detector: the ``load`` of ``worst_paraphrase``.

    Raises:
        UserError: requests have no tokens or no embedding.
    """
    detector = read_detector(url)

    def similarity(rows: RequestRows, against: RequestRows) -> np.ndarray:
        return detector.similarity(_embedded(rows), _embedded(against))

    return similarity


def _embedded(rows: RequestRows) -> EmbeddedRequests:
    if rows.tokens is None or rows.embeddings is None:
        raise UserError(f"paraphrase: the detector compares requests with tokens and {EMBEDDING}; expected both")
    return EmbeddedRequests(rows.tokens, rows.embeddings)
