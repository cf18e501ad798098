"""Signatures estimate the similarity of texts."""

from __future__ import annotations

import numpy as np

from gristmill.models.minhash import bands, signatures, similarity


def jaccard(one: str, other: str) -> float:
    sets = [{f" {text} "[n : n + 4] for n in range(len(text) - 1)} for text in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_similarity_is_near_the_jaccard_similarity() -> None:
    rng = np.random.default_rng(0)
    words = ["".join(chr(97 + n) for n in rng.integers(0, 26, 5)) for _ in range(60)]
    errors = []
    for changed in range(0, 40, 2):
        one = [*words[:40]]
        other = [*words[:40]]
        other[:changed] = words[40:60] * 2 if changed == 40 else (words[40:60] * 2)[:changed]
        texts = [" ".join(one), " ".join(other)]
        found = signatures(texts)
        errors.append(float(similarity(found[:1], found[1:])[0]) - jaccard(*texts))
    assert abs(np.mean(errors)) < 0.05
    assert max(map(abs, errors)) < 0.25


def test_a_signature_depends_only_on_its_text() -> None:
    texts = ["", "a", "लाइट चालू करो", "turn on the light", "turn on the light"]
    whole = signatures(texts)
    assert whole.dtype == np.uint16
    for row, text in enumerate(texts):
        assert np.array_equal(signatures([text])[0], whole[row])
    assert np.array_equal(bands(whole)[3], bands(whole)[4])
    assert not np.intersect1d(bands(whole)[2], bands(whole)[3]).size
    assert len({*bands(whole)[3].tolist()}) == 8
    assert signatures([]).shape == (0, 64)
