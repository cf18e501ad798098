"""Phone distances against the best of all paths."""

import itertools
import math

import numpy as np
import pytest

from gristmill.models.speech.decode import collapse
from gristmill.models.speech.decoder import Decoded
from gristmill.models.speech.pronunciations import Pronunciations
from gristmill.models.speech.rescoring import PhoneRescorer, RescoringSettings
from gristmill.models.speech.units import characters, phonemes
from gristmill.shards.errors import UserError

WORDS = {"ab": ["a b", "b"], "a": ["a"], "ba": ["b a", "a"], "aa": ["a a"]}
TEXTS = [["ab"], ["a", "ba"], ["a", "a"], ["ab", "a"], [], ["ba", "ab"], ["aa"], ["a"], ["ab", "ba"], ["aa", "b" * 9]]


def draw(frames, vocab, seed, sharp=2.0):
    logits = np.random.default_rng(seed).normal(size=(frames, vocab)) * sharp
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def splits(path, parts):
    """Yield the ways to cut a path into so many parts, any of them empty."""
    if parts == 1:
        yield (path,)
        return
    for place in range(len(path) + 1):
        for rest in splits(path[place:], parts - 1):
            yield (path[:place], *rest)


def says(path, words, boundary, pronounced):
    """Return whether a path of units is quiet, the first word, quiet, the next word and so on."""
    if boundary is None:
        spelled = itertools.product(*(pronounced[word] for word in words))
        return tuple(collapse(np.array(path))) in {sum(ways, ()) for ways in spelled}
    for parts in splits(path, 2 * len(words) + 1):
        gaps, inner = parts[::2], parts[1::2]
        if any(unit not in (0, boundary) for gap in gaps for unit in gap):
            continue
        if any(not part or part[0] in (0, boundary) or part[-1] in (0, boundary) for part in inner):
            continue
        joined = zip(inner, gaps[1:-1], inner[1:], strict=False)
        if any(not gap and one[-1] == other[0] for one, gap, other in joined):
            continue
        if all(tuple(collapse(np.array(part))) in pronounced[word] for part, word in zip(inner, words, strict=True)):
            return True
    return False


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tokens", [["a", "b"], ["a", "b", "<wb>"]])
def test_distances_are_those_of_the_best_of_all_paths(seed, tokens):
    units = phonemes(tokens)
    pronounced = Pronunciations(WORDS, units)
    texts = [text for text in TEXTS if all(word in WORDS for word in text)]
    log_probs = draw(5, len(units), seed)
    best = dict.fromkeys(range(len(texts)), -math.inf)
    for path in itertools.product(range(len(units)), repeat=5):
        score = sum(log_probs[frame, unit] for frame, unit in enumerate(path))
        for place, text in enumerate(texts):
            if score > best[place] and says(path, text, pronounced.boundary, pronounced):
                best[place] = score
    free = log_probs.max(axis=1).sum()
    found = PhoneRescorer(pronounced).distances(texts, log_probs)
    assert found == pytest.approx([free - best[place] for place in range(len(texts))])


def test_texts_do_not_depend_on_the_others_of_their_list():
    rescorer = PhoneRescorer(Pronunciations(WORDS, phonemes(["a", "b", "<wb>"])))
    log_probs = draw(9, 4, 5)
    alone = [rescorer.distances([text], log_probs)[0] for text in TEXTS]
    assert rescorer.distances(TEXTS, log_probs).tolist() == alone
    assert rescorer.distances(TEXTS[::-1], log_probs).tolist() == alone[::-1]


def heard(path, vocab):
    return np.log(np.full((len(path), vocab), 0.01) + 0.95 * np.eye(vocab)[path])


def test_a_word_without_pronunciation_costs_a_price_for_each_phone_that_is_heard():
    units = phonemes(["a", "b", "c", "<wb>"])
    rescorer = PhoneRescorer(Pronunciations({"ab": ["a b"]}, units), RescoringSettings(unknown=0.7))
    said = heard([1, 2, 4, 0, 3, 3, 0, 3, 2, 0, 4, 1, 2], 5)  # a b | c c b | a b
    found = rescorer.distances([["ab", "what", "ab"], ["ab", "ab"], ["what"], ["ab", "what", "what", "ab"]], said)
    assert found[0] == pytest.approx(3 * 0.7)
    assert found[1] > 10
    assert found[2] == pytest.approx(7 * 0.7)
    assert found[3] == pytest.approx(3 * 0.7)
    quiet = rescorer.distances([["ab", "what", "ab"]], heard([1, 2, 4, 0, 4, 1, 2], 5))
    assert quiet[0] == pytest.approx(0.7)


def test_a_list_is_ordered_by_scores_less_the_weighted_distances():
    units = phonemes(["a", "b"])
    log_probs = heard([1, 0, 2], 3)
    given = [Decoded("ba", (), (2,), -1.0, 0.5), Decoded("ab", (), (1,), -4.0, 0.2), Decoded("a", (), (1,), -5.0, 0.1)]
    pronounced = Pronunciations(WORDS, units)
    far = PhoneRescorer(pronounced).distances([["ba"], ["ab"], ["a"]], log_probs)
    ranked = PhoneRescorer(pronounced, RescoringSettings(weight=2.0)).rescored(given, log_probs)
    assert [one.text for one in ranked] == ["ab", "ba", "a"]
    assert [one.score for one in ranked] == pytest.approx([-4.0, -1.0 - 2 * far[0], -5.0 - 2 * far[2]])
    assert sum(one.share for one in ranked) == pytest.approx(0.8)
    assert ranked[0].share / ranked[1].share == pytest.approx(math.exp(ranked[0].score - ranked[1].score))
    assert ranked[0].units == (1,)
    same = PhoneRescorer(pronounced, RescoringSettings(weight=0.0)).rescored(given, log_probs)
    assert [one.score for one in same] == [-1.0, -4.0, -5.0]
    assert PhoneRescorer(pronounced).rescored([], log_probs) == []


def test_what_cannot_be_spoken_in_the_frames_is_last_and_no_share_is_lost():
    rescorer = PhoneRescorer(Pronunciations(WORDS, phonemes(["a", "b"])))
    given = [Decoded("aa", (), (), 0.0, 0.6), Decoded("a", (), (), -9.0, 0.4)]
    ranked = rescorer.rescored(given, heard([1, 1], 3))
    assert [(one.text, one.share) for one in ranked] == [("a", 1.0), ("aa", 0.0)]
    assert ranked[1].score == -math.inf
    assert [one.share for one in rescorer.rescored(given, np.zeros((0, 3)))] == [0.5, 0.5]


def test_wrong_phones_are_refused():
    units = phonemes(["a", "b"])
    with pytest.raises(UserError, match="rescoring: frames of 7 phones; expected 3"):
        PhoneRescorer(Pronunciations(WORDS, units)).distances([["a"]], np.zeros((4, 7)))
    with pytest.raises(UserError, match="the units are characters; expected phonemes"):
        Pronunciations(WORDS, characters(["ab"]))
    with pytest.raises(UserError, match="names: 'x' is pronounced with the symbol 'q', which is no unit"):
        Pronunciations({"x": ["a q"]}, units, "names")["x"]
    with pytest.raises(UserError, match="'x' has the pronunciation 'a b'; expected a list of them"):
        Pronunciations({"x": "a b"}, units)["x"]


def test_a_function_is_asked_once_for_each_word():
    asked = []

    def pronounce(word):
        asked.append(word)
        return ["a b", "a b", ""]

    pronounced = Pronunciations(pronounce, phonemes(["a", "b"]))
    assert [pronounced["it"], pronounced["it"]] == [((1, 2),), ((1, 2),)]
    assert asked == ["it"]
