"""Teachers: three sources, one actor; labels are those of the model, independent of the batch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from gristmill.actors.audio import audio_array, decode, encode
from gristmill.actors.speech import teacher
from gristmill.actors.speech.teacher import TeacherSettings
from gristmill.models.speech.acoustic import AcousticModel, AcousticSettings
from gristmill.models.speech.checkpoint import save_acoustic
from gristmill.models.speech.features import METADATA_KEY as FEATURES_KEY
from gristmill.models.speech.features import FeatureSettings, log_mel
from gristmill.models.speech.topk import TopKInfo, unflatten
from gristmill.models.speech.units import characters
from gristmill.shards.artifact import put_artifact
from gristmill.shards.errors import UserError
from gristmill.shards.schema import FEATURE_FIELDS
from gristmill.shards.stage import Resources, Stage
from gristmill.shards.work import StageWorker, Work

SETTINGS = FeatureSettings(n_mels=16)
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]


def speech(count: int, seed: int = 0, rate: int = 16000) -> pa.Table:
    """Records of coloured noise, 0.2 to 1 s long."""
    rng = np.random.default_rng(seed)
    sounds = [0.1 * rng.standard_normal(int(rate * rng.uniform(0.2, 1.0))) for _ in range(count)]
    return pa.table(
        {
            "id": [f"u{i}" for i in range(count)],
            "audio": audio_array([encode(one, rate) for one in sounds]),
            "duration": [len(one) / rate for one in sounds],
        }
    )


def featured(table: pa.Table, settings: FeatureSettings = SETTINGS) -> pa.Table:
    made = [log_mel(decode(one["bytes"])[0], settings) for one in table["audio"].to_pylist()]
    flat = pa.array([one.ravel() for one in made], FEATURE_FIELDS[0].type)
    table = table.drop_columns("audio").append_column("features", flat)
    return table.replace_schema_metadata({FEATURES_KEY: settings.to_json()})


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[teacher.ArtifactRef, AcousticModel]:
    torch.manual_seed(1)
    units = characters(["the quick brown fox jumps over a lazy dog"])
    model = AcousticModel(AcousticSettings(dim=16, layers=1, heads=2, channels=4), 16, len(units)).eval()
    data = save_acoustic(model, units, SETTINGS)
    return put_artifact(str(tmp_path / "model"), {"model.safetensors": data}, {}).ref, model


@pytest.fixture
def wav2vec(tmp_path: Path) -> Path:
    return tiny_wav2vec(tmp_path / "w2v", "layer")


def tiny_wav2vec(folder: Path, norm: str) -> Path:
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    torch.manual_seed(2)
    config = Wav2Vec2Config(
        vocab_size=len(LETTERS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8, 8),
        conv_stride=(10, 16),
        conv_kernel=(15, 17),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm=norm,
        pad_token_id=0,
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder, safe_serialization=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(LETTERS)}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 16000, "do_normalize": True}))
    return folder


def labels_of(source: str, model: Any = None, *, rows: int = 64, resources: Any = None, **settings: Any) -> Stage:
    """Return the stage of a teacher, with batches of at most the given number of rows."""
    made = TeacherSettings.model_validate({"source": source, **settings})
    stage = teacher.labelling(made, model, resources=resources)
    return replace(stage, batch=replace(stage.batch, rows=rows))


def run(stage: Stage, table: pa.Table) -> pa.Table:
    work = StageWorker(stage, 0)(Work("s", table, table.num_rows))
    assert not work.quarantine, work.quarantine[0].to_pylist()
    return work.table


def labels(table: pa.Table, row: int):
    info = TopKInfo.from_metadata(table.schema.metadata)
    names = ("topk_ids", "topk_logprobs", "tail_logmass")
    flat = [np.asarray(table[name][row].values) for name in names]
    found = unflatten(*flat, info.k)
    assert len(found.tail) == table["topk_frames"][row].as_py()
    return found


def same_but_for_rounding(one: pa.Table, other: pa.Table) -> None:
    """Compare the labels of two runs: the values agree, and the ids where neighbours are not nearly equal."""
    for row in range(one.num_rows):
        a, b = labels(one, row), labels(other, row)
        np.testing.assert_allclose(a.logprobs.astype(float), b.logprobs.astype(float), atol=4e-3)
        np.testing.assert_allclose(a.tail.astype(float), b.tail.astype(float), atol=2e-2)
        values = a.logprobs.astype(float)
        gap = np.minimum(
            np.abs(np.diff(values, axis=1, prepend=np.inf)), np.abs(np.diff(values, axis=1, append=-np.inf))
        )[:, :-1]
        assert (a.ids == b.ids)[:, :-1][gap > 8e-3].all()


def test_labels_are_those_of_the_checkpoint(checkpoint) -> None:
    ref, model = checkpoint
    table = speech(3)
    out = run(labels_of("checkpoint", ref, k=5, hypothesis=True), table)
    for row in range(3):
        made = log_mel(decode(table["audio"][row].as_py()["bytes"])[0], SETTINGS)
        with torch.inference_mode():
            exact = model(torch.from_numpy(made)[None].float(), torch.tensor([len(made)]))[0][0].numpy()
        found = labels(out, row)
        assert len(found.tail) == len(exact)
        best = -np.sort(-exact, axis=1)[:, :5]
        np.testing.assert_allclose(found.logprobs.astype(float), best, atol=4e-3)
        np.testing.assert_allclose(np.exp(found.tail.astype(float)), 1 - np.exp(best).sum(1), atol=2e-3)
    assert 0 < out["confidence"][0].as_py() <= 1
    assert isinstance(out["hypothesis"][0].as_py(), str)


def test_description_is_in_the_schema(checkpoint) -> None:
    ref, model = checkpoint
    stage = labels_of("checkpoint", ref, k=5)
    info = TopKInfo.from_json(stage.metadata["gristmill.topk"])
    assert info.k == 5
    assert info.frame_rate == pytest.approx(25.0)
    assert info.features == json.loads(SETTINGS.to_json())
    assert info.vocabulary == characters(["the quick brown fox jumps over a lazy dog"]).digest
    assert stage.deterministic
    assert not labels_of("checkpoint", ref, resources=Resources(gpus=1)).deterministic
    assert TopKInfo.from_json(labels_of("checkpoint", ref, k=40).metadata["gristmill.topk"]).k == model.vocab


def test_audio_is_left_behind_where_that_is_asked(checkpoint) -> None:
    ref, _ = checkpoint
    table, stage = speech(3), labels_of("checkpoint", ref, k=5)
    whole, dropped = run(stage, table), run(replace(stage, drops=("audio",)), table)
    assert "audio" in whole.column_names
    assert dropped.equals(whole.drop_columns("audio"))
    assert dropped.schema.metadata == whole.schema.metadata


def test_stored_features_give_the_same_labels_as_audio(checkpoint) -> None:
    ref, _ = checkpoint
    table = speech(4)
    stage = labels_of("checkpoint", ref, k=5)
    one, other = run(stage, table), run(stage, featured(table))
    for name in ("topk_ids", "topk_logprobs", "tail_logmass", "topk_frames"):
        assert one[name].equals(other[name])


def test_features_of_other_settings_are_refused(checkpoint) -> None:
    ref, _ = checkpoint
    with pytest.raises(UserError, match="other settings"):
        run(labels_of("checkpoint", ref), featured(speech(1), FeatureSettings(n_mels=16, hop_s=0.02)))
    with pytest.raises(UserError, match="neither audio"):
        run(labels_of("checkpoint", ref), speech(1).drop_columns("audio"))


def test_labels_do_not_depend_on_the_batch(checkpoint) -> None:
    ref, _ = checkpoint
    table = speech(7, seed=3)
    together, alone = (run(labels_of("checkpoint", ref, k=5, rows=rows), table) for rows in (7, 1))
    same_but_for_rounding(together, alone)


@pytest.mark.parametrize("source", ["checkpoint", "huggingface"])
def test_half_precision_changes_little(source: str, checkpoint, wav2vec: Path) -> None:
    """On a CPU bfloat16 stands in for a GPU's float16: the path is the same, the log-softmax stays in float32."""
    model = checkpoint[0] if source == "checkpoint" else str(wav2vec)
    table = speech(3)
    full, half = (run(labels_of(source, model, k=5, precision=p), table) for p in ("float32", "bfloat16"))
    for row in range(3):
        one, other = labels(full, row), labels(half, row)
        np.testing.assert_allclose(one.logprobs.astype(float), other.logprobs.astype(float), atol=0.1)
        mass = np.exp(other.logprobs.astype(float)).sum(1) + np.exp(other.tail.astype(float))
        np.testing.assert_allclose(mass, 1.0, atol=4e-3)


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_hugging_face_labels_do_not_depend_on_the_batch(tmp_path: Path, norm: str) -> None:
    folder = str(tiny_wav2vec(tmp_path / norm, norm))
    table = speech(5, seed=4)
    together, alone = (run(labels_of("huggingface", folder, k=5, rows=rows), table) for rows in (5, 1))
    same_but_for_rounding(together, alone)


def test_hugging_face_labels_are_those_of_the_model(wav2vec: Path) -> None:
    from transformers import Wav2Vec2ForCTC

    table = speech(2)
    out = run(labels_of("huggingface", str(wav2vec), k=40, hypothesis=True), table)
    model = Wav2Vec2ForCTC.from_pretrained(wav2vec).eval()
    info = TopKInfo.from_metadata(out.schema.metadata)
    assert info.frame_rate == 100.0
    assert info.k == len(LETTERS)
    samples = decode(table["audio"][1].as_py()["bytes"])[0]
    ready = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    with torch.inference_mode():
        exact = model(torch.from_numpy(ready)[None]).logits.log_softmax(-1)[0].numpy()
    found = labels(out, 1)
    for value, i in zip(found.logprobs[3], found.ids[3], strict=True):
        assert float(value) == pytest.approx(exact[3, i], abs=4e-3)  # the blank of this model is 0 already
    units = teacher.describe("huggingface", str(wav2vec)).units
    assert units.tokens[4:7] == (" ", "e", "t")


def test_fingerprint_is_the_model_not_its_place(wav2vec: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    before = labels_of("huggingface", str(wav2vec)).identity()
    wav2vec.rename(moved)
    assert labels_of("huggingface", str(moved)).identity() == before
    vocabulary = moved / "vocab.json"
    vocabulary.write_text(vocabulary.read_text() + "\n")
    assert labels_of("huggingface", str(moved)).identity() != before


def test_models_that_cannot_be_read_safely_are_refused(wav2vec: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a folder nor a hub name"):
        labels_of("huggingface", "/no/such/folder")
    with pytest.raises(UserError, match="no checkpoint at"):
        labels_of("checkpoint", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="'checkpoint', 'huggingface' or 'hama'"):
        labels_of("whisper", "x")
    with pytest.raises(UserError, match="needs the location"):
        labels_of("checkpoint")
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(UserError, match="pickle"):
        labels_of("checkpoint", str(bad))
    weights = wav2vec / "model.safetensors"
    weights.rename(wav2vec / "pytorch_model.bin")
    with pytest.raises(UserError, match="no safetensors file"):
        labels_of("huggingface", str(wav2vec))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_named(checkpoint) -> None:
    ref, _ = checkpoint
    stage = labels_of("checkpoint", ref, resources=Resources(gpus=1))
    with pytest.raises(UserError, match="no GPU"):
        stage.build(0)


def test_records_without_a_frame_are_rejected(wav2vec: Path) -> None:
    table = speech(2)
    audio = audio_array([table["audio"][0].as_py()["bytes"], encode(np.zeros(20), 16000)])
    table = table.set_column(1, "audio", audio)
    work = StageWorker(labels_of("huggingface", str(wav2vec), hypothesis=True), 0)(Work("s", table, 2))
    assert work.table["id"].to_pylist() == ["u0"]
    assert work.rejects[0]["reason"].to_pylist() == ["too short for the teacher"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_records_without_finite_probabilities_are_rejected(checkpoint, precision: str) -> None:
    ref, _ = checkpoint
    table = featured(speech(4))
    values = [np.array(one.values) for one in table["features"]]
    values[2][7] = np.inf
    table = table.set_column(table.column_names.index("features"), "features", pa.array(values, FEATURE_FIELDS[0].type))
    stage = labels_of("checkpoint", ref, k=5, hypothesis=True, precision=precision)
    work = StageWorker(stage, 0)(Work("s", table, 4))
    assert work.table["id"].to_pylist() == ["u0", "u1", "u3"]
    assert np.isfinite(work.table["confidence"].to_numpy()).all()
    assert work.rejects[0]["reason"].to_pylist() == ["teacher gave no finite probabilities"]


def edits(one: str, other: str) -> int:
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


def test_hama_reads_real_speech(data_dir: Path) -> None:
    """The package's recogniser against its own G2P of the text: about 5 % of the phone characters are wrong."""
    pytest.importorskip("hama")
    from gristmill.actors.speech.teacher_hama import comparable, phonemes_of

    folder = data_dir / "speech" / "kathleen"
    manifest = folder / "manifest.jsonl"
    if not manifest.is_file():
        pytest.skip(f"{manifest} is absent")
    rows = [json.loads(line) for line in manifest.read_text().splitlines()[:24]]
    table = pa.table(
        {
            "id": [row["audio_filepath"] for row in rows],
            "audio": audio_array([(folder / row["audio_filepath"]).read_bytes() for row in rows]),
            "duration": [row["duration"] for row in rows],
        }
    )
    out = run(labels_of("hama", k=20, hypothesis=True), table)
    assert TopKInfo.from_metadata(out.schema.metadata).frame_rate == 50.0
    wrong = total = 0
    for row, hypothesis in zip(rows, out["hypothesis"].to_pylist(), strict=True):
        reference = "".join(phonemes_of(row["text"]))
        wrong += edits(reference, "".join(comparable(hypothesis.split())))
        total += len(reference)
    assert wrong / total < 0.08
    mass = [np.exp(labels(out, row).tail.astype(float)) for row in range(len(rows))]
    assert np.concatenate(mass).mean() < 1e-3


def test_hama_text_to_phonemes() -> None:
    pytest.importorskip("hama")
    from gristmill.actors.speech.teacher_hama import comparable, phonemes_of

    assert phonemes_of("Both, Johnny!") == phonemes_of("both johnny")
    assert "<wb>" in phonemes_of("both johnny", boundaries=True)
    assert comparable(["<wb>", "a", " ", "<unk>", "b"]) == ["a", "b"]
    units = teacher.describe("hama").units
    assert set(phonemes_of("the quick brown fox jumps over a lazy dog")) <= set(units.tokens)
