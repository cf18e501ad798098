"""The compact n-gram store against the definition of a back-off model; scores are compared to the last bit."""

from __future__ import annotations

import mmap
from dataclasses import replace
from functools import cache
from pathlib import Path

import numba
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.actors.ngram_files import open_store
from gristmill.models.ngrams import lookup
from gristmill.models.ngrams.arpa import BOS, EOS, UNK, Arpa, Grams
from gristmill.models.ngrams.batch import GROUP
from gristmill.models.ngrams.build import StoreSettings, build
from gristmill.models.ngrams.estimate import NgramSettings, estimate
from gristmill.models.ngrams.lookup import look_up
from gristmill.models.ngrams.store import MAGIC, LmStore, chunks
from gristmill.shards.errors import UserError
from tests.models.ngrams.backoff import listed, made_up, score
from tests.models.ngrams.kneser_ney import sample

TEXT = sample(5, 500, 60)
VOCABULARY = sorted({word for sentence in TEXT for word in sentence})


@cache
def estimated(order: int = 4) -> Arpa:
    return estimate(TEXT, NgramSettings(order=order), VOCABULARY[2:])


@cache
def store_of(seed: int, order: int, **left_out: int) -> tuple[Arpa, LmStore]:
    model = made_up(seed, order) if seed else estimated(order)
    return model, LmStore.of(data_of(model, **left_out))


def data_of(model: Arpa, **left_out: int) -> bytes:
    return b"".join(chunks(build(model, StoreSettings(**left_out))))


def state_after(store: LmStore, words: tuple[str, ...]) -> int:
    """Return the state after words, which may begin with <s>."""
    state = store.begin if words[:1] == (BOS,) else store.empty
    for number in store.look_up(words[words[:1] == (BOS,) :]):
        state = int(store.score([state], [number])[1][0])
    return state


@pytest.mark.parametrize(("seed", "order"), [(0, 2), (0, 4), (0, 6), (1, 2), (2, 3), (3, 4), (4, 5)])
def test_every_ngram_and_random_queries_are_those_of_the_model(seed: int, order: int) -> None:
    model, store = store_of(seed, order)
    own = listed(model)
    for gram, (logprob, _) in own.items():
        if gram != (BOS,):
            states = [state_after(store, gram[:-1])]
            assert store.score(states, store.look_up(gram[-1:]))[0][0] == logprob, gram
    draw = np.random.default_rng(seed)
    names = [word for word in model.words if word != BOS]
    for _ in range(200):
        history = [BOS] * int(draw.integers(2))
        state = store.begin if history else store.empty
        for place in draw.integers(0, len(names), 12):
            found, after = store.score([state], store.look_up([names[place]]))
            assert found[0] == score(own, history, names[place], order), (history, names[place])
            history.append(names[place])
            state = int(after[0])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 5),
    st.lists(st.lists(st.integers(0, 14), max_size=9), min_size=1, max_size=3 * GROUP),
)
def test_sentences_of_random_models(seed: int, order: int, sentences: list[list[int]]) -> None:
    model, store = store_of(seed, order)
    own = listed(model)
    names = [[model.words[place] for place in places if model.words[place] != BOS] for places in sentences]
    words = store.look_up([word for sentence in names for word in sentence])
    found = store.sentences(words, np.array([len(sentence) for sentence in names]))
    at = 0
    for sentence in names:
        for place, word in enumerate([*sentence, EOS]):
            assert found[at] == score(own, [BOS, *sentence[:place]], word, order)
            at += 1
    assert at == len(found)


@numba.njit
def one_by_one(body, states, words, scores, following):
    """What other compiled code does with the store."""
    for place in range(len(words)):
        scores[place], following[place] = look_up(body, np.int64(states[place]), np.int64(words[place]))


@numba.njit
def arc_of(body, state, word):
    at = lookup.address_of(body)
    row = lookup.level_of(at, state)
    return lookup.find(at, row, state - lookup.entry(at, row, lookup.FIRST), word)


@pytest.mark.parametrize("left_out", [{}, {"quantise": 4}, {"fingerprint": 4}, {"fingerprint": 4, "quantise": 6}])
@pytest.mark.parametrize("size", [0, 1, GROUP - 1, GROUP, 20 * GROUP + 5])
def test_a_batch_is_as_its_queries_one_by_one(left_out: dict[str, int], size: int) -> None:
    for seed, order in ((0, 4), (3, 4), (7, 1)):
        _, store = store_of(seed, order, **left_out)
        draw = np.random.default_rng(size)
        states, words = draw.integers(0, store.states, size), draw.integers(0, len(store.words), size)
        found, after = store.score(states, words)
        alone, reached = np.empty(size, np.float32), np.empty(size, np.int32)
        one_by_one(store.body, states, words, alone, reached)
        np.testing.assert_array_equal(found, alone)
        np.testing.assert_array_equal(after, reached)
        assert size == 0 or 0 <= after.min() <= after.max() < store.states


def test_large_states_are_searched_in_few_steps_and_to_the_end() -> None:
    """A context that lists most words of a large vocabulary, and one that lists the words of one end only."""
    names = [UNK, BOS, EOS, *(f"word {n}" for n in range(6000))]
    draw = np.random.default_rng(0)
    whole = Arpa(names, [Grams(np.arange(len(names))[:, None].astype(np.uint32), -np.ones(len(names), np.float32))])
    numbers = build(whole).words.find(names, -1)
    low = np.argsort(numbers)[:900]
    pairs = [(3, word) for word in draw.choice(len(names), 5000, replace=False)] + [(4, word) for word in low]
    values = -draw.random(len(pairs)).astype(np.float32)
    unigrams = replace(whole.orders[0], backoff=np.full(len(names), -0.5, np.float32))
    store = LmStore.of(data_of(Arpa(names, [unigrams, Grams(np.array(pairs, np.uint32), values)])))
    given = dict(zip(pairs, values, strict=True))
    for context in (3, 4):
        states = np.full(len(names), state_after(store, (names[context],)))
        expected = [given.get((context, word), np.float32(-1.5)) for word in range(len(names))]
        np.testing.assert_array_equal(store.score(states, store.look_up(names))[0], expected)


def test_words_are_found_by_their_letters() -> None:
    model, store = store_of(0, 4)
    numbers = store.look_up(model.words)
    assert sorted(numbers) == list(range(len(model.words)))
    assert [store.words.name(number) for number in numbers] == list(model.words)
    assert [store.words.names()[number] for number in numbers] == list(model.words)
    unlike = [word + "x" for word in model.words] + ["", "दो", "\ud7ff", "w" * 1000]
    assert set(store.look_up(unlike)) == {store.unknown_word}
    array = pa.array(["nothing", *model.words, None])
    np.testing.assert_array_equal(store.look_up(array)[1:-1], numbers)
    np.testing.assert_array_equal(store.look_up(array[2:5]), numbers[1:4])
    assert len(store.look_up([])) == 0


def test_the_order_of_the_lines_does_not_matter() -> None:
    model = estimated()
    draw = np.random.default_rng(1)
    places = draw.permutation(len(model.words))
    numbers = np.argsort(places).astype(np.uint32)
    orders = []
    for grams in model.orders:
        row = draw.permutation(len(grams))
        backoff = None if grams.backoff is None else grams.backoff[row]
        orders.append(Grams(numbers[grams.words[row]], grams.logprob[row], backoff))
    assert data_of(Arpa([model.words[place] for place in places], orders)) == data_of(model)


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_values_of_few_bits_err_by_no_more_than_is_told(bits: int) -> None:
    model, store = store_of(0, 4, quantise=bits)
    told = store.facts["errors"]
    assert 0 < told["logprob"]["mean"] < told["logprob"]["largest"]
    errors = []
    for gram, (logprob, _) in listed(model).items():
        if gram != (BOS,):
            found = store.score([state_after(store, gram[:-1])], store.look_up(gram[-1:]))[0][0]
            errors.append(abs(float(found) - float(logprob)))
            assert len(gram) > 1 or not errors[-1], "unigrams are exact"
    assert max(errors) == pytest.approx(told["logprob"]["largest"])
    more = store_of(0, 4, quantise=bits + 4)[1]
    assert more.facts["errors"]["logprob"]["mean"] < told["logprob"]["mean"] / 4
    assert len(more.body) > len(store.body)


def test_words_of_few_bits_are_told_apart_if_listed_and_mistaken_as_often_as_is_told() -> None:
    model, store = store_of(0, 4, fingerprint=4)
    exact = store_of(0, 4)[1]
    for gram, (logprob, _) in listed(model).items():
        if gram != (BOS,):
            assert store.score([state_after(store, gram[:-1])], store.look_up(gram[-1:]))[0][0] == logprob
    first = int(exact.body[lookup.ROWS + 2 * lookup.COLUMNS + lookup.FIRST])
    shares, counts = [], []
    for state in range(first, exact.states):  # those of two words or more, with each word
        found, truly = (
            np.array([arc_of(one.body, state, word) for word in range(len(one.words))]) for one in (store, exact)
        )
        assert (found[truly >= 0] == truly[truly >= 0]).all()
        counts.append((truly >= 0).sum())
        shares.append((found >= 0)[truly < 0].mean())
    told = store.facts["errors"]["taken_for_listed"]
    assert np.mean(shares) == pytest.approx(told["of_states"])
    assert np.average(shares, weights=counts) == pytest.approx(told["of_states_by_arcs"])
    assert 0 < told["of_states"] < told["of_states_by_arcs"] < 0.5


def test_an_exact_store_has_no_error_to_tell() -> None:
    assert store_of(0, 4)[1].facts["errors"] == {}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lm.store"
    path.write_bytes(data_of(estimated()))
    return path


def test_a_file_is_mapped_and_not_copied(file: Path) -> None:
    store = open_store(str(file))
    for array in (store.body, *store.words):
        held = array
        while isinstance(held, np.ndarray):
            assert not held.flags.owndata
            assert not held.flags.writeable
            held = held.base
        assert isinstance(held.obj if isinstance(held, memoryview) else held, mmap.mmap)
    np.testing.assert_array_equal(store.sentence(TEXT[3]), store_of(0, 4)[1].sentence(TEXT[3]))


@pytest.mark.parametrize("place", [0, 0.001, 0.2, 0.4, 0.6, 0.8, 0.98])
def test_a_damaged_file_is_refused(file: Path, place: float) -> None:
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 4
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"lm\.store: (not a store|its header is|is damaged \(|a store of)"):
        open_store(str(file))


def test_every_byte_of_a_small_file_matters_but_for_what_fills_up() -> None:
    data = data_of(made_up(1, 2, words=2))
    unlike = 0
    for place in range(len(data)):
        harmed = bytearray(data)
        harmed[place] ^= 0x10
        try:
            LmStore.of(bytes(harmed))
        except UserError:
            unlike += 1
        else:
            assert data[place] == 0, "a byte between two arrays"
    assert unlike > 0.8 * len(data)


@pytest.mark.parametrize("kept", [0, 5, 12, 30, 60, 500, 4000, -100])
def test_a_file_that_was_cut_is_refused(file: Path, kept: int) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"lm\.store: "):
        open_store(str(file))


def test_other_files_are_refused(tmp_path: Path, file: Path) -> None:
    with pytest.raises(UserError, match=r"none\.store: no such file"):
        open_store(str(tmp_path / "none.store"))
    with pytest.raises(UserError, match="no n-gram model here"):
        open_store(str(tmp_path))
    file.with_name("empty.store").touch()
    with pytest.raises(UserError, match="cannot be read"):
        open_store(str(file.with_name("empty.store")))
    data = file.read_bytes()
    file.write_bytes(MAGIC + b"\x07" + data[len(MAGIC) + 1 :])
    with pytest.raises(UserError, match="a store of version 7; expected 1: build it again"):
        open_store(str(file))


def changed(model: Arpa, order: int, **arrays: np.ndarray | None) -> Arpa:
    orders = list(model.orders)
    orders[order - 1] = replace(orders[order - 1], **arrays)
    return Arpa(model.words, orders)


def test_models_that_are_none_are_refused() -> None:
    model = estimated(3)
    second, third = model.orders[1], model.orders[2]
    fewer = {"words": second.words[::2], "logprob": second.logprob[::2], "backoff": second.backoff[::2]}
    twice = {name: np.concatenate([getattr(third, name)] * 2) for name in ("words", "logprob")}
    wrong = {
        "lists the 3-gram '.*' without its context": changed(model, 2, **fewer),
        "lists the 3-gram '.*' twice": changed(model, 3, **twice),
        "log-probability above 0": changed(model, 3, logprob=-third.logprob),
        "0, or none": changed(model, 3, logprob=third.logprob * np.float32(np.nan)),
        "back-off that is not finite": changed(model, 2, backoff=second.backoff * np.float32(np.inf)),
        "has no <s>": Arpa([word.replace("<s>", "s") for word in model.words], model.orders),
        "has no </s>": Arpa([word.replace("</s>", "s") for word in model.words], model.orders),
    }
    for message, one in wrong.items():
        with pytest.raises(UserError, match=f"mine: .*{message}"):
            build(one, source="mine")


def test_without_an_unknown_word_in_the_model_it_is_as_kenlm_has_it() -> None:
    model = made_up(2, 3)
    places = [place for place, word in enumerate(model.words) if word != UNK]
    number = np.full(len(model.words), len(model.words), np.uint32)
    number[places] = np.arange(len(places))
    orders = []
    for grams in model.orders:
        kept = (number[grams.words] < len(places)).all(1)
        backoff = None if grams.backoff is None else grams.backoff[kept]
        orders.append(Grams(number[grams.words[kept]], grams.logprob[kept], backoff))
    store = LmStore.of(data_of(Arpa([model.words[place] for place in places], orders)))
    assert store.score([store.empty], store.look_up(["nowhere"]))[0][0] == -100


def test_wrong_numbers_are_refused() -> None:
    _, store = store_of(0, 4)
    for states, words in (([store.states], [0]), ([-1], [0]), ([0], [len(store.words)]), ([0], [-1])):
        with pytest.raises(ValueError, match="is not that of a"):
            store.score(states, words)
    with pytest.raises(ValueError, match="expected one state for each word"):
        store.score([0, 0], [0])
