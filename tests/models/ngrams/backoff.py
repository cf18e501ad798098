"""Back-off models made up at random, and their scores by the definition: slow, and without the code that is tested."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gristmill.models.ngrams.arpa import BOS, EOS, UNK, Arpa, Grams

Listed = dict[tuple[str, ...], tuple[np.float32, np.float32]]  # n-gram: log-probability and back-off, base 10


def made_up(seed: int, order: int, words: int = 12, share: float = 0.4) -> Arpa:
    """Return a model that is none of any text: suffixes of its n-grams may be missing, contexts are not."""
    draw = np.random.default_rng(seed)
    names = [UNK, BOS, EOS, *(f"w{n}" if n % 3 else f"शब्द{n}" for n in range(words))]
    names = [names[place] for place in draw.permutation(len(names))]
    longest = [(place,) for place in range(len(names))]
    orders = []
    for size in range(1, order + 1):
        if size > 1:
            longest = [
                (*context, int(word))
                for context in longest
                if names[context[-1]] != EOS
                for word in draw.permutation(len(names))[: draw.integers(0, int(share * len(names)) + 1)]
                if names[word] != BOS
            ]
            longest = [longest[place] for place in draw.permutation(len(longest))]
        values = -draw.gamma(2.0, 1.0, len(longest)).round(int(draw.integers(1, 7)))
        backoff = draw.normal(-0.3, 0.4, len(longest)) * (draw.random(len(longest)) < 0.7)
        given = np.array(longest, np.uint32).reshape(-1, size)
        highest = size == order
        orders.append(Grams(given, values.astype(np.float32), None if highest else backoff.astype(np.float32)))
    return Arpa(names, orders)


def listed(model: Arpa) -> Listed:
    found = {}
    for grams in model.orders:
        backoffs = grams.backoff if grams.backoff is not None else np.zeros(len(grams), np.float32)
        for words, logprob, backoff in zip(grams.words, grams.logprob, backoffs, strict=True):
            found[tuple(model.words[word] for word in words)] = (logprob, backoff)
    return found


def score(model: Listed, history: Sequence[str], word: str, order: int) -> np.float32:
    """Return the score of a word: the longest listed n-gram's, and the back-offs from the shortest context on."""
    context = tuple(history)[len(history) - min(order - 1, len(history)) :]
    passed = []
    while (*context, word) not in model:
        passed.append(model.get(context, (0, np.float32(0)))[1])
        context = context[1:]
    found = model[*context, word][0]
    for backoff in reversed(passed):
        found = np.float32(found + backoff)
    return found
