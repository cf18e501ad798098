"""Spellings learned from pairs, and the search for the likeliest against all of them."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.models.speech.spelling_variants import SpellingSettings, SpellingTable, aligned
from gristmill.shards.errors import UserError

PAIRS = [
    *[("phone", "fone"), ("graph", "graf"), ("phil", "fil"), ("knight", "nite"), ("knot", "not"), ("night", "nite")],
    *[("light", "lite"), ("kite", "kite"), ("inn", "in"), ("tin", "tinn"), ("hop", "hop"), ("pit", "pit")],
]
RULES = {("k", "n"): "n", ("p", "h"): "f", ("c",): "k"}


def all_spellings(table, symbols):
    """Return the best log-probability of each spelling, by all ways of substitution."""
    if not symbols:
        return {(): 0.0}
    found: dict[tuple[str, ...], float] = {}
    ways = [(1, right, share) for right, share in ({symbols[:1]: 1.0} if symbols[:1] not in table else {}).items()]
    for length in range(1, len(symbols) + 1):
        ways += [(length, right, share) for right, share in table.get(symbols[:length], {}).items()]
    for length, right, share in ways:
        for rest, score in all_spellings(table, symbols[length:]).items():
            spelled = right + rest
            found[spelled] = max(found.get(spelled, -math.inf), math.log(share) + score)
    return found


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6))
def test_variants_are_the_best_of_all_substitutions(seed):
    rng = np.random.default_rng(seed)

    def chunk(least):
        return tuple(rng.choice(list("abc"), rng.integers(least, 3)).tolist())

    table: dict[tuple[str, ...], dict[tuple[str, ...], float]] = {}
    for _ in range(rng.integers(1, 12)):
        table.setdefault(chunk(1), {})[chunk(0)] = float(rng.uniform(0.01, 1.0))
    for one in "ab":  # "c" may be a symbol that the table lacks
        table.setdefault((one,), {}).setdefault((one,), 0.4)
    word = tuple(rng.choice(list("abc"), rng.integers(1, 6)).tolist())
    every = {one: score for one, score in all_spellings(table, word).items() if one not in ((), word)}
    wanted = sorted(every.values(), reverse=True)
    found = SpellingTable(table).variants(word, 1000, -1e9)
    assert [score for _, score in found] == pytest.approx(wanted)
    assert {one: pytest.approx(score) for one, score in found} == every
    few = SpellingTable(table).variants("".join(word), 3, -4.0)
    assert [score for _, score in few] == pytest.approx([score for score in wanted[:3] if score >= -4.0])
    assert all(isinstance(one, str) for one, _ in few)


def test_substitutions_of_several_letters_are_learned_whole():
    table = SpellingTable.learned(PAIRS)
    assert table.variants("phoebe", 1)[0][0] == "foebe"
    assert table.variants("knob", 1)[0][0] == "nob"
    assert ("p", "h") in table.substitutions
    assert ("f",) in table.substitutions["p", "h"]
    assert ("f",) not in table.substitutions["p",]  # "p" becomes "f" with its "h" only
    words = [one for one, _ in table.variants("knight", 20, -20.0)]
    assert "nite" in words
    assert "knight" not in words


def test_probabilities_are_shares_of_where_a_chunk_stands():
    pairs = [("ab", "ab")] * 5 + [("ab", "eb")] * 3 + [("cab", "cab")] + [("ab", "ob")]
    table = SpellingTable.learned(pairs, SpellingSettings(doubt=2.0, longest=1, seen=2))
    assert table.substitutions["a",] == {("a",): (6 + 2) / (10 + 2), ("e",): 3 / (10 + 2)}  # "o" once is too few
    assert table.variants("ab", 5) == [("eb", pytest.approx(math.log(3 / 12)))]
    table = SpellingTable.learned(pairs, SpellingSettings(doubt=0.0, longest=2, seen=1, floor=0.2))
    assert ("o",) not in table.substitutions["a",]
    assert table.substitutions["a", "b"][("e", "b")] == 0.3


def test_costs_are_learned_from_the_pairs():
    # By plain edit distance "te" may as well be replaced by "ght"; but elsewhere "t" is kept, and "gh" put in.
    pairs = [("nite", "night"), ("lite", "light"), *[("tot", "tot"), ("si", "sigh"), ("ate", "at")] * 6]
    plain, learned = (SpellingTable.learned(pairs, SpellingSettings(rounds=rounds)) for rounds in (1, 3))
    assert "ght" in map("".join, plain.substitutions["t", "e"])
    assert plain.substitutions["e",][()] == 6 / (8 + 2)
    assert learned.substitutions["e",][()] == 8 / (8 + 2)
    assert learned.substitutions["t",]["t",] == 1.0


@settings(max_examples=40, deadline=None)
@given(st.text("abc", max_size=4), st.text("abc", max_size=4), st.integers(0, 100))
def test_alignments_cost_least(written, heard, seed):
    def cost(left, right):
        return np.random.default_rng([seed, *map(ord, "".join(left) + "/" + "".join(right))]).random()

    def least(one, other):
        ways = [cost(tuple(one[:a]), tuple(other[:b])) + least(one[a:], other[b:]) for a, b in ((1, 0), (0, 1), (1, 1))
                if a <= len(one) and b <= len(other)]  # fmt: skip
        return min(ways, default=0.0)

    way = aligned(tuple(written), tuple(heard), cost)
    assert sum(cost(*step) for step in way) == pytest.approx(least(written, heard))
    assert ["".join(one for step in way for one in step[side]) for side in (0, 1)] == [written, heard]


def test_what_is_put_in_goes_with_a_neighbour():
    table = SpellingTable.learned([("ski", "eski"), ("spa", "espa"), ("bus", "buss")] * 2, SpellingSettings(longest=2))
    assert table.substitutions["s",][("e", "s")] == 4 / (6 + 2)
    assert table.variants("sto", 1)[0][0] == "esto"


@pytest.mark.parametrize("seed", range(2))
def test_rules_are_found_again_in_spoilt_pairs(seed):
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(800):
        word = "".join(rng.choice([*"abcdeginoprst", "kn", "ph"], rng.integers(2, 6)))
        heard = word
        for left, right in RULES.items():
            if rng.random() < 0.5:
                heard = heard.replace("".join(left), right)
        if rng.random() < 0.1:
            place = int(rng.integers(len(heard)))
            heard = heard[:place] + str(rng.choice(list("xyz"))) + heard[place + 1 :]
        pairs.append((word, heard))
    table = SpellingTable.learned(pairs)
    for left, right in RULES.items():
        share = table.substitutions[left][tuple(right)]
        assert 0.35 < share < 0.6
        assert share == max(p for one, p in table.substitutions[left].items() if one != left)
    assert {one for one, _ in table.variants("phonecknob", 7)} >= {"fonecknob", "phonecnob", "phonekknob", "fonecnob"}


def test_phones_are_symbols_too():
    pairs = [(("t", "ɹ", "aɪ"), ("tʃ", "ɹ", "aɪ")), (("t", "ɹ", "uː"), ("tʃ", "ɹ", "uː")), (("t", "uː"), ("t", "uː"))]
    table = SpellingTable.learned(pairs)
    assert table.variants(("t", "ɹ", "iː"), 1)[0][0] == ("tʃ", "ɹ", "iː")


def test_json_keeps_every_bit_and_what_is_none_is_refused():
    table = SpellingTable.learned(PAIRS)
    again = SpellingTable.from_json(table.to_json())
    assert again == table
    assert again.to_json() == table.to_json()
    assert again.variants("knight", 10) == table.variants("knight", 10)
    wrong = ["", "[]", "{}", json.dumps({"substitutions": [["a"]]}), json.dumps({"substitutions": [[["a"], ["b"], 2]]})]
    for text in wrong:
        with pytest.raises(UserError, match="spelling table is not readable"):
            SpellingTable.from_json(text)


def test_no_pairs_are_refused():
    with pytest.raises(UserError, match="no pair of spellings"):
        SpellingTable.learned([("", "a")])
