"""The actor that decodes with words: its columns are those of the search, whatever batch a row is in."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from gristmill.actors.speech.decode import LANGUAGE_FILE, LEXICON_FILE, Decode, DecoderStageSettings, read_lexicon
from gristmill.actors.speech.features import ragged
from gristmill.actors.speech.recognise import outputs
from gristmill.actors.speech.teacher_checkpoint import Checkpoint
from gristmill.models.speech.acoustic import AcousticModel, AcousticSettings
from gristmill.models.speech.checkpoint import save_acoustic
from gristmill.models.speech.decoder import Decoder
from gristmill.models.speech.features import METADATA_KEY
from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.units import phonemes
from gristmill.models.text.ngram import NgramSettings, estimate
from gristmill.models.word_models import read_table, table_bytes, table_model
from gristmill.shards.errors import UserError
from tests.actors.speech.toy import MODEL, SETTINGS, UNITS, spoken


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    model = AcousticModel(AcousticSettings(**MODEL), SETTINGS.n_mels, len(UNITS))
    (tmp_path / "model.safetensors").write_bytes(save_acoustic(model, UNITS, SETTINGS))
    arpa = estimate([["a", "cab"], ["bad", "ab"], ["dab", "a", "cab"]], NgramSettings(order=2))
    words = table_model(arpa.words, [(one.words, one.logprob, one.backoff) for one in arpa.orders])
    (tmp_path / LANGUAGE_FILE).write_bytes(table_bytes(words))
    (tmp_path / LEXICON_FILE).write_text("ab\ncab\n\nbad\n")
    return tmp_path


def batch():
    rng = np.random.default_rng(2)
    rows = [spoken(text, rng) for text in ("ab cab", "bad", "a dab ab")]
    rows.insert(1, np.zeros((0, SETTINGS.n_mels), np.float16))
    table = pa.table(
        {
            "id": list("wxyz"),
            "duration": [0.3, 0.0, 0.2, 9.0],
            "features": ragged([row.ravel() for row in rows], pa.float16()),
            "feature_frames": pa.array([len(row) for row in rows], pa.int32()),
        }
    )
    return table.replace_schema_metadata({METADATA_KEY: SETTINGS.to_json()})


@pytest.mark.parametrize("given", [(), ("lexicon",), ("language",), ("lexicon", "language")])
def test_its_columns_are_what_the_decoder_finds(folder, given):
    url, table = str(folder), batch()
    settings = DecoderStageSettings(nbest=3, unknown=-2.0)
    found = Decode(settings, url, **dict.fromkeys(given, url))(table)
    rows = found.to_pylist()
    words = read_table((folder / LANGUAGE_FILE).read_bytes(), "it") if "language" in given else None
    lexicon = None
    if given:
        lexicon = Lexicon.spelled(["ab", "cab", "bad"] if "lexicon" in given else words.words, UNITS)
    model = Checkpoint(url)
    decoder = Decoder(UNITS, settings, lexicon, words)
    for place, scores in outputs(model, "it", table):
        wanted = decoder.decode(scores, frame=1 / model.info.frame_rate)
        assert rows[place]["hypothesis"] == wanted[0].text
        assert [one["text"] for one in rows[place]["nbest"]] == [one.text for one in wanted]
        assert [one["word"] for one in rows[place]["words"]] == [one.word for one in wanted[0].words]
        assert all(one["end"] <= rows[place]["duration"] + 1e-6 for one in rows[place]["words"])
    assert (rows[1]["hypothesis"], rows[1]["words"], rows[1]["nbest"]) == ("", [], [])
    assert rows[1]["hypothesis_confidence"] is None
    alone = [Decode(settings, url, **dict.fromkeys(given, url))(table.slice(place, 1)) for place in range(4)]
    assert pa.concat_tables(alone).to_pylist() == rows


def test_what_is_not_there_or_cannot_be_read_is_said(folder):
    url = str(folder)
    (folder / LANGUAGE_FILE).write_bytes(b"PK")
    with pytest.raises(UserError, match="not a table of n-grams"):
        Decode(DecoderStageSettings(), url, language=url)
    (folder / LEXICON_FILE).unlink()
    with pytest.raises(UserError, match=f"has no {LEXICON_FILE}"):
        Decode(DecoderStageSettings(), url, lexicon=url)
    with pytest.raises(UserError, match="line 2 is 'b'; expected a word, a tab and its phonemes"):
        read_lexicon(b"a\ta\nb\n", phonemes(["a"]), "it")
    with pytest.raises(UserError, match="expected a word"):
        read_lexicon(b"a\ta\n", UNITS, "it")
