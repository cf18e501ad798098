"""Which decoder reads what, how the length is established, and why.

libsndfile reads what its header proves to be whole. It is the faster one, seeks to a sample, and its WAV and FLAC are
exact; but it takes lengths from headers, guesses them (mp3 from a pipe), and reads the first of chained streams only.
FFmpeg (PyAV) reads all else, from begin to end: only decoding tells the length then. Neither is asked what a file is:
:mod:`gristmill.actors.sources.containers` tells by its first bytes, so that no decoder guesses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from gristmill.actors.sources.containers import codec_delay, identify, prove
from gristmill.actors.sources.pointers import EMPTY, TRUNCATED, UNREADABLE, Part
from gristmill.actors.sources.sounds import FFmpegSound, SndfileSound, Sound
from gristmill.shards.errors import RejectRecord

MOST_SECONDS = 100 * 3600.0
"""Of a file whose length only decoding tells: a few bytes may hold any number of samples of silence."""
_PIECE = 1 << 20  # frames decoded at once to measure a length
_SMALLEST = 128  # bytes: what begins like audio and ends before is cut within its header


@dataclass(frozen=True)
class Format:
    """A kind of file. ``proof``: what header libsndfile is trusted with; without one, FFmpeg decodes every file."""

    files: str
    demuxer: str
    """FFmpeg's name of the container."""
    proof: str = ""
    why: str = ""


FORMATS = {
    "wav": Format(
        "WAV, RIFX, RF64, BW64",
        "wav",
        "the length of the samples is that of the file",
        "a length that a recorder or a pipe left open is mended in passing; mp3 in WAV is FFmpeg's",
    ),
    "w64": Format("Wave64", "w64", "the length of the samples is that of the file"),
    "aiff": Format("AIFF, AIFC", "aiff", "the length of the samples is that of the file"),
    "au": Format("AU", "au", "the length of the samples is that of the file"),
    "caf": Format("CAF", "caf", "the length of the samples is that of the file", "AAC in CAF is FFmpeg's"),
    "sphere": Format("NIST SPHERE", "nistsphere", "the length of the samples is that of the file"),
    "flac": Format(
        "FLAC",
        "flac",
        "a number of samples in its header",
        "written into a pipe, it has none, which libsndfile takes for 2^63 - 1",
    ),
    "ogg": Format(
        "Ogg (Vorbis, Opus, FLAC, Speex)",
        "ogg",
        "one stream, whose last page has the end flag",
        "of several streams libsndfile reads the first; Speex is FFmpeg's",
    ),
    "mp3": Format(
        "mp3, mp2",
        "mp3",
        "LAME's header, with the bytes that are there",
        "without it libsndfile guesses the length by the first frame, and cuts the samples there",
    ),
    "aac": Format("AAC (ADTS)", "aac"),
    "mp4": Format("m4a, mp4, mov, 3gp", "mp4"),
    "matroska": Format("WebM, Matroska", "matroska"),
    "asf": Format("WMA, ASF", "asf"),
    "amr": Format("AMR", "amr"),
    "avi": Format("AVI", "avi"),
}


@dataclass(frozen=True)
class Header:
    """What is known of an audio file without its samples."""

    rate: int  # Hz
    frames: int
    channels: int

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames / self.rate


def open_sound(file: BinaryIO, size: int) -> Sound:
    """Open an audio file of ``size`` bytes with the decoder that reads it surely.

    Raises:
        RejectRecord: it is empty, cut, of an unknown kind, or no decoder reads it.
    """
    if size == 0:
        raise RejectRecord(EMPTY)
    found = identify(file, size)
    if found is None:
        raise RejectRecord(UNREADABLE)
    if found.frame is not None and found.place:
        # Behind zeros or a tag, no decoder finds the header that says how much of the first and last frame is sound.
        file, size, found = Part(file, found.place, size - found.place), size - found.place, found._replace(place=0)
    proof = prove(file, size, found)
    if proof is not None:
        try:
            sound = SndfileSound(file, *proof)
        except RejectRecord:  # libsndfile has no decoder for it, or the header itself is cut
            if size < _SMALLEST:
                raise RejectRecord(TRUNCATED) from None
        else:
            if not sound.frames or sound.frames < 0 or sound.rate <= 0:
                raise RejectRecord(EMPTY)
            return sound
    return FFmpegSound(file, FORMATS[found.format].demuxer, codec_delay(file, size, found))


def read_header(file: BinaryIO, size: int, most: float = MOST_SECONDS) -> Header:
    """Return what is known of an audio file; where its header proves no length, all samples are decoded.

    ``most``: seconds after which decoding ends; the file is longer then.

    Raises:
        RejectRecord: for the reasons of :func:`open_sound`, or the decoder found damage.
    """
    sound = open_sound(file, size)
    frames = sound.frames
    if frames is None:
        frames = 0
        while frames <= most * sound.rate and (read := len(sound.read(_PIECE))):
            frames += read
    sound.close()
    return Header(sound.rate, frames, sound.channels)
