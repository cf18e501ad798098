"""The actor that decodes with words: its columns are those of the search, whatever batch a row is in."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from gristmill.actors.ngram_files import FILE, build_store, load_store
from gristmill.actors.speech.decode import Decode, DecoderStageSettings, make_decoder
from gristmill.actors.speech.features import ragged
from gristmill.actors.speech.lexicon_files import LEXICON_FILE, read_lexicon
from gristmill.actors.speech.recognise import outputs
from gristmill.actors.speech.teacher_checkpoint import Checkpoint
from gristmill.models.ngrams.build import StoreSettings
from gristmill.models.ngrams.estimate import NgramSettings, estimate
from gristmill.models.speech.acoustic import AcousticModel, AcousticSettings
from gristmill.models.speech.checkpoint import save_acoustic
from gristmill.models.speech.decoder import Decoder
from gristmill.models.speech.features import METADATA_KEY
from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.units import phonemes
from gristmill.shards.errors import UserError
from tests.actors.speech.toy import MODEL, SETTINGS, UNITS, spoken


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    model = AcousticModel(AcousticSettings(**MODEL), SETTINGS.n_mels, len(UNITS))
    (tmp_path / "model.safetensors").write_bytes(save_acoustic(model, UNITS, SETTINGS))
    arpa = estimate([["a", "cab"], ["bad", "ab"], ["dab", "a", "cab"]], NgramSettings(order=2))
    (tmp_path / FILE).write_bytes(arpa.to_bytes())
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
    words = load_store(url) if "language" in given else None
    lexicon = None
    if given:
        lexicon = Lexicon.spelled(["ab", "cab", "bad"] if "lexicon" in given else words.words.names(), UNITS)
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


def test_a_store_is_as_its_arpa_file_and_a_lexicon_any_file(folder):
    table, settings = batch(), DecoderStageSettings(nbest=3, unknown=-2.0)
    build_store(str(folder), str(folder / "lm.store"), StoreSettings())
    (folder / "words.txt").write_text("ab\ncab\nbad\n")
    found = [
        Decode(settings, str(folder), str(folder / lexicon), str(folder / language))(table)
        for lexicon, language in (("", ""), ("words.txt", "lm.store"), (LEXICON_FILE, FILE))
    ]
    assert found[0].equals(found[1])
    assert found[0].equals(found[2])


@pytest.mark.parametrize(
    ("lexicon", "language", "expected"),
    [
        ("none.txt", None, "none.txt: no such file; expected a lexicon"),
        ("empty", None, "empty: has no lexicon.tsv; expected a lexicon"),
        ("numbers.txt", None, "numbers.txt: the units spell none of its 2 words, the first of which is '1'"),
        ("sounds.tsv", None, "sounds.tsv: line 1 is 'ab\\tæ b'; expected a word, which characters spell"),
        ("odd.txt", None, "odd.txt: not UTF-8"),
        (None, "none.store", "none.store: no such file"),
        (None, "numbers.txt", "numbers.txt/lm.arpa: no such file"),
        (None, "other.store", "other.store: not a store of n-grams"),
        (None, "other.arpa", "other.arpa: the units spell none of its 2 words, the first of which is '1'"),
        ("others.txt", "", "has none of the 1 words of"),
        (None, "kenlm.binary", "kenlm.binary: a binary of KenLM"),
    ],
)
def test_mistakes_cost_one_sentence(folder, lexicon, language, expected):
    (folder / "empty").mkdir()
    (folder / "numbers.txt").write_text("1\n2\n")
    (folder / "sounds.tsv").write_text("ab\tæ b\n")
    (folder / "odd.txt").write_bytes(b"\xff\n")
    (folder / "others.txt").write_text("ba\n")
    (folder / "other.store").write_text("my notes")
    (folder / "kenlm.binary").touch()
    (folder / "other.arpa").write_bytes(estimate([["1", "2"]], NgramSettings(order=2)).to_bytes())
    given = [None if one is None else str(folder / one) for one in (lexicon, language)]
    with pytest.raises(UserError) as raised:
        Decode(DecoderStageSettings(), str(folder), *given)
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_phonemes_need_pronunciations(folder):
    with pytest.raises(UserError, match=r"mine\.store: words, and a recogniser of phonemes; expected a lexicon"):
        make_decoder(phonemes(["a"]), DecoderStageSettings(), None, "mine.store")
    with pytest.raises(UserError, match="line 2 is 'b'; expected a word, a tab and its phonemes"):
        read_lexicon(b"a\ta\nb\n", phonemes(["a"]), "it")
    with pytest.raises(UserError, match="it: the pronunciation 'o' of 'oh' has the symbol 'o', which is no unit"):
        read_lexicon(b"oh\to\n", phonemes(["a"]), "it")
    (folder / LEXICON_FILE).write_text("bad\tb a d\nab\ta b\nab\te b\n")
    decoder = make_decoder(phonemes(list("abde")), DecoderStageSettings(), str(folder), str(folder))
    assert decoder.lexicon.words == ("bad", "ab")
    assert decoder.lexicon.of.tolist() == [0, 1, 1]
