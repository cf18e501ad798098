"""The phoneme teacher of the pip package ``hama``: a CTC model over samples, with its own text-to-phoneme model.

Its frames are 20 ms, its tokens IPA phonemes. It runs on the CPU, one utterance at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.actors.speech.teacher_source import TeacherInfo, inference
from gristmill.models.speech.units import BLANK, WORD_BOUNDARY, phonemes
from gristmill.shards import canonical
from gristmill.shards.errors import UserError

if TYPE_CHECKING:
    import torch

SAMPLING_RATE = 16000
FRAME_SAMPLES = 320


class Hama:
    """The package's model behind the interface of a teacher."""

    shortest = FRAME_SAMPLES

    def __init__(self, device: str = "cpu") -> None:
        if device != "cpu":
            raise UserError(f"teacher: hama runs on the CPU only, not on {device!r}")
        import torch

        model = _package().ASRModel()
        self._session = model.session
        self.info = describe()
        self._order = unit_order(model.decoder_tokens)
        tokens = tuple(model.decoder_tokens[i] for i in self._order)
        if tokens != self.info.units.tokens:
            raise UserError("teacher: the tokens of this version of hama differ from its vocabulary file")
        self._device = torch.device("cpu")

    def __call__(self, inputs: Sequence[np.ndarray]) -> tuple[torch.Tensor, list[int]]:
        """Return (log-softmax (B, T, V), frames of each) of samples at 16 kHz."""
        import torch

        found = [self._one(samples) for samples in inputs]
        frames = [len(one) for one in found]
        out = torch.zeros((len(found), max(frames), len(self._order)))
        for row, one in enumerate(found):
            out[row, : len(one)] = torch.from_numpy(one)
        with inference(self._device, "float32"):
            return torch.log_softmax(out, dim=-1), frames

    def _one(self, samples: np.ndarray) -> np.ndarray:
        feeds = {"waveform": np.clip(samples, -1.0, 1.0), "waveform_lengths": np.array([len(samples)])}
        log_probs, lengths = self._session.run(["log_probs", "out_lengths"], feeds)
        frames = min(int(lengths[0]), log_probs.shape[1])
        return np.ascontiguousarray(log_probs[0, :frames][:, self._order])


@lru_cache(maxsize=1)
def describe() -> TeacherInfo:
    """Return the description of the package's model."""
    given = tokens()
    units = phonemes([given[i] for i in unit_order(given)[1:]])
    digest = canonical.digest([metadata.version("hama"), canonical.sha256(weights())])
    return TeacherInfo(units, SAMPLING_RATE / FRAME_SAMPLES, SAMPLING_RATE, None, digest)


def tokens() -> list[str]:
    """Return the recogniser's tokens in the package's order, in which its weights are."""
    return [*_package().Vocabulary.load().decoder, WORD_BOUNDARY, BLANK]


def unit_order(given: Sequence[str]) -> list[int]:
    """Return the places of units in a list of the package's tokens.

    The blank is unit 0 here and the last token in the package; the others keep their order.
    """
    blank = given.index(BLANK)
    return [blank, *(i for i in range(len(given)) if i != blank)]


def weights() -> bytes:
    """Return the package's file of the recogniser's weights."""
    _package()
    return resources.files("hama.assets").joinpath("asr_waveform.hama").read_bytes()


def phonemes_of(text: str, *, boundaries: bool = False) -> list[str]:
    """Return the phonemes of an English text by the package's own text-to-phoneme model, in its recogniser's symbols.

    Case and punctuation are removed first, since the model pronounces punctuation. ``boundaries`` puts the recogniser's
    word boundary between words.
    """
    out: list[str] = []
    for word in spoken_form(text).split():
        if out and boundaries:
            out.append(WORD_BOUNDARY)
        out.extend(_word(word))
    return out


def spoken_form(text: str) -> str:
    """Return a text without case and punctuation; apostrophes inside words stay."""
    text = text.lower().replace("’", "'").replace("-", " ")
    return " ".join(re.sub(r"(?<!\w)'|'(?!\w)|[^\w\s']|_", " ", text).split())


def comparable(units: Iterable[str]) -> list[str]:
    """Return recognised units without blanks, word boundaries and other marks, to count phone errors."""
    return [unit for unit in units if unit.strip() and not (unit.startswith("<") and unit.endswith(">"))]


@lru_cache(maxsize=1)
def _g2p() -> Any:
    model = _package().G2PModel()
    model.tokenizer.vocab = _Once(model.tokenizer.vocab)
    return model


class _Once:
    """The package's vocabulary with its table of letters made once: it makes one twice a letter, 30 ms a word."""

    def __init__(self, vocab: Any) -> None:
        self._vocab = vocab
        self.encoder_token_to_id = vocab.encoder_token_to_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vocab, name)


@lru_cache(maxsize=100_000)
def _word(word: str) -> tuple[str, ...]:
    found = _g2p().predict(word, split_delimiter=None)
    return tuple(comparable(alignment.phoneme for alignment in found.alignments))


def _package() -> Any:
    try:
        import hama
    except ImportError:
        raise UserError("teacher: the package hama is not installed; run `pip install hama`") from None
    return hama
