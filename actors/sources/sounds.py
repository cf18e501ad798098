"""An open audio file, read a piece at a time by libsndfile or by FFmpeg: one channel, float32."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import soundfile

from gristmill.actors.audio import MOST_FRAMES, read_mono
from gristmill.actors.sources.mpeg import read_frame
from gristmill.actors.sources.pointers import (
    EMPTY,
    NO_AUDIO,
    SEVERAL_RECORDINGS,
    TOO_LONG,
    TRUNCATED,
    UNREADABLE,
    Watched,
)
from gristmill.shards.errors import RejectRecord, UserError
from gristmill.shards.interrupts import held

_PIECE = 1 << 18  # frames that FFmpeg's samples are converted at once
_DAMAGED, _DAMAGED_SHARE = 2, 0.02  # packets that may be damaged: junk between tags, the first of a cut stream
_STREAMS = ("flac", "aac", "amr")  # frames one after the other, of which a cut leaves a part that no decoder takes
_TOLERANCE_S = 0.1  # s that a file may be shorter than it declares
_FULL_SCALE = {"u8": 1 << 7, "s16": 1 << 15, "s32": 1 << 31, "s64": 1 << 63}


class Sound(ABC):
    """An open audio file. ``rate`` in Hz; ``frames`` is ``None`` where only decoding tells the length.

    ``channel`` is the one that is read, from 0; ``None``: the average of all.

    Errors of the storage are raised as they are; those of the file are :class:`RejectRecord`.
    """

    rate: int
    channels: int
    frames: int | None
    channel: int | None = None

    def __init__(self, file: BinaryIO | Watched) -> None:
        self._file = file if isinstance(file, Watched) else Watched(file)
        self._place = 0

    def read(self, count: int | None = None) -> np.ndarray:
        """Return the next ``count`` frames (n,), or those to the end.

        Raises:
            RejectRecord: the file ends before it should, or holds more than one kind of samples; or more than
                ``MOST_FRAMES`` were wanted, and are there.
        """
        count = MOST_FRAMES + 1 if count is None else count
        if self.frames is not None:
            count = max(0, min(count, self.frames - self._place))
            if count > MOST_FRAMES:
                raise RejectRecord(TOO_LONG)
        with self._reading():
            samples = self._read(min(count, MOST_FRAMES + 1))
        if len(samples) > MOST_FRAMES:
            raise RejectRecord(TOO_LONG)
        self._place += len(samples)
        return samples

    def seek(self, first: int) -> None:
        """Go to a frame; what is read from there does not depend on what was read before."""
        with self._reading():
            self._seek(first)
        self._place = first

    def close(self) -> None:
        """Close the decoder, and not the file."""
        with held(), contextlib.suppress(Exception):
            self._close()

    @abstractmethod
    def _read(self, count: int) -> np.ndarray: ...

    @abstractmethod
    def _seek(self, first: int) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """If the storage fails, raise its error and not the decoder's, which cannot know."""
        try:
            yield
        finally:
            if self._file.error is not None:
                raise self._file.error


class SndfileSound(Sound):
    """A file that libsndfile decodes: its header proves the length, or would if it said ``data`` at ``place``."""

    def __init__(self, file: BinaryIO, place: int = 0, data: bytes = b"") -> None:
        super().__init__(_Mended(file, place, data) if data else file)
        self._file.seek(0)
        with self._reading():
            try:
                with held():
                    self._sound = soundfile.SoundFile(self._file)
            except soundfile.LibsndfileError:
                raise RejectRecord(UNREADABLE) from None
        self.rate, self.channels = int(self._sound.samplerate), int(self._sound.channels)
        self.frames = int(self._sound.frames)

    def _read(self, count: int) -> np.ndarray:
        try:
            samples = read_mono(self._sound, count, self.channel)
        except soundfile.LibsndfileError:
            raise RejectRecord(TRUNCATED) from None  # the header was complete, the data is not
        if len(samples) < count:
            raise RejectRecord(TRUNCATED)
        return samples

    def _seek(self, first: int) -> None:
        try:
            with held():
                self._sound.seek(first)
        except soundfile.LibsndfileError:
            raise RejectRecord(TRUNCATED) from None

    def _close(self) -> None:
        self._sound.close()


class _Mended(Watched):
    """A file of which ``data`` at ``place`` is read instead of what is there."""

    def __init__(self, file: BinaryIO, place: int, data: bytes) -> None:
        super().__init__(file)
        self._at, self._data = place, data

    def read(self, count: int = -1) -> bytes:
        """Read bytes, as of any file."""
        start = self.tell()
        found = super().read(count)
        first, last = max(start, self._at), min(start + len(found), self._at + len(self._data))
        if first >= last:
            return found
        return found[: first - start] + self._data[first - self._at : last - self._at] + found[last - start :]


class FFmpegSound(Sound):
    """The first audio stream of a file that FFmpeg decodes from its begin; only the end tells the length.

    ``demuxer`` is FFmpeg's name of the container: none is guessed, and no other file is opened, as some demuxers would
    (playlists). The first ``delay`` frames are the encoder's and not read. Going back costs decoding from the begin,
    unless it is into what was read last.
    """

    frames = None

    def __init__(self, file: BinaryIO, demuxer: str, delay: int = 0) -> None:
        super().__init__(file)
        self._demuxer, self._delay = demuxer, delay
        self._container: Any = None
        with self._reading():
            self._open()
        self.rate, self.channels = int(self._fifo.sample_rate), int(self._fifo.layout.nb_channels)

    def _open(self) -> None:
        try:
            import av
        except ImportError:
            raise UserError("a recording that only FFmpeg reads surely: PyAV is missing; pip install av") from None
        av.logging.set_level(av.logging.PANIC)  # damage is told by rejects
        self._close()
        self._file.seek(0)
        try:
            with held():
                self._container = av.open(
                    self._file, "r", format=self._demuxer, io_open=_open_no_other, metadata_errors="replace"
                )
        except Exception as error:  # PyAV's are of many classes
            raise RejectRecord(TRUNCATED if isinstance(error, EOFError) else UNREADABLE) from None
        if not self._container.streams.audio:
            raise RejectRecord(NO_AUDIO)
        self._stream = self._container.streams.audio[0]
        self._packets = self._container.demux(self._stream)
        self._fifo, self._ended = av.AudioFifo(), False
        self._good, self._damaged, self._last_is_good = 0, 0, True
        self._last: Any = None  # the last packet that holds data
        self._held, self._held_at = np.zeros(0, np.float32), 0  # what was read last; the stream goes on at its end
        with held():
            self._decode(1)  # only a frame tells the rate: extensions of AAC double what the header says
        if not self._fifo.samples:
            raise RejectRecord(UNREADABLE if self._damaged else EMPTY)
        for _ in self._pieces(self._delay):
            pass

    def _read(self, count: int) -> np.ndarray:
        back = self._held[self._place - self._held_at :]
        if len(back) < count:
            self._held, self._held_at = np.concatenate([back, *self._pieces(count - len(back))]), self._place
            return self._held
        return back[:count]

    def _seek(self, first: int) -> None:
        if first < self._held_at:
            self._open()
        at = self._held_at + len(self._held)
        if first > at:
            for piece in self._pieces(first - at):
                at += len(piece)
            self._held, self._held_at = np.zeros(0, np.float32), at

    def _pieces(self, count: int) -> Iterator[np.ndarray]:
        """Yield the next ``count`` frames of the stream, or those to its end."""
        while count > 0:
            with held():
                self._decode(min(_PIECE, count))
            frame = self._fifo.read(min(_PIECE, count), partial=True)
            if frame is None:
                return
            samples = _mono(frame, self.channel)
            count -= len(samples)
            yield samples

    def _decode(self, count: int) -> None:
        """Decode until ``count`` frames are in the queue, or to the end."""
        while self._fifo.samples < count and not self._ended:
            try:
                packet = next(self._packets)
            except StopIteration:
                self._ended = True
                self._check_end()
                return
            except Exception:
                # The next packet's place is not there; or it is of a stream that differs from the one before.
                raise RejectRecord(SEVERAL_RECORDINGS if self._demuxer == "ogg" else TRUNCATED) from None
            self._last = packet if packet.size else self._last
            try:
                frames = packet.decode()
                self._good += 1
            except Exception:
                self._damaged, self._last_is_good = self._damaged + 1, False
                continue
            self._last_is_good = self._last_is_good or packet.size > 0
            for frame in frames:
                frame.pts = None
                try:
                    self._fifo.write(frame)
                except ValueError:
                    raise RejectRecord(SEVERAL_RECORDINGS) from None

    def _check_end(self) -> None:
        """Raise :class:`RejectRecord` if the stream ends within a packet, before its time, or is damaged."""
        if self._damaged > _DAMAGED + _DAMAGED_SHARE * self._good:
            raise RejectRecord(UNREADABLE)
        if self._last is None:
            return
        begin = read_frame(bytes(self._last)[:6]) if self._demuxer in ("mp3", "aac") else None
        declared = self._stream.duration if self._demuxer == "mp4" else None
        is_part = self._last.is_corrupt and self._demuxer != "wav"  # whose last packet is of any size
        is_short = declared is not None and self._fifo.samples_written < (
            (float(declared * self._stream.time_base) - _TOLERANCE_S) * self._stream.rate
        )
        if self._demuxer in _STREAMS and not self._last_is_good:
            raise RejectRecord(TRUNCATED)
        if is_part or is_short or (begin is not None and begin.size > self._last.size):
            raise RejectRecord(TRUNCATED)

    def _close(self) -> None:
        if self._container is not None:
            self._container.close()


def _open_no_other(url: str, flags: int, options: Any) -> Any:
    raise PermissionError(url)


def _mono(frame: Any, channel: int | None) -> np.ndarray:
    """Return the samples (n,) of a channel of FFmpeg's frame, or of their average."""
    samples, kind = frame.to_ndarray(), frame.format.name.removesuffix("p")
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if channel is not None:
        samples = samples[channel : channel + 1]
    scale = _FULL_SCALE.get(kind)
    if scale is not None:
        samples = (samples.astype(np.float32) - (scale if kind == "u8" else 0)) / np.float32(scale)
    return samples.mean(axis=0, dtype=np.float32)
