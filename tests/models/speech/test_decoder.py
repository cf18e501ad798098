"""The decoder against the sum over all alignments of all word sequences, and against itself in chunks."""

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.actors.ngram_files import built
from gristmill.models.ngrams.estimate import NgramSettings, estimate
from gristmill.models.speech import decoder_kernels
from gristmill.models.speech.decode import prefix_beam_search
from gristmill.models.speech.decoder import Decoder, DecoderSettings
from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.units import Units, characters, phonemes
from gristmill.models.speech.units import sentencepiece as fit_sentencepiece
from gristmill.models.speech.words import spoken_words
from gristmill.shards.errors import UserError

WIDE = {"beam": 3000, "nbest": 3000, "tokens": 100, "threshold": -1e9, "margin": 1e9}
SENTENCES = ["on it", "to it on", "it", "on on to", "to it", "not in", "in it on", "to to"]


def draw(frames, vocab, seed, sharp=2.0):
    logits = np.random.default_rng(seed).normal(size=(frames, vocab)) * sharp
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def arpa(order=3):
    return estimate([one.split() for one in SENTENCES], NgramSettings(order=order))


def model_of(arpa):
    return built(arpa)


def price_of(model, words, prices):
    """Return what words add, by the model's look-up."""
    said = 0.0 if model is None else model.sentence(words).sum(dtype=np.float64)
    return prices.weight * math.log(10) * said + prices.word * len(words)


def all_alignments(log_probs):
    """Return the log-probability of each unit string."""
    found = defaultdict(lambda: -math.inf)
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        units = tuple(u for u, _ in itertools.groupby(path) if u)
        found[units] = np.logaddexp(found[units], sum(log_probs[t, u] for t, u in enumerate(path)))
    return found


def expected(log_probs, sequences, price):
    """Return texts with their scores, best first: ``sequences`` maps unit strings to the word sequences they spell."""
    total = defaultdict(lambda: -math.inf)
    for units, score in all_alignments(log_probs).items():
        for words in sequences(units):
            total[" ".join(words)] = np.logaddexp(total[" ".join(words)], score + price(words, units))
    return sorted(total.items(), key=lambda one: -one[1])


def check(decoder, log_probs, wanted):
    found = decoder.decode(log_probs)
    assert [round(one.score, 6) for one in found] == [round(score, 6) for _, score in wanted]
    assert {one.text: round(one.score, 6) for one in found} == {text: round(score, 6) for text, score in wanted}
    assert sum(one.share for one in found) == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("with_model", [False, True])
def test_characters_through_a_lexicon_are_exact(seed, with_model):
    units = characters(["no to"])
    words = ["no", "on", "to", "not", "too"]
    lexicon, model = Lexicon.spelled(words, units), model_of(arpa()) if with_model else None
    prices = DecoderSettings(**WIDE, weight=0.7, word=0.3)

    def sequences(found):
        parts = units.decode(found).split()
        return [parts] if set(parts) <= set(words) else []

    log_probs = draw(5, len(units), seed)
    cut = [one for one in words if with_model and model.look_up([one])[0] == model.unknown_word]

    def price(some, _):
        lacking = sum(one in cut for one in some)
        return price_of(model, some, prices) if not lacking else -math.inf

    wanted = expected(log_probs, sequences, price)
    check(Decoder(units, prices, lexicon, model), log_probs, [one for one in wanted if one[1] > -math.inf])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("with_model", [False, True])
def test_characters_with_a_class_of_unknown_words_are_exact(seed, with_model):
    units = characters(["no to"])
    words = ["no", "on", "to", "not", "too"]
    lexicon, model = Lexicon.spelled(words, units), model_of(arpa()) if with_model else None
    prices = DecoderSettings(**WIDE, weight=0.7, word=0.3, unknown=-1.5, unknown_unit=-0.25)
    known = {one for one in words if model is None or model.look_up([one])[0] != model.unknown_word}

    def leaves(word):
        """Return how many units of a word are outside the lexicon's tree."""
        inside = max(n for n in range(len(word) + 1) if any(one.startswith(word[:n]) for one in words))
        return len(word) - inside

    def price(some, _):
        listed = [one if one in known else "<unk>" for one in some]
        extra = sum(prices.unknown for one in some if one not in known)
        extra += sum(prices.unknown_unit * leaves(one) for one in some if one not in words)
        return price_of(model, listed, prices) + extra

    log_probs = draw(5, len(units), seed)
    wanted = expected(log_probs, lambda found: [units.decode(found).split()], price)
    check(Decoder(units, prices, lexicon, model), log_probs, wanted)


PRONOUNCED = {"on": ["o n", "n"], "own": ["o n"], "no": ["n o"], "it": ["t"], "to": ["t o", "t"]}


def segmentations(units, unknown=False):
    """Return the word sequences that a string of phonemes spells, with the units of those that the lexicon lacks."""
    if not units:
        return [[]]
    found = []
    for end in range(1, len(units) + 1):
        spelled = " ".join(units[:end])
        ways = [word for word, several in PRONOUNCED.items() if spelled in several]
        for word in ways + ([f"<{spelled}>"] if unknown else []):
            found += [[word, *rest] for rest in segmentations(units[end:], unknown)]
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("unknown", [False, True])
def test_phonemes_with_several_pronunciations_are_exact(seed, unknown):
    units, model = phonemes(["n", "o", "t"]), model_of(arpa())
    prices = DecoderSettings(
        **(WIDE | {"beam": 20000, "nbest": 20000}),
        weight=0.5,
        word=0.2,
        unknown=-2.0 if unknown else None,
        unknown_unit=-0.5,
    )
    known = {one for one in PRONOUNCED if model.look_up([one])[0] != model.unknown_word}
    assert ("own" in known, "on" in known) == (False, True)

    def price(some, _):
        if not unknown and not set(some) <= known:
            return -math.inf
        outside = [one for one in some if one.startswith("<")]
        lacking = sum(one not in known for one in some)
        listed = [one if one in known else "<unk>" for one in some]
        return price_of(model, listed, prices) - 2.0 * lacking - 0.5 * sum(len(one.split()) for one in outside)

    def sequences(found):
        return segmentations([units.tokens[one] for one in found], unknown)

    log_probs = draw(4, len(units), seed)
    wanted = [one for one in expected(log_probs, sequences, price) if one[1] > -math.inf]
    found = Decoder(units, prices, Lexicon.pronounced(PRONOUNCED, units), model).decode(log_probs)
    assert [round(one.score, 6) for one in found] == [round(score, 6) for _, score in wanted]
    texts = defaultdict(list)
    for text, score in wanted:
        texts[" ".join(text.replace("<", "").replace(">", "").split())].append(round(score, 6))
    for one in found:
        assert round(one.score, 6) in texts[one.text]


@st.composite
def utterances(draw_from):
    frames, vocab = draw_from(st.integers(0, 30)), draw_from(st.integers(1, 6))
    sharp = draw_from(st.sampled_from([1.0, 4.0, 12.0]))
    log_probs = draw(frames, vocab, draw_from(st.integers(0, 2**32)), sharp)
    if draw_from(st.booleans()):
        log_probs = np.round(log_probs)
    return log_probs.astype(draw_from(st.sampled_from([np.float32, np.float64])))


@settings(max_examples=150, deadline=None)
@given(utterances(), st.integers(1, 20), st.integers(1, 6))
def test_without_a_lexicon_it_is_the_plain_search_bit_by_bit(log_probs, beam, tokens):
    units = Units("phonemes", ("<blank>", *"abcdefgh"[: log_probs.shape[1] - 1]))
    found = Decoder(units, DecoderSettings(beam=beam, nbest=beam, tokens=tokens)).decode(log_probs)
    wanted = prefix_beam_search(log_probs, beam, nbest=beam, tokens=tokens)
    assert [(one.units, one.score) for one in found] == [(one.units, one.score) for one in wanted]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(0, 2**32), st.booleans())
def test_chunks_are_as_the_whole(data, seed, compacting):
    units = characters(["no to it"])
    log_probs = draw(60, len(units), seed, 3.0).astype(np.float32)
    model = model_of(arpa())
    prices = DecoderSettings(beam=12, nbest=12, unknown=-3.0)
    decoder = Decoder(units, prices, Lexicon.spelled(WORDS, units), model)
    whole, parts = decoder.stream(frame=0.02), decoder.stream(frame=0.02)
    if compacting:  # as after hours: at almost every frame
        for stream in (whole, parts):
            stream._state.counts[decoder_kernels.LIMIT] = 100
    whole.hear(log_probs)
    cuts = sorted(data.draw(st.lists(st.integers(0, 60), max_size=8)))
    for start, end in zip([0, *cuts], [*cuts, 60], strict=True):
        parts.hear(log_probs[start:end])
        parts.best()
    assert parts.best() == whole.best()


WORDS = ["no", "on", "to", "it", "in", "not"]


def test_what_is_dropped_from_memory_changes_nothing():
    units = characters(["no to it"])
    log_probs = draw(400, len(units), 5, 3.0)
    model = model_of(arpa())
    decoder = Decoder(units, DecoderSettings(beam=12, nbest=12), Lexicon.spelled(WORDS, units), model)
    whole, small = decoder.stream(), decoder.stream()
    whole.hear(log_probs)
    for frame in log_probs:
        small._state.counts[decoder_kernels.LIMIT] = 0
        small.hear(frame[None])
    assert small._state.counts[decoder_kernels.NODES] < whole._state.counts[decoder_kernels.NODES] / 4
    assert small.best() == whole.best()


def test_times_and_confidences_are_those_of_the_best_alignment():
    units = characters(["no to it"])
    for seed in range(20):
        log_probs = draw(40, len(units), seed, 6.0)
        found = Decoder(units, DecoderSettings(beam=60)).decode(log_probs, frame=0.02)[0]
        wanted = spoken_words(log_probs, found.units, units, 0.02)
        assert [one.word for one in found.words] == [one.word for one in wanted]
        assert np.allclose([one[1:] for one in found.words], [one[1:] for one in wanted])


def test_pieces_make_words():
    texts = ["the cat sat on the mat", "the mat sat on a cat", "cats and mats"] * 4
    units = fit_sentencepiece(texts, 24)
    words = sorted({word for text in texts for word in text.split()})
    lexicon = Lexicon.spelled(words, units)
    assert lexicon.words == tuple(words)
    spelled = units.encode("cats and the mat")
    log_probs = np.full((2 * len(spelled), len(units)), 0.001)
    for place, unit in enumerate(spelled):
        log_probs[2 * place, unit] = log_probs[2 * place + 1, 0] = 1.0
    log_probs = np.log(log_probs / log_probs.sum(axis=1, keepdims=True))
    for model in (None, model_of(estimate([text.split() for text in texts], NgramSettings(order=2)))):
        found = Decoder(units, DecoderSettings(), lexicon, model).decode(log_probs, frame=0.5)[0]
        assert found.text == "cats and the mat"
        assert [one.word for one in found.words] == found.text.split()
        assert found.words[0].start == 0.0
        assert found.words[-1].end == len(log_probs) * 0.5 - 0.5
    # A piece that the word "cats" does not have makes a word that the lexicon lacks.
    odd = [*units.encode("cats"), units.encode("on")[-1]]
    log_probs = np.log(np.full((len(odd), len(units)), 1e-6))
    log_probs[np.arange(len(odd)), odd] = 0.0
    found = Decoder(units, DecoderSettings(unknown=-4.0), lexicon).decode(log_probs)[0]
    assert found.text == units.decode(odd)


def test_an_utterance_that_ends_within_a_word_lacks_it():
    units = characters(["no to"])
    log_probs = np.log(np.full((4, len(units)), 1e-9))
    log_probs[np.arange(4), units.encode("no t")] = 0.0
    found = Decoder(units, DecoderSettings(tokens=1), Lexicon.spelled(["no", "to"], units)).decode(log_probs)[0]
    assert found.text == "no"
    assert Decoder(units, DecoderSettings(), Lexicon.spelled(["no"], units)).decode(log_probs[:0])[0].text == ""


def test_what_cannot_be_decoded_is_said():
    units, model = characters(["no to"]), model_of(arpa())
    lexicon = Lexicon.spelled(["no"], units)
    with pytest.raises(UserError, match="and no lexicon"):
        Decoder(units, model=model)
    with pytest.raises(UserError, match="other units"):
        Decoder(characters(["other"]), None, lexicon)
    with pytest.raises(UserError, match="frames of 3 units"):
        Decoder(units).decode(np.zeros((2, 3)))
    with pytest.raises(UserError, match="spell none"):
        Lexicon.spelled(["xyz"], units)
    with pytest.raises(UserError, match="expected pronunciations"):
        Lexicon.spelled(["xyz"], phonemes(["a"]))
    with pytest.raises(UserError, match="the symbol 'b'"):
        Lexicon.pronounced({"a": ["a b"]}, phonemes(["a"]))
    with pytest.raises(UserError, match="expected a list"):
        Lexicon.pronounced({"a": "a"}, phonemes(["a"]))
    with pytest.raises(UserError, match="no symbol"):
        Lexicon.pronounced({"a": [""]}, phonemes(["a"]))


def test_threads_decode_side_by_side():
    units = characters(["no to"])
    decoder = Decoder(units, DecoderSettings(nbest=3), Lexicon.spelled(["no", "on", "to"], units))
    several = [draw(frames, len(units), frames) for frames in range(12)]
    assert decoder.decode_all(several, threads=3) == [decoder.decode(one) for one in several]
