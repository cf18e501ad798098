"""Pairs of turns, paraphrases and friction: windows, features of what is not known, and what the fits tell apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gristmill.models.sessions import friction, outcomes, paraphrase
from gristmill.models.sessions.calibrated import CalibratedModel, CalibratedSettings, deal_groups, fit_calibrated
from gristmill.models.sessions.friction import friction_features, prior_model, reading
from gristmill.models.sessions.meaning_pairs import MeaningPairSettings, draw_pairs
from gristmill.models.sessions.meaning_texts import MeaningText, OneWordChanges
from gristmill.models.sessions.outcomes import COUNTS, outcome_features, with_outcome
from gristmill.models.sessions.pairs import WindowSettings, candidate_pairs, followed
from gristmill.models.sessions.paraphrase import ParaphraseModel, count_words, pair_features
from gristmill.shards.errors import UserError

pytest.importorskip("text_to_num", reason="text2num is not installed")


def turns(*times: float | None) -> list[dict[str, Any]]:
    return [{"id": str(n), "turn": n, "time": time} for n, time in enumerate(times)]


def names(given: list[dict[str, Any]], **window: float) -> list[str]:
    return [f"{one['id']}{other['id']}" for _, one, other in candidate_pairs(given, WindowSettings(**window))]


def test_pairs_are_close_in_turns_and_in_time() -> None:
    assert names(turns(0, 10, 20, 200)) == ["01", "12", "02"]
    assert names(turns(0, 10, 20, 200), turns=1) == ["01", "12"]
    assert names(turns(0, 10, 20, 200), seconds=1000, turns=9) == ["01", "12", "02", "23", "13", "03"]


def test_of_unknown_times_turns_are_counted_and_no_pair_goes_back_in_time() -> None:
    assert names(turns(None, 10, None)) == ["01", "12", "02"]
    assert names(turns(100, 50)) == []


def test_our_own_rewrites_are_in_no_pair() -> None:
    given = turns(0, 1, 2)
    given[1]["rewritten"] = True
    assert names(given) == ["02"]


def test_the_last_turn_is_followed_by_none() -> None:
    assert [after and after["id"] for _, after in followed(turns(0, 10))] == ["1", None]


def groups() -> list[MeaningText]:
    rooms = ["kitchen", "hall", "office", "garage", "attic", "cellar", "porch", "studio"]
    made = []
    for room in rooms:
        said = [f"turn on the lights in the {room}", f"{room} lights on", f"switch the {room} lights on please"]
        for number, text in enumerate(said):
            tokens = tuple(text.split())
            place = tokens.index(room)
            made.append(MeaningText(f"{room}{number}", room, tokens, "on", (("area", place, place + 1),)))
    return made


def with_off() -> list[MeaningText]:
    """Return the groups, and each text with "off" in the place of "on"."""
    on = groups()
    off = [[{"on": "off"}.get(word, word) for word in text.tokens] for text in on]
    made = zip(on, off, strict=True)
    return [*on, *(MeaningText(f"{t.id}-", f"{t.meaning}-", tuple(own), "off", t.slots) for t, own in made)]


def test_pairs_are_of_all_kinds_and_do_not_depend_on_the_order() -> None:
    made = draw_pairs(with_off(), MeaningPairSettings())
    negative = {"nearest", "one_word", "same_intent", "other_value", "random"}
    assert {pair.kind for pair in made} == {"same", "polite", *negative}
    assert made == draw_pairs(with_off()[::-1], MeaningPairSettings())
    by_text = {text.tokens: text.meaning for text in with_off()}
    for pair in made:
        if pair.kind != "polite":
            assert (by_text[pair.left] == by_text.get(pair.right)) == pair.positive
        if pair.kind == "one_word":
            assert sorted(set(pair.left) ^ set(pair.right)) == ["off", "on"]


def test_texts_beyond_the_limit_are_left_out_by_their_groups() -> None:
    made = draw_pairs(groups(), MeaningPairSettings(texts=6))
    assert len({pair.meaning for pair in made}) == 2


def test_a_paraphrase_is_told_from_the_same_words_with_another_value() -> None:
    texts = groups()
    pairs = draw_pairs(texts, MeaningPairSettings(nearest=2, other_value=2))
    counts = count_words((text.tokens, [slot[1:] for slot in text.slots or ()]) for text in texts)
    rows = np.stack([pair_features(pair.left, pair.right, counts) for pair in pairs])
    labels = np.array([pair.positive for pair in pairs])
    fitted = fit_calibrated(rows, labels, [pair.meaning for pair in pairs], paraphrase.FEATURES, CalibratedSettings())
    assert fitted.auc > 0.95
    model = ParaphraseModel.from_described(ParaphraseModel(fitted.model, counts).described())
    same = model.probability(["attic", "lights", "on"], ["turn", "on", "the", "lights", "in", "the", "attic"])
    other = model.probability(["attic", "lights", "on"], ["cellar", "lights", "on"])
    assert same > 0.5 > other


def test_one_word_may_make_a_difference_and_words_of_politeness_make_none() -> None:
    texts = with_off()
    settings = MeaningPairSettings(nearest=2, other_value=2)
    changes = OneWordChanges(texts)
    assert changes.swaps["off", "on"][1] == 0 < changes.swaps["off", "on"][0]
    pairs = draw_pairs(texts, settings, changes)
    given = [(text.tokens, [slot[1:] for slot in text.slots or ()]) for text in texts]
    counts = count_words(given, "en", changes, settings.politeness)
    assert counts.swap("on", "off") == counts.swap("off", "on") > 0.5 > counts.swap("on", "the")
    rows = np.stack([pair_features(pair.left, pair.right, counts) for pair in pairs])
    labels = np.array([pair.positive for pair in pairs])
    meanings = [pair.meaning for pair in pairs]
    fitted = fit_calibrated(rows, labels, meanings, paraphrase.FEATURES, CalibratedSettings(products=True))
    model = ParaphraseModel.from_described(ParaphraseModel(fitted.model, counts).described())
    on = ["turn", "on", "the", "lights", "in", "the", "attic"]
    assert model.probability(on, ["please", *on]) > 0.5 > model.probability(on, ["turn", "off", *on[2:]])


def test_what_a_word_tells_is_read_off_texts_without_slots_too() -> None:
    said = {"on": ["lamp on", "the lamp on"], "off": ["lamp off"], "two": ["a lamp on"]}
    texts = [MeaningText(text, name, tuple(text.split())) for name, own in said.items() for text in own]
    changes = OneWordChanges(texts)
    assert changes.swaps == {("a", "the"): (1, 0), ("off", "on"): (1, 0)}
    assert (changes.told["the"], changes.found["the"]) == (1, 2)
    assert list(changes.others(texts[0])) == [("lamp", "off")]


def test_features_of_a_pair_do_not_depend_on_the_order_of_the_two() -> None:
    counts = count_words([])
    one, other = ["wake", "me", "at", "ten", "am"], ["alarm", "for", "10am", "in", "the", "hall"]
    assert (pair_features(one, other, counts) == pair_features(other, one, counts)).all()


def turn(**known: Any) -> dict[str, float]:
    return dict(zip(friction.FEATURES, friction_features({"tokens": ["on"], **known}).tolist(), strict=True))


def test_what_is_not_known_of_a_turn_has_a_feature_of_its_own() -> None:
    nothing = turn()
    assert [name for name in friction.FEATURES if name.endswith("unknown") and nothing[name]] == [
        "score_unknown",
        "gap_unknown",
        "time_unknown",
        "barge_in_unknown",
    ]
    assert nothing["last"] == 1.0
    best = {"domain_logprob": np.log(0.5), "intent_logprob": 0.0, "slots_logprob": 0.0}
    known = turn(score=0.75, alternatives=[best], barge_in=True, seconds=30.0, next_tokens=["on"], paraphrase=0.5)
    assert not any(known[name] for name in friction.FEATURES if name.endswith("unknown") or name == "last")
    assert (known["gap"], known["soon"], known["paraphrase_soon"]) == (0.25, 0.5, 0.25)


def test_readings_are_equal_whatever_the_order_and_the_places_of_slots() -> None:
    slots = [{"name": "b", "value": "X", "start": 0}, {"name": "a", "value": "y", "start": 3}]
    one = {"domain": "d", "intent": "i", "slots": slots}
    other = {"next_domain": "d", "next_intent": "i", "next_slots": [{**slot, "start": 9} for slot in slots[::-1]]}
    assert reading(one) == reading(other, "next_")


def test_without_known_outcomes_a_rephrase_that_is_read_otherwise_is_friction() -> None:
    follow = {"next_tokens": ["lights"], "seconds": 5.0, "domain": "a", "next_domain": "b"}
    rows = [friction_features({"tokens": ["on"], "paraphrase": p, **follow}) for p in (0.9, 0.1)]
    rephrased, other = prior_model().probabilities(np.stack(rows))
    assert rephrased > 0.8 > 0.3 > other


def test_a_fit_finds_the_feature_and_keeps_groups_together() -> None:
    rng = np.random.default_rng(1)
    labels = rng.random(300) < 0.3
    rows = np.stack([labels + rng.normal(size=300), rng.normal(size=300)], 1)
    sessions = [str(n // 3) for n in range(300)]
    fold = deal_groups(sessions, 5, 0)
    assert all(len({*fold[n : n + 3].tolist()}) == 1 for n in range(0, 300, 3))
    fitted = fit_calibrated(rows, labels, sessions, ("a", "b"), CalibratedSettings())
    assert 0.7 < fitted.auc < 0.9
    assert fitted.held_out.mean() == pytest.approx(labels.mean(), abs=0.02)
    again = CalibratedModel.from_described(fitted.model.described(), ("a", "b"))
    assert (again.probabilities(rows) == fitted.model.probabilities(rows)).all()
    # A row's bytes do not depend on what is beside it.
    assert again.probabilities(rows[7:8])[0] == again.probabilities(rows)[7]


def test_a_fit_to_one_kind_and_a_model_of_other_features_are_refused() -> None:
    rows = np.zeros((20, 1))
    with pytest.raises(UserError, match="0 of 20 examples are positive"):
        fit_calibrated(rows, np.zeros(20), ["a"] * 20, ("a",), CalibratedSettings())
    with pytest.raises(UserError, match="expected 1, of score"):
        CalibratedModel.from_described(prior_model().described(), ["score"])


def test_a_turns_own_outcome_is_not_among_those_of_others() -> None:
    counts = {
        prefix + name: value
        for prefix in ("said_", "meant_")
        for name, value in zip(COUNTS, (1, 1, 0, -2.0), strict=True)
    }
    alone = dict(zip(outcomes.FEATURES, outcome_features(-2.0, True, counts).tolist(), strict=True))
    assert alone == {name: -2.0 if name == "own" else 0.0 for name in outcomes.FEATURES}


def test_a_known_outcome_outweighs_what_is_guessed_as_far_as_it_is_trusted() -> None:
    assert with_outcome(2.0, True, 0.01) < 0.5 < with_outcome(2.0, True, 0.4)
    assert with_outcome(-2.0, False, 0.01) > 0.5
