import random

import jiwer
import numpy as np
import pytest

from gristmill.models.measures import wer
from gristmill.shards.errors import UserError


def test_alignment_by_hand():
    assert wer.align("abc", "abc") == "CCC"
    assert wer.align("abc", "axc") == "CSC"
    assert wer.align("abc", "ac") == "CDC"
    assert wer.align("ac", "abc") == "CIC"
    assert wer.align([], "ab") == "II"
    assert wer.align("ab", []) == "DD"
    # Two substitutions cost as much as a deletion and an insertion; the second keeps a word correct.
    assert sorted(wer.align("ab", "bc")) == ["C", "D", "I"]


def _texts(n, seed):
    draw = random.Random(seed)
    words = ["zero", "one", "two", "three", "four"]
    for _ in range(n):
        reference = draw.choices(words, k=draw.randint(1, 12))
        hypothesis = [w for w in reference if draw.random() > 0.15]
        hypothesis = [draw.choice(words) if draw.random() < 0.2 else w for w in hypothesis]
        for _ in range(draw.randint(0, 2)):
            hypothesis.insert(draw.randint(0, len(hypothesis)), draw.choice(words))
        yield " ".join(reference), " ".join(hypothesis)


def test_rate_and_counts_against_jiwer():
    references, hypotheses = zip(*_texts(300, seed=1), strict=True)
    ours = wer.score(references, hypotheses, normalise="none")
    peer = jiwer.process_words(list(references), list(hypotheses))
    assert ours.wer == pytest.approx(peer.wer)
    for i, (reference, hypothesis) in enumerate(zip(references, hypotheses, strict=True)):
        one = jiwer.process_words(reference, hypothesis)
        assert ours.errors[i] == one.substitutions + one.deletions + one.insertions
        assert ours.substitutions[i] <= one.substitutions
        assert ours.insertions[i] - ours.deletions[i] == one.insertions - one.deletions


def test_alignment_spells_both_texts():
    for reference, hypothesis in _texts(100, seed=2):
        ref, hyp = reference.split(), hypothesis.split()
        letters = wer.align(ref, hyp)
        assert len(letters.replace("I", "")) == len(ref)
        assert len(letters.replace("D", "")) == len(hyp)
        i = j = 0
        for letter in letters:
            if letter in "CS":
                assert (ref[i] == hyp[j]) == (letter == "C")
            i += letter != "I"
            j += letter != "D"


def test_normalisers():
    assert wer.normaliser("basic")("  It’s a 'Test'—of E-mail, OK? ") == "it's a test of e mail ok"
    assert wer.normaliser("digits")("Call 20!") == "call two zero"
    assert wer.normaliser("phones")("h ə ˈl oː W AH1 n") == "h ə l o W AH n"
    assert wer.normaliser("none")(" A  b ") == "A b"
    with pytest.raises(UserError, match=r"'bsic'.*basic"):
        wer.normaliser("bsic")


def test_phone_error_and_speakers():
    result = wer.score(["p ˈa t a", "k o"], ["p a d a", "k o"], ["ann", None], normalise="phones")
    assert result.wer == pytest.approx(1 / 6)
    assert result.speakers[0] == "ann"
    assert len(set(result.speakers)) == 2
    np.testing.assert_array_equal(result.words, [4, 2])


def test_refusals():
    with pytest.raises(UserError, match="one hypothesis"):
        wer.score(["a"], [])
    with pytest.raises(UserError, match="no reference word"):
        wer.score(["..."], ["a"])


def test_an_empty_reference_among_others_counts_its_insertions():
    result = wer.score(["", "a b"], ["x", "a b"])
    assert result.wer == pytest.approx(0.5)
    np.testing.assert_array_equal(result.insertions, [1, 0])


def test_character_errors_against_jiwer():
    references, hypotheses = zip(*_texts(200, seed=3), strict=True)
    ours = wer.score(references, hypotheses, normalise="none")
    whole = [[text.replace(" ", "") for text in texts] for texts in (references, hypotheses)]
    assert ours.cer == pytest.approx(jiwer.cer(*whole))
    assert ours.characters.words.tolist() == [len(text) for text in whole[0]]
    assert ours.characters.speakers == ours.speakers


def test_distance_of_long_and_empty_texts():
    draw = random.Random(4)
    for _ in range(100):
        one, other = ("".join(draw.choices("abcd", k=draw.randint(0, 150))) for _ in range(2))
        letters = wer.align(one, other)
        assert wer.distance(one, other) == len(letters) - letters.count("C")
    assert (wer.distance("", ""), wer.distance("a", ""), wer.distance("", "ab")) == (0, 1, 2)


def test_chinese_has_a_measure():
    result = wer.score(["打开客厅的灯。", "关灯"], ["打开 卧室 的灯", "关灯"])
    assert result.cer == pytest.approx(2 / 8)
    assert result.wer > 1


@pytest.mark.parametrize("name", ["basic", "digits"])
def test_zero_width_signs_and_apostrophes_make_no_error(name):
    references = ["don\u2019t co\u00adoperate", "l\u00b4eau", "rock\u2018n\u2019roll", "می\u200cخواهم", "क्\u200dष"]
    hypotheses = ["don't cooperate", "l'eau", "rock'n'roll", "می\u200cخواهم\ufeff", "क्ष"]
    result = wer.score(references, hypotheses, normalise=name)
    assert (result.errors.sum(), result.words.tolist()) == (0, [2, 1, 1, 1, 1])
    assert wer.score(["می\u200cخواهم"], ["می خواهم"], normalise=name).wer == 2
