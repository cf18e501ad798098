import math
import random

import numpy as np
import pytest

from gristmill.models.measures.biasing import MEASURES, BiasingResult, score_biasing
from gristmill.models.measures.significance import paired_change, wer_interval
from gristmill.shards.errors import UserError


def counts(reference: str, hypothesis: str, rare: str = "", listed: str = "") -> dict[str, int]:
    """Return the counts of one utterance."""
    result = score_biasing([reference.split()], [hypothesis.split()], [set(rare.split())], [set(listed.split())])
    names = ("words", "errors", "rare_words", "rare_errors", "found", "missed", "inserted", "false")
    return {name: int(getattr(result, name)[0]) for name in names}


@pytest.mark.parametrize(
    ("reference", "hypothesis", "words", "errors", "rare_words", "rare_errors"),
    [
        ("call ann at noon", "call ann at noon", 4, 0, 1, 0),
        ("call ann at noon", "call an at noon", 4, 1, 1, 1),
        ("call ann at noon", "call at noon", 4, 1, 1, 1),
        ("call ann at noon", "bob ann at noon", 4, 1, 1, 0),  # the rare word of another utterance is not biased here
        ("call ann at noon", "call ann at noon bob", 4, 1, 1, 0),
        ("call ann at noon", "call ann at noon ann", 4, 1, 1, 1),  # an inserted word of its own set is biased
        ("call ann at noon", "ann ann at noon", 4, 1, 1, 0),  # but not one that stands for another
        ("ann ann ann", "ann", 3, 2, 3, 2),  # repetitions count
        ("", "ann", 0, 1, 0, 1),
        ("call ann", "", 2, 2, 1, 1),
    ],
)
def test_errors_are_of_the_words_of_the_reference_and_of_insertions_of_the_set(
    reference: str, hypothesis: str, words: int, errors: int, rare_words: int, rare_errors: int
) -> None:
    found = counts(reference, hypothesis, rare="ann", listed="ann bob")
    assert (found["words"], found["errors"]) == (words, errors)
    assert (found["rare_words"], found["rare_errors"]) == (rare_words, rare_errors)


def benchmark(reference: list[str], hypothesis: list[str], rare: set[str]) -> tuple[int, int]:
    """Errors of all words and of the rare, by the costs and the order of choices of the public scorer."""
    best: dict[tuple[int, int], tuple[int, int, tuple[int, int]]] = {(0, 0): (0, 0, (0, 0))}
    for i in range(len(reference) + 1):
        for j in range(len(hypothesis) + 1):
            ways = []
            if i and j:
                wrong = reference[i - 1] != hypothesis[j - 1]
                ways.append((i - 1, j - 1, 4 * wrong, wrong, reference[i - 1]))
            if j:
                ways.append((i, j - 1, 3, True, hypothesis[j - 1]))
            if i:
                ways.append((i - 1, j, 3, True, reference[i - 1]))
            for a, b, cost, wrong, word in ways:
                before, errors, (plain, biased) = best[a, b]
                if (i, j) not in best or before + cost < best[i, j][0]:
                    split = (plain + (wrong and word not in rare), biased + (wrong and word in rare))
                    best[i, j] = (before + cost, errors + wrong, split)
    _, errors, (_, biased) = best[len(reference), len(hypothesis)]
    return errors, biased


def test_alignments_are_those_of_the_public_scorer() -> None:
    rng = random.Random(0)
    for number in range(800):
        words = "abcdefgh"[: rng.choice((2, 3, 5, 8))]
        reference, hypothesis = ([rng.choice(words) for _ in range(rng.randint(0, 8))] for _ in range(2))
        if number % 2:
            hypothesis = [w if rng.random() < 0.7 else rng.choice(words) for w in reference if rng.random() < 0.85]
        rare = set(rng.sample(words, rng.randint(0, len(words) - 1)))
        result = score_biasing([reference], [hypothesis], [rare], [rare])
        found = (int(result.errors[0]), int(result.rare_errors[0]))
        assert found == benchmark(reference, hypothesis, rare), (reference, hypothesis, rare)
    # Six errors at NIST's costs, though five are the fewest; and of two ways through a swap the benchmark's.
    assert counts("a b c d e", "x y z a b")["errors"] == 6
    assert [counts("p q", "q p", rare=word)["rare_errors"] for word in "pq"] == [2, 0]


def test_words_are_found_missed_and_inserted_by_their_numbers() -> None:
    def heard(reference: str, hypothesis: str, listed: str) -> tuple[int, ...]:
        found = counts(reference, hypothesis, rare="ann", listed=listed)
        return tuple(found[name] for name in ("found", "missed", "inserted", "false"))

    assert heard("call ann", "ann call", "ann bob") == (1, 0, 0, 0)  # wherever it is heard
    assert heard("call ann ann", "call ann", "ann bob") == (1, 1, 0, 0)
    assert heard("call ann", "ann ann ann bob", "ann bob") == (1, 0, 3, 3)
    assert heard("call me", "call bob", "ann bob") == (0, 0, 1, 1)
    assert heard("call me", "call ann", "bob") == (0, 0, 1, 0)  # a rare word, but not the list's doing
    assert heard("call me", "call tom", "ann bob") == (0, 0, 0, 0)  # any other word
    assert heard("call ann", "call an", "") == (0, 1, 0, 0)


def made(heard: list[str], seconds: list[float] | None = None) -> BiasingResult:
    """Utterances of "call ann now", each as it was heard."""
    n = len(heard)
    hypotheses = [text.split() for text in heard]
    return score_biasing([["call", "ann", "now"]] * n, hypotheses, [{"ann"}] * n, [{"ann", "bob"}] * n, seconds=seconds)


def test_the_measures_are_ratios_of_sums() -> None:
    result = made(["call ann now", "call an now", "call bob ann now", "tall ann now"], [9.0] * 4)
    expected = {
        "wer": 3 / 12,
        "u_wer": 2 / 8,
        "b_wer": 1 / 4,
        "rare_precision": 3 / 4,
        "rare_recall": 3 / 4,
        "rare_f1": 3 / 4,
        "false_words": 25.0,
        "false_words_hour": 100.0,
    }
    assert {name: result.ratio(name).value for name in MEASURES} == pytest.approx(expected)
    assert math.isnan(made(["call ann now"]).ratio("false_words_hour").value)
    with pytest.raises(UserError, match="measure 'f1' is unknown; expected one of wer, u_wer"):
        result.ratio("f1")


def test_intervals_and_paired_changes_of_ratios_whose_denominators_differ() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.random(300)
    base = made(["call ann now" if u < 0.5 else "call an now" for u in drawn])
    better = made(["call ann now" if u < 0.8 else "call bob ann now" if u < 0.9 else "call an now" for u in drawn])
    for result in (base, better):
        precision, recall, f1 = (result.ratio(f"rare_{name}").value for name in ("precision", "recall", "f1"))
        assert f1 == pytest.approx(2 * precision * recall / (precision + recall))
        interval = wer_interval({0: result.ratio("rare_f1")})
        assert interval.value == pytest.approx(f1)
        assert interval.low < f1 < interval.high
    change = paired_change({0: better.ratio("rare_f1")}, {0: base.ratio("rare_f1")})
    ratio = better.ratio("rare_f1").value / base.ratio("rare_f1").value
    assert change.relative is not None
    assert change.relative.value == pytest.approx(ratio - 1)
    assert 0 < change.relative.low < change.relative.value < change.relative.high
    assert change.p < 0.01
    both = wer_interval({0: base.ratio("rare_f1"), 1: better.ratio("rare_f1")})
    assert both.value == pytest.approx((base.ratio("rare_f1").value + better.ratio("rare_f1").value) / 2)


def test_what_cannot_be_divided_has_no_interval() -> None:
    deaf = made(["call now"] * 20)
    assert deaf.ratio("rare_f1").value == 0.0
    found = wer_interval({0: deaf.ratio("rare_precision")})
    assert all(map(math.isnan, (found.value, found.low, found.high)))


def test_arguments_of_other_lengths_are_told() -> None:
    with pytest.raises(UserError, match="biasing: 2 references, 1 lists; expected one for each reference"):
        score_biasing([["a"], ["b"]], [["a"], ["b"]], [set(), set()], [set()])
    assert len(score_biasing([], [], [], [])) == 0
