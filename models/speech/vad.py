"""Where in a recording there is speech: probabilities of short frames, and utterances made of them.

Frames have 512 samples at 16 kHz (32 ms). Probabilities are those of a block and depend on nothing before it, so that
blocks can be computed anywhere, in any order, with the same result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from gristmill.shards.settings import Settings

RATE = 16000  # Hz
FRAME = 512  # samples
FRAME_S = FRAME / RATE
HYSTERESIS = 0.15  # by which speech may fall below the threshold and go on, as in Silero's own
_SMOOTH = 9  # frames over which the quietest place is sought
_CONTEXT, _REFLECTED = 64, 64  # samples before a frame, and mirrored after it, that Silero's model sees
_FLOOR = 10  # percentile of a block's frames that counts as its noise, dB
_NOTHING = 1e-10  # power, re full scale, below which a frame is silent
_PAUSE = 10  # frames that noise, or digital silence, lasts at least in a pause
_OVER, _SLOPE = 9.0, 1.5  # dB above the noise that are speech or not, alike; dB by which that gets surer by a factor e


class LengthSettings(Settings):
    """The lengths of utterances, s."""

    least: float = Field(0.5, gt=0)
    """The least."""
    most: float = Field(20.0, gt=1)
    """The most."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.least >= self.most:
            raise ValueError(f"least={self.least:g} is not below most={self.most:g}; no utterance would be left")
        return self


class UtteranceSettings(LengthSettings):
    """How speech is cut into utterances."""

    threshold: float = Field(0.8, gt=0.15, lt=1)
    """Probability from which a frame is speech; it goes on until 0.15 below. Lower keeps more speech in noise, and ends
    utterances later."""
    silence: float = Field(0.5, gt=0)
    """Pause that parts two utterances, s."""
    least: float = Field(0.5, gt=0)
    """Speech of an utterance, s; of less it is dropped."""
    most: float = Field(20.0, gt=1)
    """Length of an utterance with its padding, s; a longer one is parted at its quietest place."""
    padding: float = Field(0.1, ge=0, le=0.5)
    """Silence kept before and after an utterance, s, up to the middle of the pause."""


def find_utterances(probabilities: np.ndarray, settings: UtteranceSettings) -> list[tuple[int, int]]:
    """Return the utterances in the frames' probabilities (n,) of speech, as first frames and those after the last.

    Example:
        >>> find_utterances(np.repeat([0.0, 0.9, 0.0], [20, 30, 25]), UtteranceSettings(padding=0.064))
        [(18, 52)]
    """
    silence, least = round(settings.silence / FRAME_S), round(settings.least / FRAME_S)
    padding = round(settings.padding / FRAME_S)
    most = round(settings.most / FRAME_S) - 2 * padding
    found: list[tuple[int, int]] = []
    start, end = -1, -1
    for number, value in enumerate(probabilities.tolist()):
        if start >= 0 and number - end >= silence:
            found.append((start, end))
            start = -1
        if value >= settings.threshold:
            start, end = number if start < 0 else start, number + 1
        elif number == end and value >= settings.threshold - HYSTERESIS:
            end = number + 1
    if start >= 0:
        found.append((start, end))
    smooth = _smoothed(probabilities)
    parted: list[tuple[int, int]] = []
    for start, end in found:
        while end - start > most:
            middle = start + most // 2
            cut = middle + int(np.argmin(smooth[middle : start + most]))
            parted.append((start, cut))
            start = cut
        parted.append((start, end))
    kept = [(start, end) for start, end in parted if end - start >= least]
    middles = [(before[1] + after[0]) // 2 for before, after in pairwise(kept)]
    bounds = zip([0, *middles], [*middles, len(probabilities)], strict=True) if kept else ()
    return [
        (max(low, start - padding), min(high, end + padding))
        for (start, end), (low, high) in zip(kept, bounds, strict=True)
    ]


def quietest(probabilities: np.ndarray) -> int:
    """Return the frame around which speech is least probable, (n,) frames being given."""
    return int(np.argmin(_smoothed(probabilities)))


def _smoothed(probabilities: np.ndarray) -> np.ndarray:
    return np.convolve(np.pad(probabilities, _SMOOTH // 2, mode="edge"), np.full(_SMOOTH, 1 / _SMOOTH), mode="valid")


def energy_probabilities(samples: np.ndarray) -> np.ndarray:
    """Return how probably each frame of samples (n * 512,) is speech, by its level above the block's noise.

    Where a recording's pauses are digital silence, as of gated telephony or of files that were joined, all that is not
    silent is speech.
    """
    frames = samples.reshape(-1, FRAME).astype(np.float64)
    frames = frames - frames.mean(axis=1, keepdims=True)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + _NOTHING)
    over = level - _noise(level)
    return (1 / (1 + np.exp((_OVER - over) / _SLOPE))).astype(np.float32)


def _noise(level: np.ndarray) -> float:
    """Return the level of the noise in frames of levels (n,), dB."""
    heard = level > 10 * np.log10(2 * _NOTHING)
    if not heard.any():
        return 0.0
    noise = float(np.percentile(level[heard], _FLOOR))
    # The quietest tenth of speech without noise is speech, but does not last: noise does, in pauses, and so does the
    # silence of a gate.
    lasting = _lasting(heard & (level < noise + _OVER))
    gated = lasting < _FLOOR / 100 * heard.sum() and lasting < _lasting(~heard)
    return 10 * np.log10(_NOTHING) if gated else noise


def _lasting(marks: np.ndarray) -> int:
    """Return how many frames (n,) are marked together with their neighbours, for as long as a pause."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marks, [False]]).astype(np.int8)))
    runs = edges[1::2] - edges[::2]
    return int(runs[runs >= _PAUSE].sum())


class SileroVAD(nn.Module):
    """Silero's detector (github.com/snakers4/silero-vad, version 6, MIT; for 16 kHz), run over a block at once."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)  # real and imaginary parts of 129 bands
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    @torch.inference_mode()
    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Return the probability of speech of each frame (n,) of samples (n * 512,) at 16 kHz."""
        frames = nn.functional.pad(samples, (_CONTEXT, 0)).unfold(0, FRAME + _CONTEXT, FRAME)
        x = self.stft_conv(nn.functional.pad(frames, (0, _REFLECTED), mode="reflect").unsqueeze(1))
        x = (x[:, :129] ** 2 + x[:, 129:] ** 2).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = layer(x).relu()
        states, _ = self.lstm(x.squeeze(-1))
        return self.final_conv(states.relu().T.unsqueeze(0)).sigmoid().flatten()

    @classmethod
    def of_weights(cls, weights: Mapping[str, torch.Tensor]) -> SileroVAD:
        """Return the detector with the weights of ``silero_vad_16k.safetensors``, of the package ``silero-vad``."""
        model = cls()
        model.load_state_dict({re.sub(r"^lstm_cell\.(.*)", r"lstm.\1_l0", name): w for name, w in weights.items()})
        return model.eval()
