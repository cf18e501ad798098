"""Templates of requests and what is made of them: kinds, draws, files, errors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gristmill.models.requests.templates import (
    TEMPLATES,
    Annotated,
    Span,
    TemplateBank,
    annotated,
    filled_from,
    template_of,
)
from gristmill.shards.errors import UserError
from gristmill.shards.random import RecordRandom
from tests.models.nlu.domain_examples import requests


def rows():
    return {row["id"]: annotated(row) for row in requests()}


def made(bank, seed=0):
    random = RecordRandom(seed, "paraphrases")
    return {(name, kind): one for name, row in rows().items() for kind, one in bank.fill(row, random(name))}


def values(request):
    return sorted(request.tokens[start:end] for _, start, end in request.slots)


def test_each_kind_is_what_it_says():
    bank = filled_from(rows().values())
    found = made(bank)
    assert {kind for _, kind in found} == {"positive", "other_value", "other_label", "same_values"}
    for (name, kind), other in found.items():
        request = rows()[name]
        same_template = template_of(other)[0] == template_of(request)[0]
        same_values = values(other) == values(request)
        assert other.domain == request.domain
        assert [slot.name for slot in other.slots] == [slot.name for slot in request.slots]
        expected = {
            "positive": (False, True, True),
            "other_value": (True, False, True),
            "other_label": (False, False, False),
            "same_values": (False, True, False),
        }
        assert (same_template, same_values, other.intent == request.intent) == expected[kind]


def test_requests_without_slots_give_nothing():
    bank = filled_from(rows().values())
    assert not [kind for name, kind in made(bank) if not rows()[name].slots]
    assert rows()["r005"].slots


def test_the_same_seed_gives_the_same_pairs_whatever_the_order():
    bank = filled_from(rows().values())
    again = filled_from(reversed(rows().values()))
    assert made(bank) == made(again)
    assert made(bank) != made(bank, seed=1)
    stored = TemplateBank.from_files(json.loads(bank.files()[TEMPLATES]))
    assert made(stored) == made(bank)
    assert stored.files() == bank.files() == again.files()


def test_another_domain_gives_nothing():
    """A domain that is left out of a training has no part in the pairs of the others."""
    every = rows()
    own = {name: row for name, row in every.items() if row.domain == "alarm"}
    random = RecordRandom(0, "paraphrases")
    for name, row in own.items():
        alone = list(filled_from(own.values()).fill(row, random(name)))
        assert alone == list(filled_from(every.values()).fill(row, random(name)))


def test_slots_of_one_name_keep_their_order():
    request = Annotated(
        "travel", "go", ("from", "Rome", "to", "New", "York"), (Span("place", 1, 2), Span("place", 3, 5))
    )
    template, found = template_of(request)
    assert str(template) == "from [place] to [place]"
    assert template.filled(found)[0] == ("from", "rome", "to", "new", "york")
    assert template.filled(found)[1] == request.slots


def test_what_cannot_be_is_refused():
    row = {"id": "r1", "domain": "music", "intent": "play", "tokens": ["play", "seal"], "slots": None}
    assert annotated(row) == Annotated("music", "play", ("play", "seal"))
    overlapping = [{"name": "artist", "start": 1, "end": 2}, {"name": "song", "start": 1, "end": 2}]
    assert len(annotated(row | {"slots": overlapping}).slots) == 1
    assert annotated(row | {"slots": [{"name": "artist", "start": None, "end": None}]}).slots == ()
    with pytest.raises(UserError, match=r"here: request r1 is of domain None and intent 'play'; expected both"):
        annotated(row | {"domain": None}, "here")
    with pytest.raises(
        UserError, match=r"slot 'artist' of request r1 has tokens 1 to 3; expected some of its 2 tokens"
    ):
        annotated(row | {"slots": [{"name": "artist", "start": 1, "end": 3}]})
    with pytest.raises(ValueError, match=r"templates.json: format 9; expected 1"):
        TemplateBank.from_files({"format": 9})


def test_a_template_of_slots_alone_is_none():
    bank = TemplateBank()
    bank.add(Annotated("music", "play", ("seal",), (Span("artist", 0, 1),)))
    bank.add(Annotated("music", "play", ("play", "adele"), (Span("artist", 1, 2),)))
    request = Annotated("music", "play", ("play", "adele"), (Span("artist", 1, 2),))
    kinds = [kind for kind, _ in bank.fill(request, np.random.default_rng(0))]
    assert kinds == ["other_value"]
