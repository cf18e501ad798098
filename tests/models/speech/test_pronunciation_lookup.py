"""Words replaced by listed words that sound exactly like what is heard."""

import numpy as np
import pytest

from gristmill.models.speech.decoder import Decoded
from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.pronunciation_lookup import LookupSettings, PronunciationLookup
from gristmill.models.speech.pronunciations import Pronunciations
from gristmill.models.speech.units import phonemes
from gristmill.models.speech.words import Word
from gristmill.shards.errors import UserError

PHONES = ["k", "æ", "t", "ɹ", "ɪ", "n", "ə", "<wb>"]
UNITS, BARE = phonemes(PHONES), phonemes(PHONES[:-1])
KNOWN = {
    "cat": ["k æ t"],
    "rin": ["ɹ ɪ n"],
    "tin": ["t ɪ n"],
    "in": ["ɪ n"],
    "a": ["ə"],
    "kitten": ["k ɪ t n", "k ɪ t ə n"],
    "cattern": ["k æ t ɹ ə n"],
}
LIST = {"catrin": ["k æ t ɹ ɪ n"], "rina": ["ɹ ɪ n ə"], "kat": ["k æ t"], "ta": ["t ə"], "tann": ["t æ n"]}


def heard(spoken, units, sure=0.9):
    """Return log-probabilities of phones between spaces, two frames each and one blank ("_") between."""
    path = [number for one in spoken.split() for number in ([units.tokens.index(one)] * 2 + [0] if one != "_" else [0])]
    return np.log(np.full((len(path), len(units)), (1 - sure) / (len(units) - 1)) * (1 - np.eye(len(units))[path])
                  + sure * np.eye(len(units))[path])  # fmt: skip


def said(*words):
    """Return a hypothesis of words, each with its first frame and the one after its last."""
    found = tuple(Word(word, float(start), float(end), 0.5) for word, start, end in words)
    return Decoded(" ".join(one.word for one in found), found, (7,), -3.0, 0.6)


def look_up(best, spoken, units=UNITS, sure=0.9, **settings):
    lookup = PronunciationLookup(
        Lexicon.pronounced(LIST, units), Pronunciations(KNOWN, units), LookupSettings(**({"slack": 1.0} | settings))
    )
    return lookup.replaced(best, heard(spoken, units, sure))


def test_a_word_that_sounds_like_a_listed_one_is_replaced_and_the_rest_is_kept():
    best = said(("a", 0, 3), ("cattern", 6, 23), ("in", 27, 33))
    found = look_up(best, "ə <wb> k æ t ɹ ɪ n <wb> ɪ n")
    assert found.text == "a catrin in"
    assert found.words == (best.words[0], Word("catrin", 6.0, 23.0, pytest.approx(0.9)), best.words[2])
    assert (found.units, found.score, found.share) == ((7,), -3.0, 0.6)


def test_two_neighbouring_words_become_one_also_over_a_word_boundary():
    for spoken in ("ə <wb> k æ t ɹ ɪ n", "ə <wb> k æ t <wb> ɹ ɪ n"):
        # Not if both words are pronounced so: the listed word is one of two readings of the same sounds.
        assert look_up(said(("a", 0, 3), ("cat", 6, 14), ("rin", 15, 26)), spoken).text == "a cat rin"
        found = look_up(said(("a", 0, 3), ("kitten", 6, 14), ("tin", 16, 26)), spoken)
        assert [(one.word, one.start, one.end) for one in found.words] == [("a", 0, 3), ("catrin", 6, 26)]


def test_a_hypothesis_that_sounds_like_what_is_heard_stays():
    assert look_up(said(("cat", 0, 8)), "k æ t").text == "cat"
    assert look_up(said(("tin", 0, 8)), "k æ t").text == "kat"
    assert look_up(said(("unknown", 0, 8)), "k æ t").text == "kat"
    assert look_up(said(("kat", 0, 8)), "k æ t") == said(("kat", 0, 8))


def test_only_the_whole_pronunciation_counts():
    assert look_up(said(("cattern", 0, 17)), "k æ t ɹ ə n").text == "cattern"
    assert look_up(said(("unknown", 0, 14)), "k æ t ɹ ɪ").text == "unknown"
    assert look_up(said(("unknown", 0, 20)), "k æ t ɹ ɪ n n").text == "unknown"


def test_short_pronunciations_and_unsure_phones_replace_nothing():
    assert look_up(said(("cat", 0, 6)), "t ə").text == "cat"
    assert look_up(said(("cat", 0, 6)), "t ə", least=2).text == "ta"
    assert look_up(said(("tin", 0, 8)), "k æ t", sure=0.55).text == "tin"
    unsure = heard("k æ t", UNITS, 0.55)
    lookup = PronunciationLookup(Lexicon.pronounced(LIST, UNITS), Pronunciations(KNOWN, UNITS))
    assert lookup.replaced(said(("tin", 0, 8)), unsure).text == "tin"
    lookup = PronunciationLookup(Lexicon.pronounced(LIST, UNITS), lookup._pronunciations, LookupSettings(sure=0.5))
    assert lookup.replaced(said(("tin", 0, 8)), unsure).text == "kat"


@pytest.mark.parametrize("units", [UNITS, BARE])
def test_a_word_may_gain_the_phones_up_to_its_neighbours(units):
    spoken = "ə _ k æ t ɹ ɪ n _ ɪ n" if units is BARE else "ə <wb> k æ t ɹ ɪ n <wb> ɪ n"
    first = 4 if units is BARE else 6
    # Its own times are those of the two middle phones only.
    best = said(("a", 0, 2), ("unknown", first + 6, first + 11), ("in", first + 20, first + 26))
    assert look_up(best, spoken, units).text == "a catrin in"
    # It loses none that lies farther within its times than the slack.
    wide = said(("unknown", 0, first + 17), ("in", first + 20, first + 26))
    assert look_up(wide, spoken, units).text == "unknown in"


def test_a_word_boundary_near_a_words_bound_is_the_only_place_for_it():
    best = said(("unknown", 0, 8), ("in", 16, 21))
    assert look_up(best, "k æ t _ ə _ _ ɪ n", slack=2.0).text == "kat in"
    assert look_up(best, "k æ t _ ə <wb> ɪ n", slack=2.0).text == "unknown in"


def test_the_longest_listed_word_is_taken():
    found = look_up(said(("unknown", 0, 8), ("in", 9, 17)), "k æ t ɹ ɪ n")
    assert found.text == "catrin"


def test_no_words_and_no_frames_are_no_errors():
    assert look_up(said(), "k æ t").text == ""
    lookup = PronunciationLookup(Lexicon.pronounced(LIST, UNITS), Pronunciations(KNOWN, UNITS))
    assert lookup.replaced(said(("cat", 0, 2)), np.zeros((0, len(UNITS)))).text == "cat"


def test_other_units_are_refused():
    with pytest.raises(UserError, match="look-up: the list is spelled in other units"):
        PronunciationLookup(Lexicon.pronounced(LIST, BARE), Pronunciations(KNOWN, UNITS))
    lookup = PronunciationLookup(Lexicon.pronounced(LIST, BARE), Pronunciations(KNOWN, BARE))
    with pytest.raises(UserError, match="look-up: frames of 3 phones; expected 8"):
        lookup.replaced(said(("cat", 0, 2)), np.zeros((2, 3)))
