"""Impulse responses of shoebox rooms: exact image sources early on, a statistical tail after the mixing time.

The early part is the image method (Allen and Berkley, JASA 1979) with windowed-sinc fractional delays. The tail is
Gaussian noise whose energy follows the image method's own expected decay: the images at distance ``ct`` are in all
directions and the one in direction ``u`` has met ``ct * sum(|u_i| / L_i)`` walls, so the energy is a mean over
directions (Lehmann and Johansson, "Diffuse reverberation model for efficient image-source simulation of room
impulse responses", IEEE TASLP 18(6), 2010). That decay depends on time and absorption only through their product,
so the absorption for a given RT60 has a closed form, without Sabine's bias.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from pydantic import Field, field_validator

from gristmill.shards.errors import UserError
from gristmill.shards.settings import PositiveRange, Settings

SPEED = 343.0  # of sound, m/s
LEAD = 32  # samples before the direct sound: space for the sinc of a reflection shortly after it
_HALF = 24  # half-length of the windowed sinc
_PHASES = 1024  # fractional delays in the sinc table
_CLEARANCE = 0.5  # m from the walls and between source and microphone


class RoomSettings(Settings):
    """The distribution of rooms: uniform over each range."""

    length: PositiveRange = (3.0, 8.0)
    """m"""
    width: PositiveRange = (3.0, 6.0)
    """m"""
    height: PositiveRange = (2.4, 3.5)
    """m"""
    rt60: PositiveRange = (0.15, 0.7)
    """Reverberation time, s."""
    speaker_distance: PositiveRange = (0.5, 3.0)
    """Distance from the speaker to the microphone, m, as far as the room allows."""
    damping: float = Field(1.0, ge=1)
    """Ratio of the decay rate above 2 kHz to that below; 1: the same at all frequencies."""

    @field_validator("length", "width", "height")
    @classmethod
    def _leaves_clearance(cls, given: tuple[float, float]) -> tuple[float, float]:
        if given[0] < 4 * _CLEARANCE:
            raise ValueError(f"no side may be shorter than {4 * _CLEARANCE:g} m, got {list(given)}")
        return given


@dataclass(frozen=True, eq=False)
class Room:
    """A shoebox with one microphone and several sources (S, 3), in metres; ``absorption`` is of energy."""

    size: np.ndarray
    microphone: np.ndarray
    sources: np.ndarray
    rt60: float  # s
    decay: float  # -ln of the walls' reflection factor
    damping: float = 1.0

    @property
    def absorption(self) -> float:
        """Share of a sound's energy that a wall absorbs at each reflection."""
        return float(-np.expm1(-2.0 * self.decay))


def draw_room(rng: np.random.Generator, settings: RoomSettings, noises: int = 3) -> Room:
    """Draw a room, its microphone and its sources: the speaker, then ``noises`` further positions."""
    size = rng.uniform(*np.transpose([settings.length, settings.width, settings.height]))
    points = rng.uniform(_CLEARANCE, size - _CLEARANCE, (64 + noises, 3))
    microphone, candidates = points[0], points[1:]
    distance = np.linalg.norm(candidates - microphone, axis=1)
    low, high = settings.speaker_distance
    miss = np.maximum(np.maximum(low - distance, distance - high), 0.0)
    speaker = int(np.argmin(miss))  # the first that fits, or in a small room the one that misses by least
    others = np.delete(np.arange(len(candidates)), speaker)
    others = others[np.argsort(distance[others] < _CLEARANCE, kind="stable")][:noises]
    sources = candidates[[speaker, *others]]
    rt60 = float(rng.uniform(*settings.rt60))
    return make_room(size, microphone, sources, rt60, settings.damping)


def make_room(
    size: Sequence[float] | np.ndarray,
    microphone: Sequence[float] | np.ndarray,
    sources: Sequence[Sequence[float]] | np.ndarray,
    rt60: float,
    damping: float = 1.0,
) -> Room:
    """Return the room whose absorption yields the given RT60 (T30 of the diffuse field, s)."""
    sides = np.asarray(size, dtype=np.float64)
    grid, energy = _decay_curve(sides)
    curve = _backward(energy)
    inside = (curve <= -5.0) & (curve >= -35.0)
    slope = np.polyfit(grid[inside], curve[inside], 1)[0]  # dB per unit of decay * metres travelled
    decay = float(-60.0 / slope) / (SPEED * rt60)
    return Room(sides, np.asarray(microphone, float), np.asarray(sources, float), rt60, decay, damping)


def impulse_responses(
    room: Room, rate: int, rng: np.random.Generator, mixing: float = 0.04, fade: float = 0.01
) -> np.ndarray:
    """Return float32 responses (sources, taps); the direct sound is 1.0 at tap ``LEAD`` of each.

    Up to ``mixing`` s after the direct sound every image is exact; the next ``fade`` s cross-fade to the tail.
    """
    taps = tap_count(room, rate)
    offsets = room.sources - room.microphone
    direct = np.sqrt((offsets**2).sum(axis=1))
    source, path, walls = _images(room, direct + SPEED * (mixing + fade))
    delay = (path - direct[source]) / SPEED
    amplitude = direct[source] / path * np.exp(-room.decay * walls)
    amplitude *= np.cos(0.5 * np.pi * np.clip((delay - mixing) / fade, 0.0, 1.0))
    early = _render(source, LEAD + delay * rate, amplitude, len(direct), taps)
    start = LEAD + int(mixing * rate)
    if start < taps:
        grid, energy = _decay_curve(room.size)
        since = (np.arange(start, taps) - LEAD) / rate
        ramp = np.sin(0.5 * np.pi * np.clip((since - mixing) / fade, 0.0, 1.0))
        # Energy per second of images with amplitude 1 / (4 pi r); each adds its square to the samples.
        scale = 4.0 * np.pi * direct * np.sqrt(SPEED / (4.0 * np.pi * np.prod(room.size) * rate))
        noise = rng.standard_normal((len(direct), taps - start), dtype=np.float32)
        step = grid[1]
        reach = room.decay * (SPEED * since[None, :] + direct[:, None]) / step
        # The curve is smooth: interpolating its logarithm by index is exact enough and cheaper than many exponentials.
        root = np.interp(reach, np.arange(len(grid)), 0.5 * np.log(energy))
        early[:, start:] += noise * (np.exp(root) * ramp * scale[:, None]).astype(np.float32)
    return damp(early, rate, room) if room.damping > 1 else early


def check_exact() -> None:
    """Raise a ``UserError`` if :func:`exact_impulse_responses` has not the package that it needs."""
    if importlib.util.find_spec("pyroomacoustics") is None:
        raise UserError("rooms: method 'exact' needs the package pyroomacoustics: pip install '.[rooms]'")


def exact_impulse_responses(room: Room, rate: int) -> np.ndarray:
    """Return the same by ``pyroomacoustics``, with every image: slow, the oracle of this module."""
    check_exact()
    import pyroomacoustics

    taps = tap_count(room, rate)
    order = int(np.ceil(SPEED * taps / rate * np.sqrt((1.0 / room.size**2).sum()) * np.sqrt(3.0) / 1.5))
    pyroomacoustics.constants.set("c", SPEED)
    shoebox = pyroomacoustics.ShoeBox(
        room.size, fs=rate, materials=pyroomacoustics.Material(room.absorption), max_order=order
    )
    for place in room.sources:
        shoebox.add_source(place)
    shoebox.add_microphone(room.microphone)
    shoebox.compute_rir()
    half = pyroomacoustics.constants.get("frac_delay_length") // 2
    direct = np.linalg.norm(room.sources - room.microphone, axis=1)
    rows = []
    for response, length in zip(shoebox.rir[0], direct, strict=True):
        aligned = align(np.asarray(response), length / SPEED * rate + half)
        row = np.zeros(taps)
        row[: min(taps, len(aligned))] = aligned[:taps]
        rows.append(row / row[LEAD])
    out = np.stack(rows).astype(np.float32)
    return damp(out, rate, room) if room.damping > 1 else out


def align(response: np.ndarray, direct: float) -> np.ndarray:
    """Return a response shifted, by a fractional delay, so that its direct sound moves from ``direct`` to ``LEAD``."""
    if abs(direct - round(direct)) < 1e-6:
        moved = round(direct) - LEAD
        return response[moved:] if moved >= 0 else np.pad(response, (-moved, 0))
    padded = np.pad(response, (LEAD, LEAD))
    spectrum = np.fft.rfft(padded, 2 * len(padded))
    turn = np.exp(2j * np.pi * np.fft.rfftfreq(2 * len(padded)) * direct)
    return np.fft.irfft(spectrum * turn, 2 * len(padded))[: len(response)]


def tap_count(room: Room, rate: int) -> int:
    """Return the length of a room's responses in samples: RT60 after the direct sound, a decay of at most 60 dB."""
    return LEAD + max(2 * _HALF, int(np.ceil(room.rt60 * rate)))


def damp(responses: np.ndarray, rate: int, room: Room) -> np.ndarray:
    """Return responses (S, taps) whose part above 2 kHz decays ``room.damping`` times as fast."""
    import scipy.signal

    sos = scipy.signal.butter(2, 2000.0, fs=rate, output="sos")
    low = scipy.signal.sosfiltfilt(sos, responses, axis=1)
    since = np.maximum(np.arange(responses.shape[1]) - LEAD, 0) / rate
    extra = 10.0 ** (-3.0 * (room.damping - 1.0) * since / room.rt60)
    return (low + (responses - low) * extra).astype(np.float32)


def reverberation_time(response: np.ndarray, rate: int, low: float = -35.0) -> float:
    """Return RT60 in s from the slope of Schroeder's backward integral between -5 dB and ``low`` (T30, ISO 3382)."""
    curve = _backward(np.asarray(response, dtype=np.float64) ** 2)
    inside = np.flatnonzero((curve <= -5.0) & (curve >= low))
    if len(inside) < 2:
        return 0.0
    return float(-60.0 / np.polyfit(inside / rate, curve[inside], 1)[0])


def direct_to_reverberant(response: np.ndarray, rate: int, lead: int = LEAD) -> float:
    """Return the ratio of the energy within 2.5 ms of the direct sound to that after it, in dB."""
    energy = np.asarray(response, dtype=np.float64) ** 2
    end = lead + int(0.0025 * rate) + 1
    return float(10.0 * np.log10(energy[:end].sum() / max(energy[end:].sum(), 1e-12)))


def _backward(energy: np.ndarray) -> np.ndarray:
    left = np.cumsum(energy[::-1])[::-1]
    return 10.0 * np.log10(np.maximum(left, 1e-30 * left[0]) / left[0])


@lru_cache(maxsize=8)
def _directions(count: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Gauss nodes over an octant of the sphere: |u| (count^2, 3) and weights that add up to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    nodes, weights = 0.5 * (nodes + 1.0), 0.5 * weights
    azimuth = 0.5 * np.pi * nodes
    flat = np.sqrt(1.0 - nodes**2)
    unit = np.stack(
        [np.outer(flat, np.cos(azimuth)), np.outer(flat, np.sin(azimuth)), np.outer(nodes, np.ones(count))], axis=-1
    )
    return unit.reshape(-1, 3), np.outer(weights, weights).ravel()


def _decay_curve(size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (decay * metres travelled, remaining energy averaged over directions); the first is an even grid."""
    unit, weights = _directions()
    rates = 2.0 * unit @ (1.0 / size)
    grid = np.linspace(0.0, 40.0 / rates.min(), 512)
    # The grid is even, so powers of one step replace an exponential per point.
    powers = np.exp(-rates * grid[1])[None, :] ** np.arange(32)[:, None]
    coarse = np.exp(-rates * (32 * grid[1]))[None, :] ** np.arange(16)[:, None]
    return grid, np.einsum("id,jd,d->ij", coarse, powers, weights, optimize=True).ravel()


def _images(room: Room, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return source index, distance (m) and number of reflections of each image within its source's ``reach`` (S,)."""
    square, walls = [], []
    for axis in range(3):
        side = room.size[axis]
        order = int(np.ceil(reach.max() / (2.0 * side))) + 1
        repeat = np.arange(-order, order + 1)
        here = room.sources[:, axis, None]
        place = 2.0 * side * repeat[None, :] - room.microphone[axis]
        square.append(np.concatenate([here + place, place - here], axis=1) ** 2)
        walls.append(np.concatenate([2 * abs(repeat), abs(repeat - 1) + abs(repeat)]))
    x, y, z = square
    limit = reach**2
    plane = x[:, :, None] + y[:, None, :]
    source, i, j = np.nonzero(plane < limit[:, None, None])
    total = plane[source, i, j, None] + z[source]
    row, k = np.nonzero(total < limit[source, None])
    met = walls[0][i[row]] + walls[1][j[row]] + walls[2][k]
    return source[row], np.sqrt(total[row, k]), met


@lru_cache(maxsize=1)
def _sinc_table() -> np.ndarray:
    """Windowed sincs (phases, 2 * half) for delays of 0 to 1 sample past the centre."""
    at = np.arange(-_HALF + 1, _HALF + 1)[None, :] - np.arange(_PHASES + 1)[:, None] / _PHASES
    return np.sinc(at) * np.cos(0.5 * np.pi * np.clip(at / _HALF, -1, 1)) ** 2


def _render(source: np.ndarray, place: np.ndarray, amplitude: np.ndarray, rows: int, taps: int) -> np.ndarray:
    """Add up impulses at fractional positions into responses (rows, taps)."""
    width = taps + 2 * _HALF
    keep = place < taps + _HALF - 1
    source, place, amplitude = source[keep], place[keep], amplitude[keep]
    whole = np.floor(place).astype(np.int64)
    phase = np.rint((place - whole) * _PHASES).astype(np.int64)
    values = _sinc_table()[phase] * amplitude[:, None]
    first = source * width + whole + 1  # the table starts half - 1 before, the row half before
    index = first[:, None] + np.arange(2 * _HALF)[None, :]
    flat = np.bincount(index.ravel(), weights=values.ravel(), minlength=rows * width)
    return flat.reshape(rows, width)[:, _HALF : _HALF + taps].astype(np.float32)
