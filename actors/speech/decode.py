"""The actor that transcribes utterances by a CTC model, a lexicon and a word language model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.actors.speech.recognise import WORDS, outputs
from gristmill.actors.speech.teacher_checkpoint import Checkpoint
from gristmill.models.speech.decoder import Decoded, Decoder, DecoderSettings
from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.units import Units
from gristmill.shards.artifact import read_file
from gristmill.shards.errors import UserError
from gristmill.shards.stage import Actor, BatchLimits, Resources

LEXICON_FILE = "lexicon.tsv"  # of an artifact: a word a line or, for phonemes, a word, a tab and a pronunciation
LANGUAGE_FILE = "words.npz"  # of an artifact: what table_bytes() makes


class DecoderStageSettings(DecoderSettings):
    """Settings of decoding, and the device of the acoustic model."""

    device: str = "cpu"


class Decode(Actor):
    """Adds ``hypothesis``, its ``words`` with their times, ``hypothesis_confidence`` and ``nbest``; drops the features.

    A word's confidence is the least, over its units, of the unit's highest probability; the hypothesis's is the mean of
    its words', null without one. ``nbest`` has the texts of the best hypotheses, best first, with their scores and
    their shares of the probability of all that were left at the end. Without ``lexicon`` the words are those of
    ``language``; without either, any units are.

    Example:
        Decode.stage(DecoderStageSettings(beam=50, nbest=10), model=student.ref, language=trigrams.ref)
    """

    name = "decode"
    version = 1
    adds = (
        pa.field("hypothesis", pa.string()),
        pa.field("hypothesis_confidence", pa.float32()),
        WORDS,
        pa.field(
            "nbest", pa.list_(pa.struct([("text", pa.string()), ("score", pa.float32()), ("share", pa.float32())]))
        ),
    )
    drops = ("features",)
    batch = BatchLimits(rows=32, cost="feature_frames", max_cost=48000)
    settings: DecoderStageSettings

    def __init__(
        self, settings: DecoderStageSettings, model: str, lexicon: str | None = None, language: str | None = None
    ) -> None:
        super().__init__(settings)
        from gristmill.models.word_models import read_table  # compiles

        self.model = Checkpoint(model, settings.device, "float32")
        words = None if language is None else read_table(_read(language, LANGUAGE_FILE), language)
        units = self.model.info.units
        known = None
        if lexicon is not None:
            known = read_lexicon(_read(lexicon, LEXICON_FILE), units, lexicon)
        elif words is not None:
            known = Lexicon.spelled(words.words, units)
        self.decoder = Decoder(units, settings, known, words)

    @classmethod
    def contract(cls, settings: DecoderStageSettings) -> Mapping[str, Any]:
        """Return the reproducibility of the texts, and the GPU of a worker."""
        gpu = settings.device != "cpu"
        return {"deterministic": not gpu, "resources": Resources(gpus=1.0 if gpu else 0.0)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the texts, which are empty for rows without feature frames."""
        found: list[list[Decoded]] = [[] for _ in range(batch.num_rows)]
        for place, scores in outputs(self.model, "the model", batch):
            found[place] = self.decoder.decode(scores, frame=1 / self.model.info.frame_rate)
        lengths = batch["duration"].to_pylist() if "duration" in batch.column_names else [math.inf] * len(found)
        words = [
            [
                one._replace(start=min(one.start, length), end=min(one.end, length))._asdict()
                for one in (several[0].words if several else ())
            ]
            for several, length in zip(found, lengths, strict=True)
        ]
        columns = (
            [several[0].text if several else "" for several in found],
            [float(np.mean([word["confidence"] for word in one])) if one else None for one in words],
            words,
            [[{"text": one.text, "score": one.score, "share": one.share} for one in several] for several in found],
        )
        for field, values in zip(self.adds, columns, strict=True):
            batch = set_column(batch, field.name, pa.array(values, field.type))
        return batch


def read_lexicon(data: bytes, units: Units, source: str) -> Lexicon:
    """Return the lexicon of a file: a word a line or, for phonemes, a word, a tab and a pronunciation of it.

    Raises:
        UserError: the units cannot spell it, or a line has another form; the sentence names the source.
    """
    words: dict[str, list[str]] = {}
    for number, line in enumerate(data.decode().splitlines(), start=1):
        word, tab, pronunciation = line.strip().partition("\t")
        if bool(tab) != (units.kind == "phonemes") and word:
            expected = "a word, a tab and its phonemes" if units.kind == "phonemes" else "a word"
            raise UserError(f"{source}: line {number} is {line[:80]!r}; expected {expected}")
        if word:
            words.setdefault(word, []).append(pronunciation)
    return Lexicon.pronounced(words, units) if units.kind == "phonemes" else Lexicon.spelled(words, units)


def _read(url: str, name: str) -> bytes:
    try:
        return read_file(url, name)
    except FileNotFoundError:
        raise UserError(f"{url}: has no {name}; expected an artifact or a folder with one") from None
