"""Training of translators: exact repeats and resumption, fine-tuning, reading of checkpoints, and errors."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("ctranslate2")

from gristmill.actors.text.translator_data import encode, read_pairs
from gristmill.actors.text.translator_files import FAST, check_languages, load_fast, read_units, reader
from gristmill.actors.text.translator_trainer import train
from gristmill.cluster.inprocess import InProcessContext
from gristmill.models.text.placeholders import EMPTY, Catalogue
from gristmill.models.text.translator import load_translator
from gristmill.models.text.translator_units import TranslatorUnitSettings, fit_units
from gristmill.pipelines.command.trial import Trial
from gristmill.shards.artifact import get_artifact, put_artifact
from gristmill.shards.errors import SettingsError, UserError
from gristmill.shards.job import TrainJob
from tests.actors.text.translators import SMALL, sealed, sentences

WEIGHTS = "model.safetensors"


class Killed(Exception):
    pass


class Dies(InProcessContext):
    """A worker that dies after its second checkpoint."""

    def report(self, metrics, checkpoint=None):
        super().report(metrics, checkpoint)
        self.seen = getattr(self, "seen", 0) + (checkpoint is not None)
        if self.seen == 2:
            raise Killed


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return sealed(tmp_path_factory.mktemp("pairs"), "pairs", sentences(120))


def run(folder, *sets, context=InProcessContext, weights=(1.0, 1.0), seed=0, init=None, dev=None, **more):
    data = [(one.url, weight) for one, weight in zip(sets, weights, strict=False)]
    settings = SMALL.but(**{"epochs": 3, **more})
    return train(settings, context(str(folder)), data=data, seed=seed, init=init, dev=dev)


def test_the_same_config_gives_the_same_files_and_a_resumed_run_too(pairs, tmp_path):
    given = {"checkpoint_steps": 4, "average": 2, "seed": 3}
    whole = run(tmp_path / "whole", pairs, **given)
    again = run(tmp_path / "again", pairs, **given)
    assert whole["files"] == again["files"]
    with pytest.raises(Killed):
        run(tmp_path / "killed", pairs, context=Dies, **given)
    resumed = run(tmp_path / "killed", pairs, **given)
    assert resumed["files"] == whole["files"]
    assert resumed["curves"] == whole["curves"]
    assert run(tmp_path / "other", pairs, **{**given, "seed": 4})["files"][WEIGHTS] != whole["files"][WEIGHTS]


def test_it_learns_and_reports_the_loss_of_held_out_pairs(pairs, tmp_path):
    dev = sealed(tmp_path, "dev", sentences(30, seed=9))
    made = run(tmp_path / "run", pairs, dev=dev.url)
    losses = [point["dev_loss"] for point in made["curves"] if "dev_loss" in point]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert made["model"]["pairs"] == 120
    assert made["model"]["dim"] == 32


def test_the_start_from_counts_is_worth_epochs(pairs, tmp_path):
    dev = sealed(tmp_path, "dev", sentences(30, seed=9))
    lost = {}
    for start in (True, False):
        made = run(tmp_path / str(start), pairs, dev=dev.url, epochs=1, bilingual_start=start)
        lost[start] = made["curves"][-1]["dev_loss"]
    assert lost[True] < lost[False]


def test_training_goes_on_from_a_translator_with_its_units(pairs, tmp_path):
    first = run(tmp_path / "first", pairs)
    artifact = put_artifact(str(tmp_path / "artifact"), first["files"], {})
    more = sealed(tmp_path, "more", sentences(40, seed=5))
    tuned = run(tmp_path / "tuned", pairs, more, init=artifact.url, weights=[0.5, 2.0], epochs=1, lr=1e-4)
    for name in ("vocab.json", "source.spm", "target.spm", "translator.json"):
        assert tuned["files"][name] == first["files"][name]
    assert tuned["files"][WEIGHTS] != first["files"][WEIGHTS]
    assert tuned["curves"][0]["loss"] < first["curves"][0]["loss"]


def test_transformers_reads_the_files_and_gives_the_same_network(pairs, tmp_path):
    import torch
    from transformers import MarianMTModel

    made = run(tmp_path / "run", pairs)["files"]
    folder = tmp_path / "marian"
    folder.mkdir()
    for name, data in made.items():
        if not name.startswith(FAST):
            (folder / name).write_bytes(data)
    theirs = MarianMTModel.from_pretrained(folder).eval()
    ours, units = load_translator(reader(str(folder)), str(folder))
    source = torch.tensor([units.source_ids("turn on the light")])
    target = torch.tensor([units.target_ids("यह बत्ती")])
    with torch.no_grad():
        assert torch.equal(
            *(model(input_ids=source, decoder_input_ids=target, use_cache=False).logits for model in (ours, theirs))
        )


def test_a_marian_checkpoint_of_the_users_is_read(pairs, tmp_path):
    """Like published ones: pickled weights, one vocabulary, the target language in the tokenizer's file."""
    import torch
    from transformers import MarianConfig, MarianMTModel

    units = fit_units(
        *zip(*sentences(120), strict=True), "en", "hi", TranslatorUnitSettings(units=120, placeholders=False)
    )
    tokens = ["</s>", "<unk>", ">>hin<<", ">>mar<<"]
    tokens += [token for side in (units.source, units.target) for token in side.tokens[2:-1]]
    tokens = [*dict.fromkeys(tokens), "<pad>"]
    made = MarianMTModel(
        MarianConfig(
            vocab_size=len(tokens),
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            max_position_embeddings=64,
            pad_token_id=len(tokens) - 1,
            decoder_start_token_id=len(tokens) - 1,
            scale_embedding=True,
            activation_function="swish",
        )
    )
    folder = tmp_path / "user"
    folder.mkdir()
    (folder / "config.json").write_text(made.config.to_json_string())
    torch.save(made.state_dict(), folder / "pytorch_model.bin")
    (folder / "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(tokens)}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"source_lang": "en", "target_lang": "inc"}))
    (folder / "source.spm").write_bytes(units.source.model)
    (folder / "target.spm").write_bytes(units.target.model)
    with pytest.raises(UserError, match=r"several languages.*>>hin<<, >>mar<<"):
        run(tmp_path / "none", pairs, init=str(folder))
    with pytest.raises(UserError, match="no token '>>hi<<'; expected one of >>hin<<"):
        run(tmp_path / "other", pairs, init=str(folder), prefix=">>hi<<")
    check_languages(read_units(str(folder), ">>hin<<"), "user", "en", "hi")
    (folder / "tokenizer_config.json").write_text(json.dumps({"source_lang": "eng", "target_lang": "mul"}))
    check_languages(read_units(str(folder), ">>hin<<"), "user", "en", "hi")
    with pytest.raises(UserError, match="from 'eng' into 'mar'; expected from 'en' into 'hi'"):
        check_languages(read_units(str(folder), ">>mar<<"), "user", "en", "hi")
    with pytest.raises(UserError, match="user: has no letters of 'ta'"):
        check_languages(replace(read_units(str(folder), ">>hin<<"), prefix=">>inc<<"), "user", "en", "ta")
    (folder / "target.spm").write_bytes(units.target.model[:300])
    with pytest.raises(UserError, match=r"target\.spm is damaged; expected a SentencePiece model"):
        read_units(str(folder))
    (folder / "target.spm").write_bytes(units.target.model)
    tuned = run(tmp_path / "tuned", pairs, init=str(folder), prefix=">>hin<<", epochs=1)
    put_artifact(str(tmp_path / "artifact"), tuned["files"], {})
    for place in (str(folder), str(tmp_path / "artifact")):
        files, read = load_fast(place, ">>hin<<")
        assert "model.bin" in files
        assert read.source_tokens("turn")[0] == ">>hin<<"
        assert read.source_ids("turn")[-1] == 0
    assert json.loads(tuned["files"]["translator.json"])["prefix"] == ">>hin<<"

    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"a": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="holds more than tensors"):
        load_translator(reader(str(folder)), str(folder))


def test_batches_hold_every_pair_once_and_weights_are_drawn_by_epoch(pairs):
    texts = read_pairs([pairs.url, pairs.url], "en", "hi", [0.5, 2.0])
    units = fit_units(texts.source, texts.target, "en", "hi", TranslatorUnitSettings(units=120))
    made = encode(texts, units, EMPTY, 100)
    for draw in (np.random.default_rng(0), np.random.default_rng(1)):
        batches = made.batches(60, draw)
        rows = np.concatenate(batches)
        assert sorted(rows[rows >= 120]) == sorted([*range(120, 240)] * 2)
        assert 30 < (rows < 120).sum() < 90
        for batch in batches:
            source, target = made.padded(batch, 999)
            assert len(batch) == 1 or len(batch) * max(source.shape[1], target.shape[1]) <= 60
    assert sorted(np.concatenate(made.batches(60)).tolist()) == list(range(240))
    assert len(encode(texts, units, EMPTY, 4)) + encode(texts, units, EMPTY, 4).too_long == 240


def test_values_on_both_sides_are_trained_as_marks(pairs):
    texts = read_pairs([pairs.url], "en", "hi").protected(Catalogue({"kitchen light": "रसोई बत्ती"}))
    marked = [(one, other) for one, other in zip(texts.source, texts.target, strict=True) if "<v" in one]
    assert marked
    assert all(("<v" in one) == ("<v" in other) for one, other in zip(texts.source, texts.target, strict=True))
    assert not any(sign.isdigit() for one, _ in marked for word in one.split() if word[0] != "<" for sign in word)
    units = fit_units(texts.source, texts.target, "en", "hi", TranslatorUnitSettings(units=120))
    assert all(units.source.number["<v7>"] in units.source_ids(f"set to {mark}") for mark in ["<v7>"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"epochs": None}, "epochs and steps: expected one of them"),
        ({"steps": 3}, "epochs and steps: expected one of them"),
        ({"lr": -1}, "greater than 0"),
        ({"learning_rate": 1}, "learning_rate"),
        ({"model": {"width": 3}}, "width"),
        ({"model": {"dim": 30, "heads": 4}}, "dim is 30 and heads is 4; expected a dim that is a multiple of twice"),
    ],
)
def test_wrong_settings_are_refused(more, message):
    with pytest.raises(SettingsError, match=message):
        SMALL.but(**more)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"target_lang": "mr"}, r"pairs of .*'hi'.*expected 'en' and 'mr'"),
        ({"most_units": 2}, "has more than 2 units"),
        ({"init": "/nowhere"}, "no vocab.json; expected a translator"),
    ],
)
def test_mistakes_are_reported_in_a_sentence(pairs, tmp_path, more, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path, pairs, **more)


def test_a_trial_takes_a_few_steps_and_leaves_a_whole_translator(pairs, tmp_path):
    trial = Trial()
    TrainJob("tried", loop=train, settings=SMALL, inputs={"data": [(pairs, 1.0)]}).run(str(tmp_path / "tried"), trial)
    assert len(trial.at[0]) == trial.trial_steps
    whole = run(tmp_path / "whole", pairs, epochs=12)
    assert trial.steps == {0: whole["curves"][-1]["step"] + 1}
    assert trial.seconds > 0
    assert {*whole["files"]} == {*get_artifact(str(tmp_path / "tried")).files} - {"training.json"}
    assert "model.bin" in load_fast(str(tmp_path / "tried"))[0]


def test_sets_without_a_pair_or_of_other_columns_are_refused(pairs, tmp_path):
    empty = sealed(tmp_path, "empty", [("", ""), ("", "")])
    with pytest.raises(UserError, match="no pairs of texts"):
        run(tmp_path / "run", empty)
    other = sealed(tmp_path, "other", sentences(4), langs=("de", "hi"))
    with pytest.raises(UserError, match="pairs of"):
        run(tmp_path / "run", pairs, other)


def test_a_translator_of_other_languages_is_rejected(pairs, tmp_path):
    first = run(tmp_path / "first", pairs, epochs=1)
    artifact = put_artifact(str(tmp_path / "artifact"), first["files"], {})
    marathi = sealed(tmp_path, "marathi", sentences(20), langs=("en", "mr"))
    with pytest.raises(UserError, match="from 'en' into 'hi'; expected from 'en' into 'mr'"):
        run(tmp_path / "tuned", marathi, init=artifact.url, target_lang="mr")
