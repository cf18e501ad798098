"""Word lists in the decoder against the sum over all alignments of all word sequences, and what a list tells."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest

from gristmill.models.speech import decoder_kernels
from gristmill.models.speech.decoder import Decoder, DecoderSettings
from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.units import Units, characters, phonemes
from gristmill.models.speech.units import sentencepiece as fit_sentencepiece
from gristmill.models.speech.word_list import (
    BiasSettings,
    WordList,
    common_words,
    entry_prices,
    nearness_of,
    unit_boosts,
)
from gristmill.shards.errors import UserError
from tests.models.speech.test_decoder import WIDE, arpa, check, draw, model_of

BIAS = BiasSettings(enter=0.7, size=0.4, scale=0.8, cap=1.5, most=2.5, confusable=0.3, floor=-9.0, edit=1.5)

SEEDS = [0, pytest.param(1, marks=pytest.mark.slow)]


def paths(log_probs):
    """Yield of each alignment its units, the frames where they begin, and its log-probability."""
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        begins = [t for t, unit in enumerate(path) if unit and (not t or path[t - 1] != unit)]
        yield [path[t] for t in begins], begins, sum(log_probs[t, unit] for t, unit in enumerate(path))


class Oracle:
    """The scores of all texts, by the definitions."""

    def __init__(self, log_probs, prices, bias, lexicon, listed, model):
        self.log_probs, self.prices, self.bias, self.model = log_probs, prices, bias, model
        self.lexicon, self.listed = lexicon, listed
        known = np.array([-1 if lexicon is None else lexicon.number.get(word, -1) for word in listed.words])
        common = None if lexicon is None else common_words(lexicon, model, bias.common)
        self.entry = dict(
            zip(
                listed.words,
                entry_prices(nearness_of(listed, known, common, bias), listed.length, bias).tolist(),
                strict=True,
            )
        )
        self.boosts = unit_boosts(np.arange(20), bias)

    def of_model(self, state, word):
        if self.model is None:
            return 0.0, state
        score, following = self.model.score([state], [word])
        return self.prices.weight * math.log(10) * float(score[0]), int(following[0])

    def choices(self, word, units, begins, state):
        """Yield what a word adds as one of the lexicon, of the list and outside, and the next state of the model."""
        model = self.model
        number = 0 if model is None else int(model.look_up([word])[0])
        own, following = self.of_model(state, number)
        unlisted = model is not None and number == model.unknown_word
        unknown = -math.inf if self.prices.unknown is None else self.prices.unknown
        as_unknown, after_unknown = (own, state) if model is None else self.of_model(state, model.unknown_word)
        if self.lexicon is not None and word in self.lexicon.words:
            yield own + self.prices.word + (unknown if unlisted else 0.0), following
        elif self.lexicon is None:
            yield 0.0, following
        elif self.prices.unknown is not None and self.lexicon.units.kind == "characters":
            inside = max(n for n in range(len(word) + 1) if any(one.startswith(word[:n]) for one in self.lexicon.words))
            extra = unknown + self.prices.unknown_unit * (len(word) - inside)
            yield as_unknown + self.prices.word + extra, after_unknown
        if word in self.listed.words:
            added = as_unknown if self.bias.unigram else own + (unknown if unlisted else 0.0)
            for place, (unit, frame) in enumerate(zip(units, begins, strict=True)):
                row = self.log_probs[frame]
                top = row.max() if self.bias.blank else row[1:].max()
                added += min(self.bias.scale * (top - row[unit]), self.boosts[place + 1])
            yield added + (self.prices.word if self.lexicon else 0.0) + self.entry[word], following

    def texts(self, words_of):
        """Return texts with scores, best first; ``words_of`` yields of units the words with the bounds of each."""
        found: dict[str, float] = defaultdict(lambda: -math.inf)
        for units, begins, score in paths(self.log_probs):
            for words in words_of(units):
                states = [(score, 0 if self.model is None else self.model.begin)]
                for word, low, high in words:
                    states = [
                        (total + added, following)
                        for total, state in states
                        for added, following in self.choices(word, units[low:high], begins[low:high], state)
                    ]
                for total, state in states:
                    end = 0.0 if self.model is None else self.of_model(state, self.model.end_word)[0]
                    text = " ".join(word for word, _, _ in words)
                    found[text] = np.logaddexp(found[text], total + end)
        return sorted(((text, one) for text, one in found.items() if one > -math.inf), key=lambda one: -one[1])


def split_at_spaces(units):
    def words_of(found):
        words, first = [], 0
        for place, unit in enumerate([*found, 1]):
            if unit == 1:
                if place > first:
                    words.append((units.decode(found[first:place]), first, place))
                first = place + 1
        yield words

    return words_of


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("with_model", [False, True])
@pytest.mark.parametrize("unknown", [None, -1.5])
@pytest.mark.parametrize("unigram", [False, True])
def test_characters_with_a_list_are_exact(seed, with_model, unknown, unigram):
    units = characters(["no to"])
    lexicon, model = Lexicon.spelled(["no", "on", "to"], units), model_of(arpa()) if with_model else None
    listed = WordList.of(["to", "not", "oo", "tono", "too"], units)  # "to" is the lexicon's, "not" the model's
    prices = DecoderSettings(**WIDE, weight=0.7, word=0.3, unknown=unknown, unknown_unit=-0.25)
    bias = BIAS.model_copy(update={"unigram": unigram, "blank": seed == 1})
    log_probs = draw(5, len(units), seed)
    wanted = Oracle(log_probs, prices, bias, lexicon, listed, model).texts(split_at_spaces(units))
    found = Decoder(units, prices, lexicon, model, bias).decode(log_probs, listed=listed)
    assert any("oo" in one.text.split() for one in found) == (not with_model or unigram or unknown is not None)
    assert len({one.text for one in found}) == len(found)
    assert {one.text: round(one.score, 6) for one in found} == {text: round(score, 6) for text, score in wanted}
    assert sum(one.share for one in found) == pytest.approx(1.0)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_lexicon_any_units_are_words_beside_the_list(seed):
    units = characters(["no to"])
    listed = WordList.of(["to", "not"], units)
    prices, log_probs = DecoderSettings(**WIDE), draw(5, len(units), seed)
    wanted = Oracle(log_probs, prices, BIAS, None, listed, None).texts(split_at_spaces(units))
    check_listed(Decoder(units, prices, bias=BIAS), log_probs, listed, wanted)


def check_listed(decoder, log_probs, listed, wanted):
    class WithList:
        def decode(self, log_probs):
            return decoder.decode(log_probs, listed=listed)

    check(WithList(), log_probs, wanted)


PRONOUNCED = {"on": ["o n", "n"], "no": ["n o"], "to": ["t o", "t"]}
LISTED = {"own": ["o n"], "not": ["n o t", "n t"], "on": ["o n"]}


@pytest.mark.parametrize("seed", SEEDS)
def test_phonemes_with_a_list_are_exact(seed):
    units, model = phonemes(["n", "o", "t"]), model_of(arpa())
    prices = DecoderSettings(**(WIDE | {"beam": 20000, "nbest": 20000}), word=0.2)
    lexicon = Lexicon.pronounced(PRONOUNCED, units)
    listed = WordList.of(LISTED, units, LISTED)

    def words_of(found, first=0):
        if first == len(found):
            yield []
        for end in range(first + 1, len(found) + 1):
            spelled = units.decode(found[first:end])
            for word in PRONOUNCED.keys() | LISTED.keys():
                if spelled in [*PRONOUNCED.get(word, []), *LISTED.get(word, [])]:
                    yield from ([(word, first, end), *rest] for rest in words_of(found, end))

    class ByPronunciation(Oracle):
        def choices(self, word, found, begins, state):
            spelled, some = units.decode(found), list(super().choices(word, found, begins, state))
            ways = [one for one in (PRONOUNCED, LISTED) if word in one]
            return [added for added, way in zip(some, ways, strict=True) if spelled in way[word]]

    log_probs = draw(4, len(units), seed)
    wanted = ByPronunciation(log_probs, prices, BIAS, lexicon, listed, model).texts(words_of)
    found = Decoder(units, prices, lexicon, model, BIAS).decode(log_probs, listed=listed)
    best: dict[str, float] = defaultdict(
        lambda: -math.inf
    )  # a text of several pronunciations is there several times, as without a list
    for one in found:
        best[one.text] = np.logaddexp(best[one.text], one.score)
    assert {text: round(score, 6) for text, score in best.items()} == {text: round(score, 6) for text, score in wanted}


def test_what_does_not_become_a_listed_word_gets_nothing():
    units = characters(["no to"])
    lexicon, log_probs = Lexicon.spelled(["no", "on", "to"], units), draw(5, len(units), 3)
    listed = WordList.of(["tonno", "nonton"], units)  # too long for the frames, their beginnings are not
    decoder = Decoder(units, DecoderSettings(**WIDE), lexicon, bias=BiasSettings(enter=5.0, scale=1.0))
    plain = decoder.decode(log_probs[:4])
    assert [(one.text, one.score) for one in decoder.decode(log_probs[:4], listed=listed)] == [
        (one.text, one.score) for one in plain
    ]
    without = {one.text: one.score for one in decoder.decode(log_probs)}
    within = {one.text: one.score for one in decoder.decode(log_probs, listed=WordList.of(["tono"], units))}
    assert within.keys() > without.keys()
    assert {text: score for text, score in within.items() if "tono" not in text} == without


def test_chunks_are_as_the_whole_with_a_list():
    units = characters(["no to it"])
    lexicon, listed = Lexicon.spelled(["no", "on", "to", "it"], units), WordList.of(["toni", "ito", "nto"], units)
    bias = BIAS.model_copy(update={"enter": 9.0})
    decoder = Decoder(units, DecoderSettings(beam=12, nbest=12, unknown=-3.0), lexicon, model_of(arpa()), bias)
    for seed in range(4):
        log_probs = draw(60, len(units), seed, 3.0).astype(np.float32)
        whole, parts = decoder.stream(frame=0.02, listed=listed), decoder.stream(frame=0.02, listed=listed)
        whole.hear(log_probs)
        for start in range(0, 60, 7):
            parts._state.counts[decoder_kernels.LIMIT] = 100
            parts.hear(log_probs[start : start + 7])
            parts.best()
        assert parts.best() == whole.best()
        assert any(word.word in listed.words for one in whole.best() for word in one.words)


def test_each_utterance_has_its_own_list():
    units = characters(["no to it"])
    lexicon, model = Lexicon.spelled(["no", "on", "to", "it"], units), model_of(arpa())
    lists = [None, WordList.of(["toni", "tino"], units), WordList.of(["inno"], units), WordList.of([], units)]
    utterances = [draw(30, len(units), seed, 3.0) for seed in range(3)]
    settings = DecoderSettings(beam=12, nbest=5)
    decoder = Decoder(units, settings, lexicon, model, BIAS)
    found = [decoder.decode(one, listed=listed) for one in utterances for listed in [*lists, lists[1]]]
    wanted = [
        Decoder(units, settings, lexicon, model, BIAS).decode(one, listed=listed)
        for one in utterances
        for listed in [*lists, lists[1]]
    ]
    assert found == wanted
    assert found[0] == found[3] != found[1] == found[4]
    assert decoder.decode_all(utterances, threads=2, listed=lists[1]) == found[1::5]


def test_listed_words_are_heard_with_times():
    units = characters(["anna met bo"])
    log_probs = np.full((12, len(units)), 0.01)
    for frame, unit in enumerate(units.encode("anna met bo")):
        log_probs[frame + (frame > 1), unit] = 1.0  # a blank between both n
    log_probs = np.log(log_probs / log_probs.sum(axis=1, keepdims=True))
    lexicon = Lexicon.spelled(["an", "ant", "met", "to"], units)
    listed = WordList.of(["Anna", "Bo"], units)
    decoder = Decoder(units, DecoderSettings(), lexicon)
    assert decoder.decode(log_probs)[0].text != "anna met bo"
    best = decoder.decode(log_probs, frame=0.1, listed=listed)[0]
    assert best.text == "anna met bo"
    assert next((one.word, round(one.start, 1), round(one.end, 1)) for one in best.words) == ("anna", 0.0, 0.5)
    assert best.words[0].confidence == pytest.approx(np.exp(log_probs.max()))


def test_pieces_of_listed_words_are_boosted():
    texts = ["the cat sat on the mat", "the mat sat on a cat", "cats and mats"] * 4
    units = fit_sentencepiece(texts, 24)
    lexicon, listed = Lexicon.spelled(["the", "cat", "mat", "on"], units), WordList.of(["cats", "tan"], units)
    spelled = units.encode("the cats on")
    log_probs = np.full((2 * len(spelled), len(units)), 0.001)
    for place, unit in enumerate(spelled):
        log_probs[2 * place, unit] = log_probs[2 * place + 1, 0] = 1.0
    log_probs = np.log(log_probs / log_probs.sum(axis=1, keepdims=True))
    for some in (lexicon, None):
        decoder = Decoder(units, DecoderSettings(nbest=16), some, bias=BIAS)
        found = decoder.decode(log_probs, listed=listed)
        assert found[0].text == "the cats on"
        assert len({one.text for one in found}) == len(found)


def distance(one, other):
    rows = [list(range(len(other) + 1))]
    for i, a in enumerate(one, start=1):
        rows.append([i])
        for j, b in enumerate(other, start=1):
            rows[i].append(min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (a != b)))
    return rows[-1][-1]


@pytest.mark.parametrize("with_model", [False, True])
def test_words_near_frequent_ones_cost_more(with_model):
    rng, units = np.random.default_rng(3), phonemes(list("abcde"))
    drawn = ["".join(rng.choice(list("abcde"), rng.integers(1, 7))) for _ in range(60)]
    said = dict.fromkeys(drawn[:40])
    lexicon = Lexicon.pronounced({word: [" ".join(word)] for word in said}, units)
    entries = list(dict.fromkeys([*drawn[30:], "ebebebebeb"]))
    listed = WordList.of(entries, units, {word: [" ".join(word)] for word in entries})
    sentences = [["".join(word) for word in rng.choice(list(said), 5, p=None)] for _ in range(50)]
    from gristmill.models.ngrams.estimate import NgramSettings, estimate

    model = model_of(estimate(sentences, NgramSettings(order=2))) if with_model else None
    settings = BiasSettings(confusable=0.5, edit=1.3, floor=-8.0, enter=1.0, size=0.2)
    known = np.array([lexicon.number.get(word, -1) for word in listed.words])
    found = nearness_of(listed, known, common_words(lexicon, model, 30), settings)
    chance = {word: -math.log(len(said)) for word in said}
    if model is not None:
        known_words = [word for word in said if model.look_up([word])[0] != model.unknown_word]
        chance = {
            word: math.log(10) * float(model.score([model.empty], model.look_up([word]))[0][0]) for word in known_words
        }
    common = sorted(chance, key=lambda word: -chance[word])[:30]
    wanted = [
        max([settings.floor, *(chance[word] - 1.3 * distance(entry, word) for word in common if word != entry)])
        for entry in listed.words
    ]
    assert np.allclose(found, wanted)
    assert wanted[-1] == settings.floor < max(wanted)
    prices = entry_prices(found, len(found), settings)
    assert np.allclose(prices, 1.0 - 0.5 * (np.array(wanted) + 8.0))
    many = entry_prices(np.full(1000, -8.0), 1000, settings)
    assert np.allclose(many, 1.0 - 0.2 * math.log(10))


def test_units_get_no_more_than_a_word_may_have():
    for cap, most in ((2.0, 6.0), (1.5, 2.0), (3.0, 1.0)):
        given = unit_boosts(np.arange(30), BiasSettings(scale=0.5, cap=cap, most=most))
        assert given[0] == given[1] == 0.0
        assert given.max() <= cap
        assert given.sum() == pytest.approx(most)
    assert not unit_boosts(np.arange(9), BiasSettings(scale=0.0)).any()


@pytest.mark.parametrize(
    ("entries", "problems"),
    [
        (["anna"], []),
        (["Anna"], ["1 entry has capital letters, which the units lack, and acts in small ones: 'Anna'"]),
        (["anna", " ", ""], ["2 entries are empty, and cannot act"]),
        (["anna ana"], ["1 entry is of several words, each of which acts as an entry: 'anna ana'"]),
        (["anna-ana"], ["1 entry is of several words, each of which acts as an entry: 'anna-ana'"]),
        (["anna", "ana", "anna"], ["1 word is there more than once, and acts once: 'anna'"]),
        (["anna", "xenia"], ["1 word has letters that the units lack, and cannot act: 'xenia'"]),
        (["anna", "na"], ["1 word has fewer than 3 letters, and may be heard where it is not said: 'na'"]),
        (
            [f"xa{n}" for n in range(7)],
            ["7 words have letters that the units lack, and cannot act: 'xa0', 'xa1', 'xa2', 'xa3', 'xa4' and 2 more"],
        ),
    ],
)
def test_a_list_tells_what_cannot_act_as_written(entries, problems):
    listed = WordList.of(entries, characters(["ana"]), source="names.txt")
    assert listed.problems == tuple(f"names.txt: {one}" for one in problems)


def test_a_list_of_phonemes_tells_what_cannot_act_as_written():
    units = phonemes(["a", "n", "x"])
    spoken = {"ana": ["a n a", "a n"], "Nan": ["n a n"], "axe": ["a k s"], "na": ["n a"], "an": []}
    listed = WordList.of(["ana", "Ana", "Nan", "nan", "axe", "na", "an"], units, spoken)
    assert listed.words == ("ana", "Nan", "na")
    assert listed.spellings.tolist() == [[1, 2, 1], [1, 2, 0], [2, 1, 2], [2, 1, 0]]
    assert listed.of_word.tolist() == [0, 0, 1, 2]
    assert listed.problems == (
        "word list: 1 entry has capital letters, which the units lack, and acts in small ones: 'Ana'",
        "word list: 1 word is there more than once, and acts once: 'ana'",
        "word list: 2 words have no pronunciation, and cannot act: 'nan', 'an'",
        "word list: 1 word has symbols in the pronunciation that the units lack, and cannot act: 'axe'",
        "word list: 2 words have fewer than 3 phonemes, and may be heard where they are not said: 'ana', 'na'",
    )
    lexicon = Lexicon.pronounced({"ana": ["a n a", "a n"], "nan": ["n a n"]}, units)
    by_lexicon = WordList.of(["nan", "ana", "xan"], units, lexicon)
    assert by_lexicon.words == ("nan", "ana")
    assert by_lexicon.spellings.tolist() == [[2, 1, 2], [1, 2, 1], [1, 2, 0]]
    assert by_lexicon.problems[0] == "word list: 1 word has no pronunciation, and cannot act: 'xan'"


def test_a_list_that_cannot_be_used_is_refused():
    units = characters(["ana"])
    listed = WordList.of(["ana"], units)
    with pytest.raises(UserError, match="other units"):
        Decoder(characters(["b"])).decode(np.zeros((2, 3)), listed=listed)
    units = Units("phonemes", ("<blank>", "a"))
    with pytest.raises(UserError, match="expected a lexicon"):
        Decoder(units).stream(listed=WordList.of(["ana"], units, {"ana": ["a"]}))
