"""Interpolated modified Kneser-Ney n-gram models, estimated as by lmplz, from all text at once or in parts.

Chen and Goodman, An Empirical Study of Smoothing Techniques for Language Modeling, 1998, in the form of Heafield et
al., Scalable Modified Kneser-Ney Language Model Estimation, ACL 2013; where the papers leave a choice, lmplz's source
decides. Sums over text are of integers and everything else is computed per n-gram, so the result does not depend on how
the n-grams are partitioned. A part holds the n-grams whose last two words' code is in a range, and with an n-gram all
its suffixes, from which its count and the lower orders come. Sums over the continuations of a context belong to the
part that holds the context.

There are two differences to lmplz. Every word of the vocabulary is listed, an unseen one with the probability of
``<unk>``, which equals lmplz with ``--vocab_pad`` except for the list. And lmplz uses the actual instead of the
adjusted count of the last n-gram of each order for the discounts, which matters only for tiny text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from gristmill.models.ngrams.arpa import Arpa, Grams, packed
from gristmill.models.ngrams.counts import (
    BOS_ID,
    ORDERS,
    Counts,
    Vocabulary,
    count,
    pair_code,
    part_of,
)
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings

FALLBACK = (0.5, 1.0, 1.5)  # discounts where there is too little text to estimate them, as lmplz --discount_fallback
_COUNTED = 4  # counts of counts that the discounts are computed from
SUMS = 5  # of a context: its n-grams' counts, the pruned counts, and the numbers of n-grams with count 1, 2 and more


class NgramSettings(Settings):
    """Settings of a model's estimation.

    Example:
        >>> NgramSettings(order=4, prune=(0, 0, 1)).thresholds
        (0, 0, 1, 1)
    """

    order: int = Field(4, ge=ORDERS[0], le=ORDERS[-1])
    """Words of the longest n-grams."""
    prune: tuple[int, ...] = (0,)
    """Pruning thresholds by order: n-grams with that count or less are left out. The last one applies to higher
    orders."""

    @model_validator(mode="after")
    def _as_lmplz(self) -> Self:
        given = list(self.prune) or [0]
        if given[0] != 0 or len(given) > self.order or given != sorted(given):
            raise ValueError(
                f"prune is {given}; expected at most {self.order} counts that do not decrease, the first 0 "
                "(n-grams with that count or less are left out)"
            )
        return self

    @property
    def thresholds(self) -> tuple[int, ...]:
        """The pruning threshold of each order."""
        given = self.prune or (0,)
        return (*given, *[given[-1]] * (self.order - len(given)))


@dataclass(frozen=True)
class Level:
    """The n-grams of one order in a part, sorted as :class:`~gristmill.models.ngrams.counts.Counts` are.

    ``counts`` are adjusted: the number of distinct words seen before the n-gram, or its frequency if it is of the
    highest order or begins a sentence. ``kept`` marks those that the model will list. ``suffix`` is the row of the
    n-gram without its first word in the level below; for bigrams, the number of the last word.
    """

    words: np.ndarray
    counts: np.ndarray
    kept: np.ndarray
    suffix: np.ndarray

    def __len__(self) -> int:
        return len(self.words)

    @property
    def keys(self) -> np.ndarray:
        """Sorted keys: the code for bigrams, else the row of the suffix and the first word."""
        if self.words.shape[1] == 2:
            return pair_code(self.words[:, 0], self.words[:, 1])
        return packed(self.suffix, self.words[:, 0])


@dataclass(frozen=True)
class Summary:
    """A part's statistics for the totals, of bounded size: by order, by word, and by context of one word.

    ``seen`` is (order, 4): the number of n-grams of each order with counts 1 to 4. ``ends`` and ``end_counts`` are
    words and their adjusted counts as unigrams; ``contexts`` are words and ``sums`` (contexts, 5) the sums over their
    continuations.
    """

    seen: np.ndarray
    ends: np.ndarray
    end_counts: np.ndarray
    contexts: np.ndarray
    sums: np.ndarray


@dataclass(frozen=True)
class Totals:
    """Statistics of all parts, which each part needs to compute probabilities.

    ``discounts`` is (order, 4), for counts of 0, 1, 2, and 3 or more. Indexed by word number: ``probability`` as a
    unigram and, as a context, ``denominator`` (the sum of the counts) and ``gamma`` (the back-off).
    """

    discounts: np.ndarray
    probability: np.ndarray
    denominator: np.ndarray
    gamma: np.ndarray


def estimate(
    sentences: Iterable[Sequence[str]],
    settings: NgramSettings | None = None,
    vocabulary: Iterable[str] | None = None,
) -> Arpa:
    """Estimate a model of sentences, each a sequence of words.

    A given ``vocabulary`` is closed: models over one vocabulary can be compared and mixed. N-grams with an
    out-of-vocabulary word are left out, and their mass goes to the back-off, as by lmplz with ``--limit_vocab_file``.

    Raises:
        UserError: there is no sentence.

    Example:
        >>> model = estimate([["turn", "on"], ["turn", "off"], ["turn", "on"]], NgramSettings(order=2))
        >>> list(model.words), [len(grams) for grams in model.orders]
        (['<unk>', '<s>', '</s>', 'off', 'on', 'turn'], [6, 5])
        >>> model.to_bytes().splitlines()[1:3]
        [b'ngram 1=6', b'ngram 2=5']
    """
    settings = settings or NgramSettings()
    given = [list(sentence) for sentence in sentences]
    words = Vocabulary((word for sentence in given for word in sentence) if vocabulary is None else vocabulary)
    return estimate_counts(count(*words.encode_sentences(given), settings.order), words, settings)


def estimate_counts(counts: Counts, vocabulary: Vocabulary, settings: NgramSettings) -> Arpa:
    """Estimate a model from all counts at once, which have the settings' order; see :func:`estimate`."""
    levels = adjust(counts, settings.thresholds, vocabulary.first_unknown)
    totals = total([summary(levels, vocabulary.first_unknown)], vocabulary, settings.order)
    return Arpa(vocabulary.names, [unigrams(totals), *finished(levels, totals, vocabulary.first_unknown)])


def adjust(counts: Counts, prune: Sequence[int], first_unknown: int) -> list[Level]:
    """Return the levels of a part, bigrams first, from its counts of the highest order."""
    grams, order = counts.grams, counts.grams.shape[1]
    new = _changes(counts)
    known = grams < first_unknown
    levels: list[Level] = []
    below = np.zeros(len(grams), np.int64)
    for size in range(2, order + 1):
        starts = np.flatnonzero(new[size - 2])
        if not len(starts):
            empty = np.zeros(0, np.int64)
            levels.append(Level(grams[:, order - size :], empty, empty.astype(bool), empty))
            continue
        actual = np.add.reduceat(counts.counts, starts)
        # Sentences begin with one <s>; the padding before it is no part of the model.
        valid = (grams[starts, order - size + 1] != BOS_ID) if size > 2 else np.ones(len(starts), bool)
        adjusted = actual
        if size < order:
            adjusted = np.add.reduceat(new[size - 1].astype(np.int64), starts)
            adjusted = np.where(grams[starts, order - size] == BOS_ID, actual, adjusted)
        starts, actual, adjusted = starts[valid], actual[valid], adjusted[valid]
        words = np.ascontiguousarray(grams[starts, order - size :])
        kept = (actual > prune[size - 1]) & known[starts, order - size :].all(axis=1)
        suffix = words[:, 1].astype(np.int64) if size == 2 else below[starts]
        levels.append(Level(words, adjusted, kept, suffix))
        mark = np.zeros(len(grams), np.int64)
        mark[starts] = 1
        below = np.cumsum(mark) - 1
    return levels


def _changes(counts: Counts) -> list[np.ndarray]:
    """Return, for each order from 2, the rows at which a new suffix of that many words begins."""
    grams, order = counts.grams, counts.grams.shape[1]
    change = np.ones(len(grams), bool)
    change[1:] = (grams[1:, -2:] != grams[:-1, -2:]).any(axis=1)
    found = [change]
    for place in reversed(range(order - 2)):
        change = change.copy()
        change[1:] |= grams[1:, place] != grams[:-1, place]
        found.append(change)
    return found


def summary(levels: Sequence[Level], first_unknown: int) -> Summary:
    """Return the statistics of a part."""
    seen = np.zeros((len(levels) + 1, _COUNTED), np.int64)
    for place, level in enumerate(levels, start=1):
        seen[place] = np.bincount(level.counts[level.counts <= _COUNTED], minlength=_COUNTED + 1)[1:]
    bigrams = levels[0]
    ends, end_counts = np.unique(bigrams.words[:, 1], return_counts=True)
    ours = bigrams.words[:, 0] < first_unknown
    contexts, row = np.unique(bigrams.words[ours, 0], return_inverse=True)
    sums = context_sums(row, bigrams.counts[ours], bigrams.kept[ours], len(contexts))
    return Summary(seen, ends, end_counts, contexts, sums)


def context_sums(row: np.ndarray, counts: np.ndarray, kept: np.ndarray, rows: int) -> np.ndarray:
    """Return (rows, 5) sums of n-grams over the rows of their contexts; see ``SUMS``."""
    sums = np.zeros((rows, SUMS), np.int64)
    # bincount sums floats, which are exact up to 2^53.
    sums[:, 0] = np.bincount(row, counts, rows)
    sums[:, 1] = np.bincount(row, np.where(kept, 0, counts), rows)
    high = np.minimum(counts, 3)
    for value in (1, 2, 3):
        sums[:, 1 + value] = np.bincount(row[kept & (high == value)], minlength=rows)
    return sums


def total(summaries: Iterable[Summary], vocabulary: Vocabulary, order: int) -> Totals:
    """Combine the statistics of all parts.

    Raises:
        UserError: the parts have no n-gram.
    """
    seen = np.zeros((order, _COUNTED), np.int64)
    known = vocabulary.first_unknown
    sums = np.zeros((known, SUMS), np.int64)
    ends, end_counts = np.zeros(0, np.uint32), np.zeros(0, np.int64)
    for part in summaries:
        seen += part.seen
        sums[part.contexts] += part.sums
        ends, row = np.unique(np.concatenate([ends, part.ends]), return_inverse=True)
        end_counts = np.bincount(row, np.concatenate([end_counts, part.end_counts]), len(ends)).astype(np.int64)
    if not len(ends):
        raise UserError("n-gram model: the text is empty; expected at least one sentence")
    seen[0] = np.bincount(end_counts[end_counts <= _COUNTED], minlength=_COUNTED + 1)[1:]
    discounts = np.array([_discounts(row) for row in seen])
    kept = ends < known
    whole = context_sums(np.zeros(len(ends), np.int64), end_counts, kept, 1)
    probability = np.full(known, float(gammas(whole, discounts[0])[0]) / vocabulary.size)
    probability[ends[kept]] += _discounted(end_counts[kept], discounts[0]) / whole[0, 0]
    probability[BOS_ID] = 1.0  # it can be scored, at no cost
    return Totals(discounts, probability, sums[:, 0], gammas(sums, discounts[1]))


def _discounts(seen: np.ndarray) -> np.ndarray:
    """Return the discounts of counts of 0, 1, 2, and 3 or more: Chen and Goodman's equation 26."""
    if (seen[:3] > 0).all():
        y = seen[0] / (seen[0] + 2.0 * seen[1])
        found = np.array([j - (j + 1) * y * seen[j] / seen[j - 1] for j in (1, 2, 3)])
        if (found >= 0).all() and (found <= (1, 2, 3)).all():
            return np.array([0.0, *found])
    return np.array([0.0, *FALLBACK])


def _discounted(counts: np.ndarray, discounts: np.ndarray) -> np.ndarray:
    return counts - discounts[np.minimum(counts, 3)]


def gammas(sums: np.ndarray, discounts: np.ndarray) -> np.ndarray:
    """Return the mass that contexts leave to the order below, discounted and pruned; 1 for contexts without n-grams."""
    free = sums[:, 1] + sums[:, 2] * discounts[1] + sums[:, 3] * discounts[2] + sums[:, 4] * discounts[3]
    return np.where(sums[:, 0] > 0, free / np.maximum(sums[:, 0], 1), 1.0)


def finished(levels: Sequence[Level], totals: Totals, first_unknown: int) -> list[Grams]:
    """Return the n-grams of a model that is estimated in one part."""
    contexts, backoffs = [], []
    for size in range(3, len(levels) + 2):
        asked = requests(levels[size - 2], first_unknown)
        row = locate(levels, asked.words[:, :-1])
        sums = context_sums(row, asked.counts, asked.kept, len(levels[size - 3]))
        backoffs.append(gammas(sums, totals.discounts[size - 1]))
        contexts.append((sums[row, 0], backoffs[-1][row]))
    return interpolate(levels, contexts, backoffs, totals, first_unknown)


def requests(level: Level, first_unknown: int) -> Level:
    """Return the n-grams of a level (trigrams or higher) whose context a model may list, sorted by the context's part.

    Contexts are summed over these n-grams, and the sums are returned for the same rows in the same order.
    """
    chosen = asking(level, first_unknown)
    return Level(level.words[chosen], level.counts[chosen], level.kept[chosen], level.suffix[chosen])


def asking(level: Level, first_unknown: int) -> np.ndarray:
    """Return the rows of a level in the order of :func:`requests`."""
    known = np.flatnonzero((level.words[:, :-1] < first_unknown).all(axis=1))
    codes = pair_code(level.words[known, -3], level.words[known, -2])
    return known[np.argsort(codes, kind="stable")]


def bounds(asked: Level, parts: int) -> np.ndarray:
    """Return the offsets (parts + 1,) at which the requests to each part begin."""
    owner = part_of(pair_code(asked.words[:, -3], asked.words[:, -2]), parts)
    return np.searchsorted(owner, np.arange(parts + 1))


def locate(levels: Sequence[Level], words: np.ndarray) -> np.ndarray:
    """Return the rows of n-grams (n-grams, order) in the level of their order; all must be present."""
    size = words.shape[1]
    row = np.searchsorted(levels[0].keys, pair_code(words[:, -2], words[:, -1]))
    for longer in range(3, size + 1):
        row = np.searchsorted(levels[longer - 2].keys, packed(row, words[:, size - longer]))
    return row


def interpolate(
    levels: Sequence[Level],
    contexts: Sequence[tuple[np.ndarray, np.ndarray]],
    backoffs: Sequence[np.ndarray],
    totals: Totals,
    first_unknown: int,
) -> list[Grams]:
    """Return the n-grams of a part that the model lists, bigrams first.

    ``contexts`` holds, for trigrams and higher, the denominators and gammas for the rows of :func:`requests`, in their
    order; ``backoffs``, for bigrams and higher except the highest order, the gammas of the n-grams themselves.
    """
    below = totals.probability
    found = []
    for place, level in enumerate(levels):
        discounts = totals.discounts[place + 1]
        if place == 0:
            # An out-of-vocabulary context is never listed; any word may stand in for it.
            context = np.where(level.words[:, 0] < first_unknown, level.words[:, 0], 0)
            lower = below[np.where(level.suffix < first_unknown, level.suffix, 0)]
            denominator, gamma = totals.denominator[context], totals.gamma[context]
        else:
            lower = below[level.suffix]
            chosen = asking(level, first_unknown)
            denominator, gamma = np.ones(len(level)), np.ones(len(level))
            denominator[chosen], gamma[chosen] = contexts[place - 1]
        below = _discounted(level.counts, discounts) / np.maximum(denominator, 1) + gamma * lower
        backoff = _log10(backoffs[place][level.kept]) if place < len(levels) - 1 else None
        found.append(Grams(level.words[level.kept], np.minimum(_log10(below[level.kept]), np.float32(0)), backoff))
    return found


def unigrams(totals: Totals) -> Grams:
    """Return the unigrams: every word of the vocabulary."""
    words = np.arange(len(totals.probability), dtype=np.uint32)[:, None]
    return Grams(words, np.minimum(_log10(totals.probability), np.float32(0)), _log10(totals.gamma))


def _log10(values: np.ndarray) -> np.ndarray:
    return np.log10(np.maximum(values, 1e-99)).astype(np.float32)
