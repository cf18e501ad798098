"""Pairs of text for a translator's training: in memory, as unit numbers, in batches of similar length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gristmill.models.normalise import normalise
from gristmill.models.text.placeholders import MARKS, Catalogue, protect_pair
from gristmill.models.text.translator_units import TranslatorUnits
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError

COLUMNS = ("id", "source", "target", "source_lang", "target_lang")


@dataclass(frozen=True)
class Texts:
    """Pairs as text; ``weight`` is the number of times that each occurs in an epoch."""

    ids: list[str]
    source: list[str]
    target: list[str]
    weight: np.ndarray
    target_lang: str

    def protected(self, catalogue: Catalogue) -> Texts:
        """Return the pairs with marks for the values that both sides share."""
        made = [
            # The first mark is drawn by id, so that all marks are trained although most texts have only one.
            protect_pair(normalise(source), normalise(target), self.target_lang, catalogue, _drawn(name))
            for name, source, target in zip(self.ids, self.source, self.target, strict=True)
        ]
        return replace(self, source=[one for one, _ in made], target=[other for _, other in made])


def read_pairs(
    urls: Sequence[str], source_lang: str, target_lang: str, weights: Sequence[float] | None = None
) -> Texts:
    """Read sealed sets of pairs.

    Raises:
        UserError: columns are missing, a pair has other languages, or there are no pairs.
    """
    ids: list[str] = []
    source: list[str] = []
    target: list[str] = []
    counts = []
    for url in urls:
        sealed = open_sealed(url)
        missing = [name for name in COLUMNS if name not in sealed.schema.names]
        if missing:
            raise UserError(f"{url}: pairs without {', '.join(missing)}; expected {', '.join(COLUMNS)}")
        before = len(ids)
        for table in sealed.tables(COLUMNS):
            langs = set(zip(table["source_lang"].to_pylist(), table["target_lang"].to_pylist(), strict=True))
            others = langs - {(source_lang, target_lang)}
            if others:
                raise UserError(
                    f"{url}: pairs of {sorted(map(str, others))}; expected {source_lang!r} and {target_lang!r}"
                )
            rows = zip(*(table[name].to_pylist() for name in COLUMNS[:3]), strict=True)
            for name, one, other in rows:
                if one and other:
                    ids.append(name)
                    source.append(one)
                    target.append(other)
        counts.append(len(ids) - before)
    if not ids:
        raise UserError(f"{', '.join(urls)}: there are no pairs of texts; expected at least one to train on")
    weight = np.repeat(np.asarray(weights if weights is not None else [1.0] * len(urls), np.float64), counts)
    return Texts(ids, source, target, weight, target_lang)


@dataclass(frozen=True)
class Pairs:
    """Pairs as unit numbers, each side with its end."""

    ids: list[str]
    source: list[np.ndarray]
    target: list[np.ndarray]
    weight: np.ndarray
    too_long: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, units: int, draw: np.random.Generator | None = None) -> list[np.ndarray]:
        """Return the rows of each batch of at most ``units`` units on the longer side, padding included.

        With a generator, rows occur as often as their weights (fractions are drawn), and batches are in random order.
        """
        rows = np.arange(len(self))
        if draw is not None:
            whole = np.floor(self.weight)
            rows = np.repeat(rows, (whole + (draw.random(len(rows)) < self.weight - whole)).astype(int))
        lengths = np.array([(len(t), len(s)) for s, t in zip(self.source, self.target, strict=True)]).reshape(-1, 2)
        ties = draw.random(len(rows)) if draw is not None else rows
        rows = rows[np.lexsort((ties, lengths[rows, 1], lengths[rows, 0]))]
        made: list[np.ndarray] = []
        start = longest = 0
        for place, longer in enumerate(lengths[rows].max(1, initial=0)):
            if place > start and max(longest, longer) * (place + 1 - start) > units:
                made.append(rows[start:place])
                start, longest = place, 0
            longest = max(longest, int(longer))
        if start < len(rows):
            made.append(rows[start:])
        if draw is not None:
            made = [made[place] for place in draw.permutation(len(made))]
        return made

    def padded(self, rows: np.ndarray, pad: int) -> tuple[Tensor, Tensor]:
        """Return source and target units of rows, each (rows, longest), padded at the end."""
        return _padded([self.source[row] for row in rows], pad), _padded([self.target[row] for row in rows], pad)


def encode(texts: Texts, units: TranslatorUnits, catalogue: Catalogue, most: int) -> Pairs:
    """Return pairs as unit numbers; those with more than ``most`` units on a side are left out and counted."""
    if units.placeholders:
        texts = texts.protected(catalogue)
    source = [np.array(units.source_ids(text), np.int64) for text in texts.source]
    target = [np.array(units.target_ids(text), np.int64) for text in texts.target]
    kept = [n for n, (one, other) in enumerate(zip(source, target, strict=True)) if max(len(one), len(other)) <= most]
    if not kept:
        raise UserError(
            f"translator training: each of {len(source)} pairs has more than {most} units; raise most_units"
        )

    def take(values: Sequence) -> list:
        return [values[n] for n in kept]

    return Pairs(take(texts.ids), take(source), take(target), texts.weight[kept], len(source) - len(kept))


def _padded(rows: Iterable[np.ndarray], pad: int) -> Tensor:
    rows = list(rows)
    out = np.full((len(rows), max(map(len, rows))), pad, np.int64)
    for place, row in enumerate(rows):
        out[place, : len(row)] = row
    return torch.from_numpy(out)


def _drawn(name: str) -> int:
    return hashlib.blake2b(name.encode(), digest_size=4).digest()[0] % len(MARKS)
