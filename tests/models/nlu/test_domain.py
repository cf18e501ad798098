"""Domain models of both families: training, readings and files."""

from __future__ import annotations

import json
import math
import pickle
import tempfile
from itertools import product

import numpy as np
import pytest
import torch

from gristmill.actors.nlu.neural_trainer import NeuralTrainer
from gristmill.actors.training.loop import run_training
from gristmill.actors.training.settings import LoopSettings
from gristmill.cluster.inprocess import InProcessContext
from gristmill.models.nlu import crf, linear
from gristmill.models.nlu.crf import CrfSettings, Tagger, features
from gristmill.models.nlu.domain import Domains, Example, Slot, from_iob, predict, to_iob
from gristmill.models.nlu.families import load
from gristmill.models.nlu.linear import LinearSettings
from gristmill.models.nlu.neural import Inputs, NeuralModel, NeuralSettings
from gristmill.shards.errors import UserError
from tests.models.nlu.domain_examples import TEMPLATES, examples, requests

NEURAL = NeuralSettings(buckets=512, dim=16, hidden=16, epochs=30, batch=16, lr=1e-2, dropout=0.1)


def fit_neural(name, own, others, settings=NEURAL):
    """Return neural models trained in this process, read from their files."""
    with tempfile.TemporaryDirectory() as folder:
        made = run_training(NeuralTrainer(name, own, others, settings), LoopSettings(), InProcessContext(folder))
    return load(made["files"])


FITS = {
    "linear": lambda name, own, others: linear.fit(name, own, others, LinearSettings(min_count=1))[0],
    "neural": fit_neural,
}
FAMILIES = sorted(FITS)
NEW = (
    ("set an alarm for half past nine am", "alarm", "set", [("time", "nine am")]),
    ("please play yesterday", "music", "play", [("song", "yesterday")]),
    ("turn on the light in the attic", "light", "on", [("room", "attic")]),
    ("who sings this song", "music", "what", []),
    ("thanks", "chat", "thanks", []),
)


@pytest.fixture(scope="module")
def trained():
    return {family: {name: FITS[family](name, *examples(name)) for name in TEMPLATES} for family in FAMILIES}


@pytest.fixture(scope="module", params=FAMILIES)
def models(request, trained):
    return trained[request.param]


def test_what_can_be_learned_is_learned(models):
    together = Domains(models.values())
    rows = requests()
    read = together.read([row["tokens"] for row in rows], 4, 2)
    best = [found[0] for found in read]
    assert [name for name, _ in best] == [row["domain"] for row in rows]
    assert np.mean([reading.intent == row["intent"] for (_, reading), row in zip(best, rows, strict=True)]) > 0.97
    assert (
        np.mean([[s._asdict() for s in r.slots] == row["slots"] for (_, r), row in zip(best, rows, strict=True)]) > 0.95
    )
    right = 0
    for text, domain, intent, slots in NEW:
        name, reading = together.read([text.split()], 1)[0][0]
        right += (name, reading.intent) == (domain, intent) and [s[:2] for s in reading.slots] == slots
    assert right >= len(NEW) - 1


def test_the_list_is_the_best_of_all_readings(models):
    """Readings left out early as too low are those that a full list would have cut."""
    together = Domains(models.values())
    tokens = [row["tokens"] for row in requests()] + [[], ["zzz"], ["play", "the", "alarm", "in", "the", "kitchen"]]
    every = together.read(tokens, 1000, 1000)
    assert {len(found) for found in every} == {sum(map(len, TEMPLATES.values()))}
    for n in (1, 3, 6):
        assert together.read(tokens, n, 1000) == [found[:n] for found in every]
    for found in every:
        keys = [(-reading.total, name, reading.intent) for name, reading in found]
        assert keys == sorted(keys)
        for name in models:
            mass = sum(math.exp(reading.intent_logprob) for other, reading in found if other == name)
            assert mass == pytest.approx(1.0, abs=1e-5)


def test_a_reading_does_not_depend_on_the_batch_or_the_other_domains(models):
    family = models["alarm"].family
    tokens = [row["tokens"] for row in requests()] + [[], ["play"] * 30]
    together = Domains(models.values()).read(tokens, 100, 100)
    for row, one in enumerate(tokens):
        for name in ("alarm", "chat"):
            got = [reading for other, reading in together[row] if other == name]
            alone = predict(models[name], [one], 100)[0]
            if family == "linear":
                assert got == alone
            else:
                assert [r[:2] for r in got] == [r[:2] for r in alone]
                np.testing.assert_allclose([r[2:] for r in got], [r[2:] for r in alone], atol=2e-5)


def test_trained_twice_or_loaded_it_is_the_same(models):
    family = models["alarm"].family
    for name in ("music", "chat"):
        files = models[name].files()
        assert FITS[family](name, *examples(name)).files() == files
        assert load(files).files() == files
        tokens = [row["tokens"] for row in requests()]
        assert predict(load(files), tokens) == predict(models[name], tokens)


def test_files_that_do_not_fit_are_refused(models):
    files = models["alarm"].files()
    described = json.loads(files["model.json"])
    for wrong, word in (
        ({}, "model.json"),
        ({"model.json": b"{"}, "model.json"),
        ({**files, "model.json": json.dumps(described | {"format": 99}).encode()}, "format 99"),
        ({**files, "model.json": json.dumps(described | {"family": "os"}).encode()}, "family 'os'"),
        ({**files, "model.json": json.dumps(described | {"intents": ["set"]}).encode()}, "do not match"),
        ({**files, "weights.safetensors": pickle.dumps([1])}, "do not match"),
        ({"model.json": files["model.json"]}, "do not match"),
    ):
        with pytest.raises(UserError, match=word):
            load(wrong)
    with pytest.raises(UserError, match="alarm"):
        Domains([models["alarm"], models["alarm"]])
    with pytest.raises(UserError, match="1 or more"):
        Domains([models["alarm"]]).read([["a"]], 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_domain_without_requests_of_both_kinds_is_refused(family):
    own, others = examples("alarm")
    for given in (([], others), (own, [])):
        with pytest.raises(UserError, match=r"'alarm'.*expected both"):
            FITS[family]("alarm", *given)


def test_both_solvers_agree():
    tokens = [row["tokens"] for row in requests()]
    found = []
    for solver in ("lbfgs", "liblinear"):
        model, _ = linear.fit("alarm", *examples("alarm"), LinearSettings(solver=solver, min_count=1))
        found.append(np.exp([readings[0].domain_logprob for readings in predict(model, tokens)]))
    np.testing.assert_allclose(*found, atol=0.05)


@pytest.mark.parametrize("solver", ["lbfgs", "liblinear"])
def test_requests_that_share_no_ngram_are_told_by_their_frequency(solver):
    own = [Example([word], intent, ["O"]) for word, intent in (("ab", "on"), ("cd", "on"), ("ef", "on"), ("gh", "off"))]
    made, metrics = linear.fit("light", own, [["xy"]], LinearSettings(solver=solver))
    assert metrics["grams"] == 0
    model = load(made.files())
    assert model.files() == made.files()
    for readings in predict(model, [["ab"], ["xy"], []]):
        assert [reading.intent for reading in readings] == ["on", "off"]
        assert [math.exp(reading.intent_logprob) for reading in readings] == pytest.approx([0.75, 0.25], abs=0.01)
        assert math.exp(readings[0].domain_logprob) == pytest.approx(0.8, abs=0.02)
    other, _ = linear.fit("music", *examples("music"))
    (found,) = Domains([model, other]).read([["play", "hello"]], 9, 1)
    assert [name for name, _ in found] == ["music", "light"]


def test_less_regularisation_makes_more_confident_scores():
    tokens = [row["tokens"] for row in requests() if row["domain"] == "alarm"]
    mean = [
        np.mean([r[0].domain_logprob for r in predict(linear.fit("alarm", *examples("alarm"), s)[0], tokens)])
        for s in (LinearSettings(domain_c=0.1), LinearSettings(domain_c=1), LinearSettings(domain_c=100))
    ]
    assert mean == sorted(mean)


def test_tags_of_all_kinds_have_a_mass_of_one(trained):
    tokens = ["alarm", "at", "noon"]
    tagger: Tagger = trained["linear"]["alarm"].tagger
    items = features(tokens)
    logs = [tagger.logprob(items, tags) for tags in product(tagger.labels, repeat=3)]
    assert sum(map(math.exp, logs)) == pytest.approx(1.0, abs=1e-6)
    tags, logprob = tagger(3, items)
    assert logprob == max(logs)
    assert from_iob(tokens, tags) == (Slot("time", "noon", 2, 3),)
    model: NeuralModel = trained["neural"]["alarm"]
    every = torch.tensor(list(product(range(len(model.tags)), repeat=3)))
    inputs = Inputs([tokens, [*tokens, "and", "more"]], model.settings.buckets)  # padded, as in a batch
    with torch.no_grad():
        scores = model.network(inputs)[2]
        best = model.network.crf.best(scores, inputs.lengths)[0, :3]
        padded = torch.nn.functional.pad(every, (0, 2))
        many = scores[:1].expand(len(every), -1, -1)
        logs = model.network.crf.logprob(many, torch.full((len(every),), 3), padded)
    assert float(logs.exp().sum()) == pytest.approx(1.0, abs=1e-5)
    assert best.tolist() == every[logs.argmax()].tolist()


def test_spans_point_at_values(models):
    tokens = [row["tokens"] for row in requests()]
    seen = 0
    for row, found in zip(tokens, Domains(models.values()).read(tokens, 100), strict=True):
        for _, reading in found:
            free = 0
            for slot in reading.slots:
                assert free <= slot.start < slot.end <= len(row)
                assert slot.value == " ".join(row[slot.start : slot.end])
                free, seen = slot.end, seen + 1
    assert seen > 100


def test_tags_go_round():
    tokens = ["a", "b", "c", "d", "e"]
    tags = to_iob(5, [("y", 3, 5), ("x", 0, 2), ("x", 2, 3), ("z", 1, 3), ("late", 4, 6), ("none", 2, 2)])
    assert tags == ["B-x", "I-x", "B-x", "B-y", "I-y"]
    assert from_iob(tokens, tags) == (Slot("x", "a b", 0, 2), Slot("x", "c", 2, 3), Slot("y", "d e", 3, 5))
    assert from_iob(tokens, ["O", "I-x", "I-y", "I-y", "O"]) == (Slot("x", "b", 1, 2), Slot("y", "c d", 2, 4))
    assert from_iob(tokens, ["O"] * 5) == ()
    assert from_iob(["a"], ["B-to-place"]) == (Slot("to-place", "a", 0, 1),)


def test_a_tagger_of_other_bytes_is_refused(trained):
    data = trained["linear"]["alarm"].slots
    for wrong in (b"", pickle.dumps([1]), data[:-10], b"lCRF"):
        with pytest.raises(UserError, match="CRFsuite"):
            Tagger(wrong)
    assert Tagger(None)(2, features(["a", "b"])) == (["O", "O"], 0.0)
    assert crf.fit(examples("chat")[0], CrfSettings()) is None


@pytest.mark.parametrize(("token", "written"), [("Play", "Aa"), ("9:30", "0:0"), ("ABC-12", "A-0"), ("über", "a")])
def test_shapes(token, written):
    assert crf.shape(token) == written


@pytest.mark.parametrize("epochs", [1, 2, 10, 11])
def test_a_domain_of_a_single_batch_trains(epochs: int) -> None:
    own = [Example(["wake", "me"], "set", ["O", "O"])]
    settings = NeuralSettings(epochs=epochs, dim=4, hidden=4, buckets=16)
    model = fit_neural("alarm", own, [["play", "it"]], settings)
    assert all(np.isfinite(value).all() for value in model.network.state_dict().values())
