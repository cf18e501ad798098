"""Modified Kneser-Ney as in the paper, in plain dictionaries: slow, and independent of the tested implementation."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from gristmill.models.ngrams.arpa import BOS, EOS, UNK, Arpa

Table = dict[tuple[str, ...], tuple[float, float]]  # n-gram: probability and back-off, both base 10


def table(model: Arpa) -> Table:
    found: Table = {}
    for grams in model.orders:
        backoffs = grams.backoff if grams.backoff is not None else np.zeros(len(grams))
        for row, words in enumerate(grams.words):
            found[tuple(model.words[place] for place in words)] = (float(grams.logprob[row]), float(backoffs[row]))
    return found


def logprob(model: Table, words: tuple[str, ...]) -> float:
    """Return a back-off model's log-probability (base 10) of the last word after those before it."""
    if words in model:
        return model[words][0]
    if len(words) == 1:
        return model[UNK,][0]
    return model.get(words[:-1], (0.0, 0.0))[1] + logprob(model, words[1:])


def mass(model: Table, context: tuple[str, ...], vocabulary: Sequence[str]) -> float:
    """Return the sum of probabilities over all words after a context; 1 in a proper model."""
    return sum(10 ** logprob(model, (*context, word)) for word in (*vocabulary, UNK, EOS))


def reference(sentences: Sequence[Sequence[str]], order: int, vocabulary: Sequence[str], prune: Sequence[int]) -> Table:
    raw: list[Counter[tuple[str, ...]]] = [Counter() for _ in range(order + 1)]
    before: list[dict[tuple[str, ...], set[str]]] = [defaultdict(set) for _ in range(order + 1)]
    for sentence in sentences:
        words = [BOS, *sentence, EOS]
        for end in range(1, len(words)):
            for size in range(1, order + 1):
                if end - size + 1 < 0:
                    break
                gram = tuple(words[end - size + 1 : end + 1])
                raw[size][gram] += 1
                if end - size >= 0:
                    before[size][gram].add(words[end - size])
    counts: list[dict[tuple[str, ...], int]] = [{}]
    for size in range(1, order + 1):
        whole = size == order
        counts.append({g: n if whole or g[0] == BOS else len(before[size][g]) for g, n in raw[size].items()})
    listed = {*vocabulary, BOS, EOS}
    kept = [
        {g for g, n in raw[size].items() if (size == 1 or n > prune[size - 1]) and listed.issuperset(g)}
        for size in range(1, order + 1)
    ]
    lower = {(): 1 / (len(set(vocabulary)) + 2)}
    chance = dict(lower)
    gamma: dict[tuple[str, ...], float] = {}
    for size in range(1, order + 1):
        discounts = _discounts(counts[size])
        following: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
        for gram in counts[size]:
            following[gram[:-1]].append(gram)
        for context, grams in following.items():
            total = sum(counts[size][g] for g in grams)
            left = sum(discounts[min(counts[size][g], 3)] if g in kept[size - 1] else counts[size][g] for g in grams)
            gamma[context] = left / total
            for gram in grams:
                own = counts[size][gram]
                if gram in kept[size - 1]:
                    base = chance[gram[1:]] if size > 1 else chance[()]
                    chance[gram] = (own - discounts[min(own, 3)]) / total + gamma[context] * base
        if size == 1:
            for word in (*vocabulary, UNK):
                chance.setdefault((word,), gamma[()] * chance[()])
            chance[(BOS,)] = 1.0
    return {
        g: (math.log10(p), math.log10(gamma[g]) if g in gamma and len(g) < order else 0.0)
        for g, p in chance.items()
        if g
    }


def _discounts(counts: dict[tuple[str, ...], int]) -> list[float]:
    n = Counter(counts.values())
    if n[1] and n[2] and n[3]:
        y = n[1] / (n[1] + 2 * n[2])
        found = [j - (j + 1) * y * n[j + 1] / n[j] for j in (1, 2, 3)]
        if all(0 <= one <= j for j, one in enumerate(found, start=1)):
            return [0.0, *found]
    return [0.0, 0.5, 1.0, 1.5]


def sample(seed: int, sentences: int = 400, words: int = 30) -> list[list[str]]:
    """Return repetitive sentences, like speech: the next word mostly depends on the last."""
    draw = np.random.default_rng(seed)
    likely = draw.integers(0, words, (words, 3))
    made = []
    for _ in range(sentences):
        word, sentence = int(draw.integers(words)), []
        for _ in range(int(draw.integers(0, 9))):
            sentence.append(f"w{word}" if word % 5 else f"दो{word}")
            word = int(likely[word, draw.integers(3)]) if draw.random() < 0.8 else int(draw.zipf(1.5)) % words
        made.append(sentence)
    return made
