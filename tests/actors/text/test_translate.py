"""Translation as a stage: n-best with scores, batches, placeholders, languages, and rejects."""

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("transformers")
pytest.importorskip("ctranslate2")

from gristmill.actors.text.translate import (
    DAMAGED,
    UNITS,
    BeamSearchSettings,
    CountUnits,
    SourceSettings,
    Translate,
    TranslationSettings,
    stages,
)
from gristmill.actors.text.translator_files import reader
from gristmill.models.text.placeholders import Protected
from gristmill.models.text.translator import load_translator
from gristmill.models.text.translator_units import TranslatorUnits
from gristmill.shards.errors import UserError
from gristmill.shards.schema import SLOT
from gristmill.shards.stage import ArtifactRef
from tests.actors.text.translators import pair_table, sealed, sentences, trained

LANGUAGES = {"source_lang": "en", "target_lang": "hi"}


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    folder = tmp_path_factory.mktemp("translator")
    return trained(folder, sealed(folder, "pairs", sentences(400)))


def actor(translator, n=3, beam=6, catalogue=None, **more):
    decoding = BeamSearchSettings(n=n, beam=beam, **more)
    return Translate(TranslationSettings(decoding=decoding, catalogue=catalogue or {}), translator.url)


def test_it_translates_unseen_text(translator):
    seen = set(sentences(400))
    rows = [row for row in sentences(60, seed=1) if row not in seen]
    out = actor(translator)(pair_table(rows))
    words = total = 0
    for (_, target), found in zip(rows, out["translations"].to_pylist(), strict=True):
        words += len(set(target.split()) & set(found[0]["text"].split()))
        total += len(set(target.split()))
    assert words > 0.7 * total


def test_the_best_are_distinct_and_their_scores_are_log_probabilities(translator):
    import torch

    model, units = load_translator(reader(translator.url), translator.url)
    texts = ["turn on the light", "close window"]
    for penalty in (1.0, 0.6):
        out = actor(translator, length_penalty=penalty)(pair_table([(text, "x") for text in texts]))
        for text, found in zip(texts, out["translations"].to_pylist(), strict=True):
            assert len(found) == 3
            assert len({one["text"] for one in found}) == 3
            normed = [one["logprob"] / one["units"] ** penalty for one in found]
            assert normed == sorted(normed, reverse=True)
            for one in found:
                target = torch.tensor([units.target_ids(one["text"])])
                if target.shape[1] != one["units"]:
                    continue  # the same text in other pieces
                start = torch.full((1, 1), model.config.pad_token_id)
                with torch.no_grad():
                    logits = model(
                        input_ids=torch.tensor([units.source_ids(text)]),
                        decoder_input_ids=torch.cat([start, target[:, :-1]], 1),
                        use_cache=False,
                    ).logits[..., :-1]  # the pad is never generated
                logits[..., units.target.number["<unk>"]] = -torch.inf  # nor is the unknown unit
                logits[:, 0, units.target.number["</s>"]] = -torch.inf  # nor an empty translation
                logs = torch.log_softmax(logits, -1).gather(-1, target[..., None])
                assert one["logprob"] == pytest.approx(float(logs.sum()), abs=1e-3)


def test_a_translation_does_not_depend_on_the_batch(translator):
    rows = sentences(40, seed=2)
    translate = actor(translator)
    whole = translate(pair_table(rows))["translations"].to_pylist()
    for place in (0, 7, 39):
        (alone,) = translate(pair_table(rows[place : place + 1]))["translations"].to_pylist()
        assert [one["text"] for one in alone] == [one["text"] for one in whole[place]]
        np.testing.assert_allclose(
            [one["logprob"] for one in alone], [one["logprob"] for one in whole[place]], atol=1e-4
        )


def test_numbers_slots_and_the_catalogue_are_kept(translator):
    slots = [
        [{"name": "area", "value": "the den", "start": 2, "end": 4}],
        [{"name": "thing", "value": "Sofa Bed", "start": None, "end": None}],
        [],
    ]
    texts = ["turn on the den", "open the sofa bed", "set fan to 47"]
    table = pa.table(
        {
            "id": ["a", "b", "c"],
            "source": texts,
            "tokens": [text.split() for text in texts],
            "slots": pa.array(slots, pa.list_(SLOT)),
        }
    )
    catalogue = {"the den": "मांद"}
    every = actor(translator, n=1, catalogue=catalogue)(table)["translations"].to_pylist()
    assert "मांद" in every[0][0]["text"]
    assert "sofa bed" in every[1][0]["text"]
    assert "47" in every[2][0]["text"]
    known = actor(translator, n=1, protect="catalogue", catalogue=catalogue)
    assert known._protected(texts[1], table.to_pylist()[1]) == Protected(texts[1])
    assert known._protected(texts[0], table.to_pylist()[0]).values == (("<v0>", "the den"),)
    searched = known._protected("Leave The Den at 7", {})
    assert searched == Protected("leave <v0> at <v1>", (("<v0>", "the den"), ("<v1>", "7")))
    assert actor(translator, protect="none")._protected("at 7", {}) == Protected("at 7")


class Beam:
    """The result of a beam search."""

    def __init__(self, hypotheses, scores):
        self.hypotheses, self.scores = hypotheses, scores


def test_translations_that_lost_a_mark_are_dropped_if_one_is_intact(translator):
    translate = actor(translator, n=2)
    protected = Protected("set <v0>", (("<v0>", "5"),))
    whole = Beam([["▁यह"], ["▁यह", "▁", "<v0>"], ["▁", "<v0>", "<v0>"]], [-0.1, -0.2, -0.3])
    found, damaged = translate._best(whole, protected)
    assert [one["text"] for one in found] == ["यह 5"]
    assert found[0]["logprob"] == pytest.approx(-0.2 * 4)
    assert damaged == 2
    mended, damaged = translate._best(Beam([["▁यह"], ["▁", "<v0>", "<v0>"]], [-0.1, -0.3]), protected)
    assert [one["text"] for one in mended] == ["यह 5"]
    assert damaged == 2
    assert translate._best(Beam([[]], [-1.0]), Protected("x")) == ([], 0)


def test_empty_and_too_long_texts_are_rejected(translator):
    table = pair_table([("", "x"), (" ".join(["light"] * 300), "x"), ("open", "x")])
    table = table.set_column(1, "source", pa.array([None, *table["source"].to_pylist()[1:]], pa.string()))
    counted = CountUnits(SourceSettings(), translator.url)(table)
    assert counted[UNITS].to_pylist()[0] == 0
    assert counted[UNITS].to_pylist()[1] > 256
    out = actor(translator)(table)
    assert out["reject_reason"].to_pylist()[:2] == ["no text", "more than 255 units"]
    assert out["translations"].to_pylist()[1] is None
    assert out["reject_reason"].to_pylist()[2] is None
    assert out[DAMAGED.name].to_pylist() == [0, 0, 0]


def test_a_translator_without_the_target_language_is_refused(translator, tmp_path):
    ref = translator.ref
    with pytest.raises(UserError, match="from 'en' into 'hi'; expected from 'en' into 'mr'"):
        stages(ref, TranslationSettings(), source_lang="en", target_lang="mr")
    with pytest.raises(UserError, match="expected from 'fr' into 'hi'"):
        stages(ref, TranslationSettings(), source_lang="fr", target_lang="hi")
    with pytest.raises(UserError, match="expected a translator of this project, or a Marian checkpoint"):
        stages(ArtifactRef(str(tmp_path), "x"), TranslationSettings(), **LANGUAGES)
    measure, translate = stages(ref, TranslationSettings(), **LANGUAGES)
    assert measure.name == "count_units"
    assert translate.batch.cost == UNITS


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("vocab.json", b"[1]", "not a vocabulary"),
        ("vocab.json", b'{"</s>":0,"<unk>":1,"<pad>":3}', "have gaps"),
        ("vocab.json", b'{"</s>":0,"<pad>":1,"<unk>":2}', "<pad> as the last"),
        ("source.spm", None, "no source.spm"),
        ("config.json", b'{"model_type":"bert"}', "expected a Marian checkpoint"),
        ("config.json", None, "expected a Marian checkpoint"),
        ("model.safetensors", None, "no weights"),
        ("model.safetensors", b"\x80\x04rest of a pickle", "a pickle"),
    ],
)
def test_a_damaged_translator_is_reported_in_a_sentence(translator, name, data, message):
    read = reader(translator.url)
    with pytest.raises(UserError, match=message):
        load_translator(lambda asked: data if asked == name else read(asked), "here")


def test_weights_of_another_size_are_refused(translator):
    from safetensors.torch import load, save

    read = reader(translator.url)
    tensors = load(read("model.safetensors"))
    gone = {name: value for name, value in tensors.items() if not name.startswith("model.decoder.embed")}
    for made, message in ((gone, "missing"), ({**tensors, "more": tensors["final_logits_bias"].clone()}, "unknown")):
        data = save(made)
        with pytest.raises(UserError, match=message):
            load_translator(lambda asked, data=data: data if asked == "model.safetensors" else read(asked), "here")


def test_unknown_units_are_marked(translator):
    units = TranslatorUnits.from_files(reader(translator.url), "here")
    assert units.source_tokens("Turn ж")[-2:] == ["<unk>", "</s>"]
    assert units.target_text(["▁यह", "<unk>", "<unused0>", "</s>", "▁बत्ती"]) == "यह बत्ती"
    assert not units.joint
