"""Banks of noises and rooms: built once as artifacts, then mapped into memory and shared by all workers of a node.

A bank is an index (``index.json``, the artifact) and files of samples named by their digest. A worker maps the files;
from object storage they are first copied into a cache, once per node, so that a node has one copy of the pages,
independent of the number of workers.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from gristmill.actors import audio
from gristmill.actors.sources.decoders import open_sound
from gristmill.actors.sources.files import AUDIO_SUFFIXES
from gristmill.actors.sources.reading import opened
from gristmill.actors.sources.unlisted import FileFault, printable
from gristmill.actors.speech.ingest import check_samples
from gristmill.actors.speech.samples import SAMPLES, Samples
from gristmill.models.speech import noise as noises
from gristmill.models.speech import rooms
from gristmill.shards import canonical
from gristmill.shards.artifact import Artifact, get_artifact, put_artifact
from gristmill.shards.errors import RejectRecord, UserError
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import Settings
from gristmill.shards.stage import ArtifactRef
from gristmill.shards.store import filesystem, join, last_name, write_bytes
from gristmill.shards.walking import FileInfo, walk

_CHUNK = 128 << 20  # bytes of samples per file
SPLITS = ("train", "test")
NOISES_VERSION = 2
"""Of how the noises of a folder are read: beyond full scale they are scaled, and no more clipped."""


class NoiseBankSettings(Settings):
    """A bank of noises."""

    test_share: float = Field(0.25, gt=0, lt=1)
    """Share of the noises for the test sets."""


class GeneratedNoiseSettings(NoiseBankSettings):
    """A bank of synthetic noises: babble, single talkers, music, coloured noise, hum, appliances."""

    generated: int = Field(48, ge=4)
    """Noises."""
    seconds: float = Field(20.0, gt=1, le=3600)
    """Length of a noise, s."""


class RoomBankSettings(rooms.RoomSettings):
    """A bank of rooms, drawn within these ranges."""

    count: int = Field(200, ge=1)
    """Rooms."""
    method: Literal["fast", "exact"] = "fast"
    """Method of the impulse responses: the built-in one, or every image by ``pyroomacoustics``, which is slow."""


@dataclass(frozen=True)
class _Entry:
    id: str
    split: str
    file: int
    start: int  # samples into the file
    count: int


class NoiseBank:
    """Noises of one split. ``ids[i]`` names noise ``i``; its samples are mapped, not loaded."""

    def __init__(self, url: str, split: str = "train") -> None:
        index, artifact = _open(url, "noises")
        self.rate: int = index["sampling_rate"]
        self._entries = [_Entry(**e) for e in index["entries"] if e["split"] == split]
        if not self._entries:
            raise UserError(f"{url}: the noise bank has no noise of the split '{split}'")
        self.ids = [e.id for e in self._entries]
        self._files = Samples(artifact, index["files"], np.int16)

    def __len__(self) -> int:
        return len(self.ids)

    def seconds(self, number: int) -> float:
        """Return the length of a noise in s."""
        return self._entries[number].count / self.rate

    def take(self, number: int, start: int, count: int, out: np.ndarray | None = None) -> np.ndarray:
        """Return ``count`` float32 samples of a noise from ``start`` (any integer), in ``out`` if given.

        The noise is periodic.
        """
        entry = self._entries[number]
        samples = self._files[entry.file][entry.start : entry.start + entry.count]
        out = np.empty(count, dtype=np.float32) if out is None else out
        place, at = 0, start % entry.count
        while place < count:
            part = samples[at : at + count - place]
            np.multiply(part, np.float32(1.0 / 32768.0), out=out[place : place + len(part)])
            place, at = place + len(part), 0
        return out


@dataclass(frozen=True, eq=False)
class BankRoom:
    """A room of a bank: float32 responses (sources, taps) with the direct sound at tap ``rooms.LEAD``."""

    id: str
    rt60: float  # s
    drr: float  # dB, of the speaker
    responses: np.ndarray


class RoomBank:
    """Rooms with positions of a speaker and of several noises."""

    def __init__(self, url: str) -> None:
        index, artifact = _open(url, "rooms")
        self.rate: int = index["sampling_rate"]
        self.sources: int = index["sources"]
        self._entries = index["entries"]
        self._files = Samples(artifact, index["files"], np.float32)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, number: int) -> BankRoom:
        e = self._entries[number]
        flat = self._files[e["file"]][e["start"] : e["start"] + self.sources * e["taps"]]
        return BankRoom(e["id"], e["rt60"], e["drr"], flat.reshape(self.sources, e["taps"]))


def build_room_bank(url: str, settings: RoomBankSettings, *, noises: int, rate: int, seed: int = 0) -> ArtifactRef:
    """Write a bank of rooms, each with positions of a speaker and of ``noises`` noises; ``rate`` in Hz."""
    identity = {"kind": "rooms", "settings": settings.identity(), "noises": noises, "rate": rate, "seed": seed}
    there = _already(url, identity)
    if there:
        return there
    random = RecordRandom(seed, "rooms")
    writer = _Writer(url, "rooms", np.float32)
    entries = []
    for number in range(settings.count):
        name = f"room-{number:05d}"
        rng = random(name)
        room = rooms.draw_room(rng, settings, noises)
        if settings.method == "fast":
            responses = rooms.impulse_responses(room, rate, rng)
        else:
            responses = rooms.exact_impulse_responses(room, rate)
        file, start = writer.add(responses.ravel())
        entries.append(
            {
                "id": name,
                "rt60": room.rt60,
                "rt60_measured": rooms.reverberation_time(responses[0], rate),
                "drr": rooms.direct_to_reverberant(responses[0], rate),
                "size": room.size.tolist(),
                "microphone": room.microphone.tolist(),
                "sources": room.sources.tolist(),
                "absorption": room.absorption,
                "file": file,
                "start": start,
                "taps": responses.shape[1],
            }
        )
    beside = writer.close()
    index = {"kind": "rooms", "sampling_rate": rate, "sources": noises + 1, "files": list(beside)}
    return _commit(url, index | {"entries": entries}, identity, beside)


def list_noises(folder: str) -> list[FileInfo]:
    """Return the audio files below a folder (any URL).

    Raises:
        UserError: there are fewer than two; one is held out for the test sets.
    """
    files = [f for f in walk(folder) if f.url.lower().endswith(AUDIO_SUFFIXES)]
    if not files:
        raise UserError(f"noise: {folder}: no audio here; expected a folder of audio (.wav, .flac, .mp3, ...)")
    if len(files) == 1:
        raise UserError(
            f"noise: {folder}: holds one recording, {last_name(files[0].url)}; expected two or more, as some are for "
            "training and others for the test sets"
        )
    return files


def listing_of(folder: str, files: Sequence[FileInfo]) -> list[list[Any]]:
    """Return what identifies files below a folder, wherever that lies."""
    return [[printable(_below(file.url, folder)), file.size, file.version] for file in files]


def build_noise_bank_from_folder(
    url: str, settings: NoiseBankSettings, *, folder: str, files: Sequence[FileInfo], rate: int
) -> ArtifactRef:
    """Write a bank of the noises listed below ``folder`` (see :func:`list_noises`), whole, resampled to ``rate`` Hz.

    Ids are paths below the folder; those for tests are chosen by the hash of the id. Noises beyond full scale are
    scaled to it. Files that cannot be used are left out, and listed with the reason in the bank's index.
    """
    listing = listing_of(folder, files)
    identity = {"kind": "noises", "settings": settings.identity(), "files": listing, "rate": rate}
    identity |= {"version": NOISES_VERSION}
    there = _already(url, identity)
    if there:
        return there

    def read() -> Iterator[tuple[str, np.ndarray | str]]:
        for file in files:
            name = printable(_below(file.url, folder))
            try:
                yield name, _read_noise(file.url, rate)
            except (FileFault, RejectRecord) as fault:
                yield name, fault.reason

    return _write_noises(url, read(), lambda names: _held_out(names, settings.test_share), rate, identity)


def _read_noise(url: str, rate: int) -> np.ndarray:
    with opened(url) as file:
        sound = open_sound(io.BufferedReader(file), file.size)
        samples = sound.read()
        sound.close()
    samples = audio.resample(samples, sound.rate, rate)
    return samples / max(1.0, float(np.abs(samples).max(initial=0.0)))


def build_noise_bank_generated(
    url: str,
    settings: GeneratedNoiseSettings,
    *,
    rate: int,
    seed: int = 0,
    speech: dict[str, list[np.ndarray]] | None = None,
    speech_digest: str = "",
) -> ArtifactRef:
    """Write a bank of synthetic noises; ``rate`` in Hz.

    ``speech`` returns samples at ``rate`` by split (``train``, ``test``; of disjoint talkers) for babble and talkers,
    ``speech_digest`` identifies that speech; without it there are no talkers.
    """
    if speech is not None and not all(speech.get(split) for split in SPLITS):
        raise UserError("noise: speech for babble must be given for both splits, train and test")
    identity = {"kind": "noises", "generated": True, "settings": settings.identity(), "rate": rate, "seed": seed}
    identity |= {"speech": speech_digest or speech is not None}
    there = _already(url, identity)
    if there:
        return there
    random = RecordRandom(seed, "noises")
    kinds = [*(noises.TALKING if speech else ()), *noises.GENERATED]
    tests = max(1, round(settings.generated * settings.test_share))
    held_out: set[str] = set()

    def make() -> Iterator[tuple[str, np.ndarray]]:
        for split, total in zip(SPLITS, (settings.generated - tests, tests), strict=True):
            for number in range(total):
                kind = kinds[number % len(kinds)]
                name = f"{kind}-{split}-{number:04d}"
                source: Callable[..., np.ndarray] = getattr(noises, kind)
                given = (speech[split],) if speech and kind in noises.TALKING else ()
                if split == "test":
                    held_out.add(name)
                yield name, source(random(name), *given, rate, settings.seconds)

    return _write_noises(url, make(), lambda _: held_out, rate, identity)


def _write_noises(
    url: str,
    sources: Iterable[tuple[str, np.ndarray | str]],
    held_out: Callable[[list[str]], set[str]],
    rate: int,
    identity: dict[str, Any],
) -> ArtifactRef:
    """Write noises, or a reason for those that cannot be read; ``held_out`` selects those for tests."""
    writer = _Writer(url, "noises", np.int16)
    entries: dict[str, tuple[int, int, int]] = {}
    left_out = {}
    for name, samples in sources:
        try:
            if isinstance(samples, str):
                raise RejectRecord(samples)
            check_samples(samples, 0.0)  # silence has no signal-to-noise ratio
        except RejectRecord as reject:
            left_out[name] = reject.reason
            continue
        pcm = np.clip(np.rint(samples * 32767.0), -32768, 32767).astype(np.int16)
        entries[name] = (*writer.add(pcm), len(pcm))
    if not entries:
        some = ", ".join(f"{name} ({why})" for name, why in list(left_out.items())[:3])
        raise UserError(f"{url}: none of the noises given to the bank can be used: {some}")
    tests = held_out(list(entries))
    rows = [asdict(_Entry(n, "test" if n in tests else "train", *place)) for n, place in entries.items()]
    beside = writer.close()
    index = {"kind": "noises", "sampling_rate": rate, "files": list(beside), "entries": rows}
    index |= {"left_out": left_out} if left_out else {}
    return _commit(url, index, identity, beside)


class _Writer:
    """Writes samples into files of bounded size, each named by its digest."""

    def __init__(self, url: str, prefix: str, kind: type[np.generic]) -> None:
        self._url, self._prefix, self._kind = url, prefix, np.dtype(kind).newbyteorder("<")
        self._parts: list[np.ndarray] = []
        self._count = 0
        self._shas: dict[str, str] = {}

    def add(self, samples: np.ndarray) -> tuple[int, int]:
        """Append samples; return the file's number and their first sample in it."""
        if self._count and (self._count + len(samples)) * self._kind.itemsize > _CHUNK:
            self._flush()
        place = (len(self._shas), self._count)
        self._parts.append(samples.astype(self._kind, copy=False))
        self._count += len(samples)
        return place

    def close(self) -> dict[str, str]:
        """Write the remaining samples; return the SHA-256 of each file by its name."""
        if self._count:
            self._flush()
        return self._shas

    def _flush(self) -> None:
        data = np.concatenate(self._parts).tobytes()
        sha = canonical.sha256(data)
        name = f"{self._prefix}-{sha[:32]}.raw"
        write_bytes(join(self._url, SAMPLES, name), data)
        self._shas[name] = sha
        self._parts, self._count = [], 0


def _held_out(names: list[str], share: float) -> set[str]:
    """Return the share of names with the smallest hashes: at least one, and never all."""
    if len(names) < 2:
        return set()
    ordered = sorted(names, key=lambda n: hashlib.blake2b(n.encode()).digest())
    return set(ordered[: min(max(1, round(share * len(names))), len(names) - 1)])


def _below(url: str, folder: str) -> str:
    return filesystem(url)[1].removeprefix(filesystem(folder)[1].rstrip("/")).lstrip("/") or url.rsplit("/", 1)[-1]


def _already(url: str, identity: dict[str, Any]) -> ArtifactRef | None:
    there = get_artifact(url)
    if there is None:
        return None
    if canonical.dumps(there.identity) != canonical.dumps(identity):
        raise UserError(f"{url}: a bank of other sources or settings is here already; give another location")
    return there.ref


def _commit(url: str, index: dict[str, Any], identity: dict[str, Any], shas: Mapping[str, str]) -> ArtifactRef:
    beside = {f"{SAMPLES}/{name}": sha for name, sha in shas.items()}
    return put_artifact(url, {"index.json": canonical.dumps(index)}, identity, beside=beside).ref


def _open(url: str, kind: str) -> tuple[dict[str, Any], Artifact]:
    """Return the index of a bank, and its artifact."""
    found = get_artifact(url)
    if found is None:
        raise UserError(f"{url}: there is no bank of {kind} here")
    index = json.loads(found.read("index.json"))
    if index.get("kind") != kind:
        raise UserError(f"{url}: expected a bank of {kind}, found '{index.get('kind')}'")
    return index, found
