"""The recogniser of hama as a network of this project, against the package's own engine."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from gristmill.actors.audio import audio_array, decode, encode, resample
from gristmill.actors.speech import hama_weights, teacher
from gristmill.actors.speech.features import LogMel, rows_of
from gristmill.actors.speech.teacher_checkpoint import Checkpoint
from gristmill.models.speech.checkpoint import load_acoustic, save_acoustic
from gristmill.models.speech.plain_conformer import PlainConformer
from gristmill.shards import canonical
from gristmill.shards.errors import UserError

pytest.importorskip("hama")

RATE = 16000
TEXTS = ["call doctor abernathy at half past seven", "play the last song by the beatles", "what is the weather"]


@cache
def sounds() -> tuple[bytes, ...]:
    """Spoken requests, with silence and noise between and around them."""
    pytest.importorskip("hibari")
    from gristmill.actors.speech.synthesise import Hibari
    from gristmill.actors.speech.voices import Voice

    voice, engine, rng = Voice.parse("hibari:heart"), Hibari(), np.random.default_rng(0)
    spoken = [resample(engine.speak(t, voice, 1.0, 0.0, 0.0, i), engine.rate, RATE) for i, t in enumerate(TEXTS)]
    noise = rng.normal(size=RATE) * 0.01
    made = [*spoken, np.concatenate([np.zeros(RATE), spoken[0], noise, spoken[1] * 0.1]), noise, noise[:321]]
    return tuple(encode(np.clip(one, -1.0, 1.0), RATE) for one in made)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hama")
    (folder / "model.safetensors").write_bytes(hama_weights.hama_checkpoint())
    return folder


def features() -> list[np.ndarray]:
    table = pa.table({"audio": audio_array(list(sounds()))})
    out = LogMel(hama_weights.FEATURES)(table)
    assert "reject_reason" not in out.column_names
    return [row.reshape(-1, hama_weights.FEATURES.n_mels) for row in rows_of(out["features"])]


def package_features(samples: np.ndarray) -> np.ndarray:
    """The features with the package's matrices: its sines are of single precision, which is heard where it is quiet."""
    table = hama_weights.read_table(hama_weights.weights())
    padded = np.pad(samples, 200, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160]
    power = sum((frames @ table[f"stft_{part}_kernel"][:, 0].T) ** 2 for part in ("real", "imag"))
    return np.log(np.maximum(power @ table["mel_fb"], 1e-10)).astype(np.float16)


def test_the_network_gives_what_the_package_gives(checkpoint: Path) -> None:
    """On the package's features but for float rounding; on this project's with the same best phone in each frame."""
    ours, theirs = teacher.load("checkpoint", str(checkpoint)), teacher.load("hama")
    assert ours.info.units == theirs.info.units
    assert ours.info.frame_rate == theirs.info.frame_rate
    samples = [decode(one)[0] for one in sounds()]
    expected, frames = theirs(samples)
    heard = 0
    for given, bound in ((features(), 0.1), ([package_features(one) for one in samples], 5e-3)):
        found, same = ours(given)
        assert same == frames
        differing = 0
        for one, other, count in zip(found, expected, frames, strict=True):
            assert float((one[:count].exp() - other[:count].exp()).abs().max()) < bound
            differing += int((one[:count].argmax(-1) != other[:count].argmax(-1)).sum())
            heard += int((other[:count].argmax(-1) != 0).sum())
        assert differing <= 1  # a tie
    assert heard > 120  # twice the phones of three sentences: it is speech that is compared


def test_an_utterance_is_heard_alone_as_in_a_batch(checkpoint: Path) -> None:
    model = teacher.load("checkpoint", str(checkpoint))
    given = features()
    together, frames = model(given)
    for row, one in enumerate(given):
        alone, _ = model([one])
        torch.testing.assert_close(alone[0].exp(), together[row, : frames[row]].exp(), atol=1e-4, rtol=0)


def test_the_checkpoint_is_one_of_this_project(checkpoint: Path) -> None:
    data = (checkpoint / "model.safetensors").read_bytes()
    assert hama_weights.hama_checkpoint() == data
    network, units, settings = load_acoustic(data)
    assert isinstance(network, PlainConformer)
    assert save_acoustic(network, units, settings) == data
    assert (units.kind, units.tokens[0], len(units), settings) == ("phonemes", "<blank>", 191, hama_weights.FEATURES)
    assert Checkpoint(str(checkpoint)).info.digest == canonical.sha256(data)
    one = torch.from_numpy(features()[0].astype(np.float32))[None]
    lengths = torch.tensor([one.shape[1]])
    with torch.no_grad():
        hidden, _ = network.layers(one, lengths)
        assert len(hidden) == 4
        assert torch.equal(network.classify(hidden[-1]), network(one, lengths)[0])


def _cut(data: bytes) -> bytes:
    return data[:-100]


def _other_format(data: bytes) -> bytes:
    return b"HAMAPK\x02\x02" + data[8:]


def _other_name(data: bytes) -> bytes:
    return data.replace(b"blocks.2.attn_norm.bias", b"blocks.2.attn_nurm.bias")


def _other_filters(data: bytes) -> bytes:
    return data.replace(struct.pack("<f", hama_weights.read_table(data)["mel_fb"][2, 0]), struct.pack("<f", 0.5))


def _more_blocks(data: bytes) -> bytes:
    # The table grows by an entry without values, for which its padding has no room.
    entry = struct.pack("<H", 1) + b"x" + bytes([1, 1]) + struct.pack("<IQQ", 0, 0, 0)
    (count,) = struct.unpack_from("<I", data, 8)
    end = data.index(b"onnx::MatMul_864") + len("onnx::MatMul_864") + 2 + 8 + 16
    start = -(-end // 16) * 16
    table = data[:8] + struct.pack("<I", count + 1) + data[12:end] + entry
    return table + b"\0" * (-len(table) % 16) + data[start:]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_cut, "cannot reshape"),
        (_other_format, "begins with"),
        (_other_name, "attn_norm.bias"),
        (_other_filters, "other mel filters"),
        (_more_blocks, "120 tensors, expected 119"),
        (lambda data: b"", "begins with"),
        (lambda data: data[:3000], ""),
    ],
)
def test_weights_of_another_layout_are_refused(monkeypatch: pytest.MonkeyPatch, change, problem: str) -> None:
    changed = change(hama_weights.weights())
    monkeypatch.setattr(hama_weights, "weights", lambda: changed)
    with pytest.raises(
        UserError, match=r"hama 1\.\S+: the weights of its recogniser are not as in version 1\.7"
    ) as refused:
        hama_weights.hama_checkpoint()
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


def test_real_speech(checkpoint: Path, data_dir: Path) -> None:
    path = data_dir / "speech" / "librispeech-dev" / "1688-142285-0002.flac"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    ours, theirs = teacher.load("checkpoint", str(checkpoint)), teacher.load("hama")
    samples = decode(path.read_bytes())[0]
    found, expected = ours([teacher.heard(samples, RATE, ours.info)])[0][0], theirs([samples])[0][0]
    assert torch.equal(found.argmax(-1), expected.argmax(-1))
    assert float((found.exp() - expected.exp()).abs().max()) < 0.1
