"""Training data from sealed sets: sources, batches by length, their order, and their tensors.

Batches depend only on the lengths in the sealed set, and an epoch's order comes from a generator keyed by
(seed, source, epoch): a run that resumes, or has other workers, gets the same batches.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np
import pyarrow as pa

from gristmill.actors.speech.features import rows_of
from gristmill.models.speech.features import METADATA_KEY, FeatureSettings
from gristmill.models.speech.topk import TopKInfo, unflatten
from gristmill.models.speech.units import Units
from gristmill.shards.dataset import SealedSet, open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.random import RecordRandom

if TYPE_CHECKING:
    import torch

TOPK_COLUMNS = ["topk_ids", "topk_logprobs", "tail_logmass"]
EDGE_FRAMES = 2  # an external teacher of the same frame rate may differ by this much at the end of an utterance
BUCKET_BATCHES = 8  # batches among which records of similar length are shuffled each epoch


class SourceInputs(TypedDict):
    """The inputs of a :class:`Source`, by the names of its arguments."""

    features: Any  # a sealed set in a job, its url in a loop
    labels: NotRequired[Any]
    text: NotRequired[str | None]
    names: NotRequired[str | None]


@dataclass
class Batch:
    """Tensors of a batch; what a source does not have is ``None``."""

    features: torch.Tensor  # (B, T, n_mels) float32
    lengths: torch.Tensor  # (B,)
    targets: list[list[int]] | None
    topk_ids: torch.Tensor | None  # (B, T', K) int64
    topk_logprobs: torch.Tensor | None  # (B, T', K)
    tail_logmass: torch.Tensor | None  # (B, T')
    texts: list[str] | None = None
    names: list[list[str]] | None = None  # words of the texts that lists may hold
    phones: list[list[int]] | None = None  # of the texts, for inner heads of phones


class _Shards:
    """Tables of a sealed set in an LRU cache of ``budget`` bytes (at least two tables)."""

    def __init__(self, sealed: SealedSet, columns: Sequence[str], budget: int) -> None:
        self.sealed, self.columns, self.budget = sealed, list(columns), budget
        self.held: OrderedDict[int, tuple[int, dict[str, Any]]] = OrderedDict()

    def __getitem__(self, shard: int) -> dict[str, Any]:
        if shard in self.held:
            self.held.move_to_end(shard)
            return self.held[shard][1]
        table = self.sealed.read(shard, self.columns)
        columns = {
            name: rows_of(table.column(name))
            if pa.types.is_large_list(table.schema.field(name).type)
            else table.column(name).to_pylist()
            for name in table.column_names
        }
        self.held[shard] = (table.nbytes, columns)
        while len(self.held) > 2 and sum(size for size, _ in self.held.values()) > self.budget:
            self.held.popitem(last=False)
        return columns


class Source:
    """One sealed set of features, with its text column and its sealed set of labels.

    ``features`` is its URL, ``labels`` the URL of a top-k set, joined by ``id``, else by ``parent_id``. ``text`` is a
    column of the features or the labels: ``text`` for gold, ``hypothesis`` for pseudo-labels. ``names`` is a column of
    the features: lists of words of the text.
    """

    def __init__(
        self,
        name: str,
        cache_bytes: int,
        *,
        features: str,
        labels: str | None = None,
        text: str | None = None,
        names: str | None = None,
    ) -> None:
        self.name, self.text, self.names = name, text, names
        self.sealed = open_sealed(features)
        columns = self.sealed.schema.names
        self.labels = open_sealed(labels) if labels else None
        # Pseudo-labels are in the set of the soft labels, written by the same teacher.
        self.pseudo = self.labels is not None and self.text in self.labels.schema.names and self.text not in columns
        own = [self.text] if self.text and not self.pseudo else []
        own += [self.names] if self.names else []
        for needed in ["features", "feature_frames", *own]:
            if needed not in columns:
                raise UserError(f"data.{name}: {features} has no column {needed!r}, only {columns}")
        self.settings = FeatureSettings.from_json(_metadata(self.sealed, METADATA_KEY))
        self.shards = _Shards(self.sealed, ["id", "features", "feature_frames", *own], cache_bytes)
        if self.labels is not None:
            self.made = TopKInfo.from_metadata(self.labels.schema.metadata)
            written = [self.text] if self.text and self.pseudo else []
            self.label_shards = _Shards(self.labels, [*TOPK_COLUMNS, *written], cache_bytes)
        self._index(columns)

    def _index(self, names: Sequence[str]) -> None:
        """Read ids and lengths, and find each record's label."""
        found: dict[str, tuple[int, int]] = {}
        if self.labels is not None:
            for shard in range(len(self.labels.shards)):
                for row, key in enumerate(self.labels.read(shard, ["id"]).column("id").to_pylist()):
                    found[key] = (shard, row)
        columns = ["id", "feature_frames", *(["parent_id"] if "parent_id" in names else [])]
        places, frames, labels, self.unlabelled = [], [], [], 0
        for shard in range(len(self.sealed.shards)):
            table = self.sealed.read(shard, columns)
            ids = table.column("id").to_pylist()
            parents = table.column("parent_id").to_pylist() if "parent_id" in names else [None] * len(ids)
            for row, (key, parent) in enumerate(zip(ids, parents, strict=True)):
                label = found.get(key) or found.get(parent)
                if self.labels is not None and label is None:
                    self.unlabelled += 1  # rejected by the labelling step
                    continue
                places.append((shard, row))
                labels.append(label or (-1, -1))
                frames.append(table.column("feature_frames")[row].as_py())
        if not places:
            reason = "none of its records has a label" if self.unlabelled else "it is empty"
            raise UserError(f"data.{self.name}: nothing to train on in {self.sealed.url}: {reason}")
        self.places, self.label_places = np.array(places), np.array(labels)
        self.frames = np.array(frames)

    def check(self, units: Units, settings: FeatureSettings, frame_rate: float, k: int) -> None:
        """Raise a ``UserError`` unless the features and labels match this student."""
        if self.settings != settings:
            raise UserError(f"data.{self.name}: features have settings {self.settings}, the model expects {settings}")
        if self.labels is None:
            return
        self.made.check(
            f"data.{self.name}: labels in {self.labels.url}",
            frame_rate=frame_rate,
            vocabulary=units.digest,
            k=min(k, len(units)),  # a frame has no more labels than the vocabulary
        )
        given = dict(self.made.features or {})
        if given and FeatureSettings(**given) != settings:
            raise UserError(
                f"data.{self.name}: the teacher of the labels in {self.labels.url} used feature settings {given}, "
                f"the student expects {settings}"
            )

    def batches(self, batch_frames: int, window: int, seed: int, epoch: int) -> list[np.ndarray]:
        """Return the batches of an epoch, as rows of this source, in their order.

        Shards are taken in windows, so that memory has ``window`` shards and not the set. The number of batches does
        not depend on the epoch.
        """
        rng = RecordRandom(seed, f"batches:{self.name}")
        shards = rng("windows").permutation(len(self.sealed.shards))
        groups = [shards[i : i + window] for i in range(0, len(shards), window)]
        draw = rng(f"epoch:{epoch}")
        ordered: list[np.ndarray] = []
        for group in (groups[i] for i in draw.permutation(len(groups))):
            rows = np.flatnonzero(np.isin(self.places[:, 0], group))
            rows = rows[np.argsort(self.frames[rows], kind="stable")]
            cut: list[np.ndarray] = []
            end = len(rows)
            while end > 0:  # from the longest down: a bucket's longest record is known, and sets its batch size
                size = max(1, batch_frames // max(1, int(self.frames[rows[end - 1]])))
                bucket = draw.permutation(rows[max(0, end - size * BUCKET_BATCHES) : end])
                cut.extend(np.array_split(bucket, -(-len(bucket) // size)))
                end -= len(bucket)
            ordered.extend(cut[i] for i in draw.permutation(len(cut)))
        return ordered

    def load(self, rows: np.ndarray, units: Units, output_frames: Any) -> Batch:
        """Return the tensors of rows; ``output_frames`` maps feature frames to the student's output frames."""
        import torch

        taken = [(self.shards[int(shard)], int(row)) for shard, row in self.places[rows]]
        lengths = self.frames[rows]
        features = np.zeros((len(rows), int(lengths.max()), self.settings.n_mels), np.float32)
        for into, (shard, row), count in zip(features, taken, lengths, strict=True):
            into[:count] = shard["features"][row].reshape(count, -1)
        targets = None
        texts = None
        if self.text:
            places = self._labels_of(rows) if self.pseudo else taken
            texts = [shard[self.text][row] or "" for shard, row in places]
            targets = [units.encode(text) for text in texts]
        batch = Batch(
            torch.from_numpy(features),
            torch.from_numpy(lengths.astype(np.int64)),
            targets,
            None,
            None,
            None,
            texts,
            [shard[self.names][row] or [] for shard, row in taken] if self.names else None,
        )
        if self.labels is not None:
            self._soft(batch, rows, output_frames(batch.lengths).tolist())
        return batch

    def all_names(self) -> list[str]:
        """Return all distinct names of the source, sorted."""
        if not self.names:
            return []
        found: set[str] = set()
        for shard in range(len(self.sealed.shards)):
            for names in self.sealed.read(shard, [self.names]).column(self.names).to_pylist():
                found.update(names or ())
        return sorted(found)

    def _labels_of(self, rows: np.ndarray) -> list[tuple[dict[str, Any], int]]:
        return [(self.label_shards[int(shard)], int(row)) for shard, row in self.label_places[rows]]

    def _soft(self, batch: Batch, rows: np.ndarray, frames: list[int]) -> None:
        import torch

        taken, k = self._labels_of(rows), self.made.k
        ids = np.zeros((len(rows), max(frames), k), np.int64)
        scores = np.zeros((len(rows), max(frames), k), np.float32)
        tail = np.zeros((len(rows), max(frames)), np.float32)
        for i, ((shard, row), expected) in enumerate(zip(taken, frames, strict=True)):
            label = unflatten(shard["topk_ids"][row], shard["topk_logprobs"][row], shard["tail_logmass"][row], k)
            stored = len(label.tail)
            if not stored or abs(stored - expected) > EDGE_FRAMES:
                raise UserError(
                    f"data.{self.name}: a label has {stored} frames, the student {expected} for the same utterance"
                )
            at = np.minimum(np.arange(expected), stored - 1)  # missing edge frames repeat the last one
            ids[i, :expected], scores[i, :expected], tail[i, :expected] = (part[at] for part in label)
        batch.topk_ids, batch.topk_logprobs = torch.from_numpy(ids), torch.from_numpy(scores)
        batch.tail_logmass = torch.from_numpy(tail)


def _metadata(sealed: SealedSet, key: str) -> str:
    value = (sealed.schema.metadata or {}).get(key.encode())
    if value is None:
        raise UserError(f"{sealed.url}: its schema has no {key}; expected the output of the matching stage")
    return value.decode()
