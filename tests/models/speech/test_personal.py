"""Recognition with a user's words: what each technique does on hand-made log-probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gristmill.models.speech import personal
from gristmill.models.speech.acoustic import AcousticModel, AcousticSettings
from gristmill.models.speech.adapter import AdapterSettings, ContextualAdapter
from gristmill.models.speech.decoder import DecoderSettings
from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.personal import (
    TECHNIQUES,
    Heard,
    PersonalParts,
    PersonalRecogniser,
    PersonalSettings,
)
from gristmill.models.speech.pronunciations import Pronunciations
from gristmill.models.speech.spelling_variants import SpellingTable
from gristmill.models.speech.spotting import nearest_heard
from gristmill.models.speech.units import characters, phonemes
from gristmill.models.speech.word_list import BiasSettings

UNITS = characters(["abcdefghijklmnopqrstuvwxyz "])
PHONES = phonemes(list("abcdfiklmnostuz"))
LEXICON = Lexicon.spelled(["call", "me", "at", "noon"], UNITS)
SEARCH = DecoderSettings(beam=64, nbest=32, tokens=6, unknown=-4.0, unknown_unit=-0.2, word=0.0)


def said(text: str, units=UNITS, least: float = 0.02, **other: dict[int, tuple[str, float]]) -> np.ndarray:
    """Return log-probabilities of a text, two frames a unit and a blank, with other units that are heard beside."""
    symbols = list(text) if units is UNITS else text.split()
    rows = []
    for place, symbol in enumerate(symbols):
        row = np.full(len(units), least / len(units))
        row[0 if symbol == "-" else units.tokens.index(symbol)] = 1.0
        for wrong, share in other.get("beside", {}).get(place, ()):
            row[units.tokens.index(wrong)] = share
        blank = np.full(len(units), least / len(units))
        blank[0] = 1.0
        rows += [row, row, blank]
    found = np.array(rows)
    return np.log(found / found.sum(axis=1, keepdims=True))


def recogniser(**more) -> PersonalRecogniser:
    bias = more.pop("bias", BiasSettings(enter=2.0, scale=1.0, cap=3.0, most=9.0))
    settings = PersonalSettings(decoder=SEARCH, bias=bias, **more.pop("settings", {}))
    return PersonalRecogniser(PersonalParts(UNITS, lexicon=LEXICON, **more), settings)


def text(made: PersonalRecogniser, heard: Heard, words: list[str], *techniques) -> str:
    return made.recognised(heard, made.listed(words), techniques)[0].text


def test_listed_words_are_heard_by_a_price_or_by_boosts_and_no_others() -> None:
    heard = Heard(said("call bop", beside={7: (("b", 0.7),)}))
    made = recogniser()
    plain = text(made, heard, [], *TECHNIQUES)
    assert plain == "call bop"
    assert text(made, heard, ["bob"]) == plain, "without a technique a list does nothing"
    for techniques in (("unigram",), ("boost",), ("unigram", "boost")):
        assert text(made, heard, ["zoe", "bob"], *techniques) == "call bob"
        assert text(made, heard, ["zoe", "ann"], *techniques) == plain


def test_a_long_list_is_cut_to_what_is_heard() -> None:
    heard = Heard(said("call xora"))
    words = ["xora", *(f"{a}{b}{c}q" for a in "abcdefgh" for b in "aeiou" for c in "klmnp")]
    whole = recogniser(settings={"retrieved": 10_000})
    few = recogniser(settings={"retrieved": 3})
    assert text(few, heard, words, "unigram") == text(whole, heard, words, "unigram") == "call xora"


@pytest.mark.parametrize("retrieved", [3, 50, 10_000])
def test_systems_and_techniques_ask_once_what_is_heard_of_a_list(retrieved, monkeypatch) -> None:
    asked: list[int] = []

    def nearest(log_probs, listed, most):
        asked.append(most)
        return nearest_heard(log_probs, listed, most)

    monkeypatch.setattr(personal, "nearest_heard", nearest)
    said_as = Pronunciations({"nun": ["n u n"], "call": ["k o l"]}, PHONES)
    made = recogniser(pronunciations=said_as, settings={"retrieved": retrieved})
    listed = made.listed(["nun", *(f"{a}{b}{c}q" for a in "abcd" for b in "aeiou" for c in "klmnp")])
    heard = Heard(said("call tun"), said("k o l - - n u n", PHONES))
    for techniques in (("lexicon",), ("unigram", "lexicon"), TECHNIQUES):
        assert made.recognised(heard, listed, techniques)[0].text == "call nun"
    assert len(asked) == 1
    made.recognised(Heard(said("call tun"), said("k o l - - n u n", PHONES)), listed, ("lexicon",))
    assert len(asked) == 2


def test_other_spellings_stand_for_the_word() -> None:
    heard = Heard(said("call foebe"))
    table = SpellingTable.learned([("phone", "fone"), ("graph", "graf"), ("phil", "fil")])
    made = recogniser(table=table, settings={"variants": 5, "variant": -8.0})
    assert "foebe" in text(made, heard, ["phoebe"], "unigram")
    assert text(made, heard, ["phoebe"], "unigram", "g2g") == "call phoebe"
    assert text(recogniser(), heard, ["phoebe"], "g2g") == text(recogniser(), heard, []), "without a table: nothing"


def test_phones_choose_among_hypotheses_and_replace_words_that_sound_like_listed_ones() -> None:
    spoken = {"call": ["k o l"], "me": ["m i"], "noon": ["n u n"], "nun": ["n u n"], "at": ["a t"]}
    pronunciations = Pronunciations(spoken, PHONES)
    heard = Heard(said("call tun"), said("k o l - - n u n", PHONES))
    made = recogniser(pronunciations=pronunciations)
    assert text(made, heard, ["nun"]) == "call tun"
    assert text(made, heard, ["nun"], "lexicon") == "call nun"
    assert text(recogniser(), heard, ["nun"], "lexicon", "phones") == "call tun", "without pronunciations: nothing"
    unsure = Heard(said("call mon", beside={5: (("n", 0.9),), 6: (("u", 0.9),)}), said("k o l - - n u n", PHONES))
    assert text(made, unsure, ["nun"]) == "call mon"
    assert text(made, unsure, ["nun"], "phones") != "call mon"


def test_the_adapter_changes_what_is_searched() -> None:
    torch.manual_seed(0)
    base = AcousticModel(AcousticSettings(channels=4, dim=16, layers=2, heads=2, kernel=7), 20, len(UNITS)).eval()
    adapter = ContextualAdapter(AdapterSettings(dim=8), base.vocab, base.width, base.depth).eval()
    features, lengths = torch.randn(1, 80, 20), torch.tensor([80])
    with torch.no_grad():
        states, _ = base.layers(features, lengths)
        heard = Heard(base.classify(states[-1])[0].numpy(), None, states)
    made = recogniser(adapter=adapter, classify=base.classify)
    assert text(made, heard, ["anna"], "adapter") == text(made, heard, ["anna"]), "a new adapter adds nothing"
    torch.nn.init.normal_(adapter.out.weight, std=5.0)
    assert text(made, heard, ["anna"], "adapter") != text(made, heard, ["anna"])
    assert text(made, heard, [], "adapter") == text(made, heard, [])


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_every_technique_works_alone_with_nothing_it_needs(technique) -> None:
    assert text(recogniser(), Heard(said("call me")), ["anna"], technique) == "call me"


def test_of_phonemes_only_words_are_heard() -> None:
    spoken = {"call": ["k o l"], "me": ["m i"], "nun": ["n u n"]}
    known = {word: spoken[word] for word in ("call", "me")}
    parts = PersonalParts(
        PHONES, lexicon=Lexicon.pronounced(known, PHONES), pronunciations=Pronunciations(spoken, PHONES)
    )
    made = PersonalRecogniser(parts, PersonalSettings(decoder=SEARCH, bias=BiasSettings(enter=5.0)))
    heard = Heard(said("k o l n u n", PHONES))
    assert set(text(made, heard, []).split()) <= {"call", "me"}
    assert text(made, heard, ["nun"], "unigram") == "call nun"
