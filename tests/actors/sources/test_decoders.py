"""Audio is decoded, not believed: what headers say is used where it is proven, and nowhere else."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gristmill.actors.sources.decoders import FORMATS, open_sound, read_header
from gristmill.actors.sources.pointers import REASONS, Reader
from gristmill.actors.sources.sounds import FFmpegSound, SndfileSound
from gristmill.shards.errors import RejectRecord
from tests.actors.sources.encode import encoded, tone
from tests.actors.sources.fuzz import mutated

SECONDS = 1.5
SNDFILE = [
    ("WAV", "PCM_16"),
    ("WAV", "IMA_ADPCM"),
    ("WAV", "DOUBLE"),
    ("WAVEX", "PCM_24"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_24"),
    ("AU", "ULAW"),
    ("CAF", "PCM_16"),
    ("NIST", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]
FFMPEG = [
    ("ipod", "aac"),
    ("mp4", "aac"),
    ("mov", "pcm_s16le"),
    ("3gp", "aac"),
    ("adts", "aac"),
    ("webm", "libopus"),
    ("matroska", "flac"),
    ("asf", "wmav2"),
    ("amr", "libopencore_amrnb"),
    ("avi", "libmp3lame"),
    ("wav", "libmp3lame"),
    ("mp2", "mp2"),
]
PIPES = [("mp3", "libmp3lame"), ("flac", "flac"), ("wav", "pcm_s16le"), ("w64", "pcm_s16le"), ("caf", "pcm_s16le")]


def written(kind: str, subtype: str | None = None, rate: int = 16000, seconds: float = SECONDS, **how: str) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, tone(seconds, rate), rate, format=kind, subtype=subtype, **how)
    return out.getvalue()


def pipes(container: str, codec: str) -> bytes:
    return encoded(container, codec, SECONDS, pipe=True)


def files(container: str, codec: str) -> bytes:
    return encoded(container, codec, SECONDS, {"libopencore_amrnb": 8000, "libopus": 48000}.get(codec, 16000))


def found(data: bytes) -> tuple[str, float]:
    """Return the decoder and the length, s; both the length that is told before reading and what is read."""
    sound = open_sound(io.BytesIO(data), len(data))
    told = read_header(io.BytesIO(data), len(data))
    samples = sound.read()
    assert told.frames == len(samples)
    assert samples.dtype == np.float32
    spectrum = np.abs(np.fft.rfft(samples[: sound.rate] * np.hanning(min(len(samples), sound.rate))))
    assert np.argmax(spectrum) * sound.rate / min(len(samples), sound.rate) == pytest.approx(440, abs=3)
    return type(sound).__name__, told.duration


def reason(data: bytes) -> str | None:
    try:
        open_sound(io.BytesIO(data), len(data)).read()
    except RejectRecord as reject:
        return reject.reason
    return None


@pytest.mark.parametrize(("kind", "subtype"), SNDFILE)
def test_what_its_header_proves_is_read_by_libsndfile_and_a_half_is_truncated(kind: str, subtype: str) -> None:
    data = written(kind, subtype)
    assert found(data) == ("SndfileSound", pytest.approx(SECONDS, abs=0.07))  # ADPCM fills its last block
    assert reason(data[: len(data) // 2]) == "truncated"
    if kind == "WAV":
        assert found(written(kind, "PCM_16", endian="BIG")) == ("SndfileSound", SECONDS)
        assert reason(written(kind, "PCM_16", endian="BIG")[:20000]) == "truncated"


@pytest.mark.parametrize(("container", "codec"), FFMPEG)
def test_all_else_is_decoded_by_ffmpeg_and_a_half_is_truncated(container: str, codec: str) -> None:
    data = files(container, codec)
    assert found(data) == ("FFmpegSound", pytest.approx(SECONDS, abs=0.13))  # frames that encoders add
    assert reason(data[: len(data) // 2 + 1]) == "truncated"
    if container == "amr":
        return  # any byte begins a frame
    assert found(data + b"some other bytes")[1] == pytest.approx(SECONDS, abs=0.13)


@pytest.mark.parametrize(("container", "codec"), PIPES)
def test_what_was_written_into_a_pipe_is_read_to_its_end(container: str, codec: str) -> None:
    data = pipes(container, codec)
    assert found(data)[1] == pytest.approx(SECONDS, abs=0.1)
    if container == "flac":
        assert reason(data[:-10]) == "truncated"


def _with(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def _length(data: bytes, value: int) -> bytes:
    return _with(data, data.index(b"data") + 4, struct.pack("<I", value))


@pytest.mark.parametrize(
    "value", [0, -44, 0x7FFFEFFC, 0x7FFFEFFF, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFF - 44]
)
@pytest.mark.parametrize(("subtype", "channels"), [("PCM_16", 1), ("PCM_24", 2)])
def test_lengths_of_recorders_that_never_went_back_are_read(value: int, subtype: str, channels: int) -> None:
    out = io.BytesIO()
    soundfile.write(out, np.repeat(tone(SECONDS)[:, None], channels, axis=1), 16000, format="WAV", subtype=subtype)
    whole = out.getvalue()
    data = _length(whole, len(whole) if value == -44 else value)
    assert found(data) == ("SndfileSound", SECONDS)
    sounds = [open_sound(io.BytesIO(each), len(each)) for each in (data, whole)]
    assert np.array_equal(sounds[0].read(), sounds[1].read())
    sounds[0].seek(9000)
    assert len(sounds[0].read(100)) == 100


def test_a_file_without_samples_is_empty_and_not_open() -> None:
    assert reason(written("WAV", seconds=0.0)) == "empty"
    tagged = written("WAV", seconds=0.0) + b"LIST" + struct.pack("<I", 4) + b"INFO"
    assert reason(tagged) == "empty"
    assert reason(b"") == "empty"


def _mp3(**how: str) -> bytes:
    return encoded("mp3", "libmp3lame", 3.0, **how)


def _id3(content: bytes) -> bytes:
    size = len(content)
    return b"ID3\x03\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + content


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        (lambda data: _id3(b"APIC" + bytes(range(256)) * 240) + data, 3.0),  # a picture
        (lambda data: b"\0" * 5000 + data, 3.0),
        (lambda data: _id3(b"TIT2") + b"\0" * 3000 + data, 3.0),
        (lambda data: data + b"TAG" + b" " * 125, 3.0),
        (lambda data: _id3(b"TIT2") + data + _id3(b"TIT2") + data, 6.0),
    ],
)
def test_mp3_from_a_pipe_is_as_long_as_its_frames(change: Callable[[bytes], bytes], seconds: float) -> None:
    assert found(change(encoded("mp3", "libmp3lame", 3.0, pipe=True)))[1] == pytest.approx(seconds, abs=0.2)


@pytest.mark.parametrize("before", [b"", _id3(b"APIC" + bytes(20_000)), bytes(5000), _id3(b"TIT2") + bytes(3000)])
def test_what_an_encoder_of_mp3_added_is_left_out_whatever_is_in_front(before: bytes) -> None:
    assert found(before + encoded("mp3", "libmp3lame", 3.0, id3v2_version=0)) == ("SndfileSound", 3.0)


def test_the_delay_of_mp3_in_wav_is_left_out() -> None:
    noise = np.random.default_rng(2).normal(0, 0.1, 48_000).astype(np.float32)
    data = encoded("wav", "libmp3lame", samples=noise, pipe=True)
    sound = open_sound(io.BytesIO(data), len(data))
    samples = sound.read()
    assert len(samples) / 16000 == pytest.approx(3.0, abs=0.04)
    late = np.argmax(np.correlate(samples[:8000], noise[2000:6000]))
    assert abs(late - 2000) < 400  # else 1,393 more
    sound.seek(500)
    assert np.array_equal(sound.read(100), samples[500:600])


def test_headers_of_mp3_that_contradict_the_file_are_not_believed() -> None:
    data = encoded("mp3", "libmp3lame", 3.0, id3v2_version=0)
    at = max(data.find(b"Xing"), data.find(b"Info"))
    assert found(data) == ("SndfileSound", 3.0)
    for frames, size in ((0, 0), (7, 0), (10, 1000), (5000, 1000)):
        told = _with(data, at + 8, struct.pack(">II", frames, size))
        assert found(told) == ("FFmpegSound", pytest.approx(3.0, abs=0.15))
    assert reason(data[: len(data) * 2 // 3]) == "truncated"


def test_streams_of_ogg_one_after_the_other_are_all_read() -> None:
    for subtype in ("VORBIS", "OPUS"):
        one, two = written("OGG", subtype, seconds=2.0), written("OGG", subtype, seconds=1.0)
        assert found(one + two) == ("FFmpegSound", pytest.approx(3.0, abs=0.02))
        other = written("OGG", subtype, rate=48000 if subtype == "VORBIS" else 16000)
        assert reason(one + other) == ("several recordings in one file" if subtype == "VORBIS" else None)
        long = written("OGG", subtype, seconds=12.0)
        last = long.rindex(b"OggS")
        assert found(long[:last])[1] > 5.0  # without the page that has the end flag
        assert reason(long[: last + 30]) == "truncated"


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU"])
def test_files_joined_byte_by_byte_are_told(kind: str) -> None:
    assert reason(written(kind) * 2) == "several recordings in one file"


def test_a_video_gives_its_sound_and_one_without_sound_a_reason() -> None:
    import av

    for sounds in (True, False):
        out = io.BytesIO()
        with av.open(out, "w", format="matroska") as box:
            pictures = box.add_stream("mpeg4", rate=10)
            pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
            sound = box.add_stream("pcm_s16le", rate=16000, layout="mono") if sounds else None
            for number in range(10):
                picture = av.VideoFrame(32, 32, "yuv420p")
                picture.pts = number
                box.mux(pictures.encode(picture))
                if sound is not None:
                    part = (tone(1.0)[1600 * number : 1600 * (number + 1)] * 32767).astype(np.int16)
                    frame = av.AudioFrame.from_ndarray(part[None], format="s16", layout="mono")
                    frame.sample_rate, frame.pts = 16000, 1600 * number
                    box.mux(sound.encode(frame))
            box.mux(pictures.encode(None))
        if sounds:
            assert found(out.getvalue()) == ("FFmpegSound", 1.0)
        else:
            assert reason(out.getvalue()) == "no audio stream"


def test_no_other_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(written("WAV"))
    playlists = [f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/a.wav\n", f"ffconcat version 1.0\nfile {tmp_path}/a.wav\n"]
    for playlist in playlists:
        assert reason(playlist.encode() * 9) == "unreadable"
        with pytest.raises(RejectRecord):
            FFmpegSound(io.BytesIO(playlist.encode()), "hls" if playlist.startswith("#EXTM3U") else "concat")


def test_what_is_no_audio_is_unreadable() -> None:
    rng = np.random.default_rng(1)
    for data in (
        b"hello " * 900,
        bytes(5000),
        b"\xff" * 5000,
        b"RIFF\0\0\0\0WAVE" + bytes(500),
        b"\x1aE\xdf\xa3" + bytes(90),
    ):
        assert reason(data) in ("unreadable", "truncated")
    for _ in range(50):
        assert reason(rng.bytes(20_000)) == "unreadable"


def test_damaged_audio_is_read_or_has_a_reason() -> None:
    rng = random.Random(5)
    whole = [written(kind, subtype, seconds=0.3) for kind, subtype in SNDFILE]
    whole += [files(*kind) for kind in FFMPEG] + [pipes(*kind) for kind in PIPES]
    found = {reason(mutated(data, rng)) for data in whole for _ in range(15)}
    assert found - {None} <= set(REASONS)
    assert {"truncated", "unreadable", None} <= found


@pytest.mark.parametrize("data", [written("FLAC"), pipes("mp3", "libmp3lame")], ids=["libsndfile", "ffmpeg"])
def test_what_is_read_from_a_place_does_not_depend_on_what_was_read_before(data: bytes) -> None:
    sound = open_sound(io.BytesIO(data), len(data))
    assert type(sound) is (FFmpegSound if data[:3] == b"ID3" else SndfileSound)
    whole = sound.read()
    for first, count in ((100, 50), (120, 5000), (400, 100), (0, 10), (20_000, 9000), (20_500, 100), (23_000, 99_999)):
        sound.seek(first)
        assert np.array_equal(sound.read(count), whole[first : first + count])
        assert np.array_equal(sound.read(30), whole[first + count : first + count + 30])
    sound.seek(99_999) if isinstance(sound, FFmpegSound) else sound.seek(len(whole))
    assert not len(sound.read(10))


@pytest.mark.parametrize(
    "data",
    [written("WAV"), encoded("mp3", "libmp3lame", 20.0, pipe=True)],  # more than is read ahead
    ids=["libsndfile", "ffmpeg"],
)
def test_errors_of_the_storage_are_raised_and_not_the_decoders(data: bytes) -> None:
    class Lost(io.BytesIO):
        left = 1 << 30

        def read(self, count: int | None = -1) -> bytes:
            if self.left < 0:
                raise ConnectionResetError("the link went down")
            found = super().read(count)
            self.left -= len(found)
            return found

    file = Lost(data)
    sound = open_sound(file, len(data))
    file.left = -1
    with pytest.raises(ConnectionResetError):
        sound.read()


def test_the_documentation_has_every_format() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "formats.md").read_text()
    for name, kind in FORMATS.items():
        decoders = "libsndfile, FFmpeg" if kind.proof else "FFmpeg"
        assert f"| {kind.files} | {decoders} | {kind.proof or 'decoding'} | {kind.why} |" in page, name


def test_readers_of_pointers_are_files_for_both_decoders(tmp_path: Path) -> None:
    for name, data in (("a.wav", written("WAV")), ("a.mp3", pipes("mp3", "libmp3lame"))):
        (tmp_path / name).write_bytes(data)
        reader = Reader(1 << 16)
        sound = open_sound(*reader.open({"kind": "file", "url": str(tmp_path / name)}))
        assert len(sound.read()) == pytest.approx(SECONDS * 16000, abs=2000)
        reader.close()
