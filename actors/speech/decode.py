"""The actor that transcribes utterances by a CTC model, a lexicon and a word language model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.actors.ngram_files import load_store
from gristmill.actors.speech.lexicon_files import read_lexicon, read_lexicon_file
from gristmill.actors.speech.recognise import WORDS, FeatureReader, outputs
from gristmill.actors.speech.teacher_checkpoint import Checkpoint
from gristmill.models.speech.decoder import Decoded, Decoder, DecoderSettings
from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.units import Units
from gristmill.shards.errors import UserError


class DecoderStageSettings(DecoderSettings):
    """Settings of decoding, and the device of the acoustic model."""

    device: str = "cpu"


class Decode(FeatureReader):
    """Adds ``hypothesis``, its ``words`` with their times, ``hypothesis_confidence`` and ``nbest``; drops the features.

    A word's confidence is the least, over its units, of the unit's highest probability; the hypothesis's is the mean of
    its words', null without one. ``nbest`` has the texts of the best hypotheses, best first, with their scores and
    their shares of the probability of all that were left at the end.

    ``language`` is a word language model: a store, an ARPA file, an artifact or a folder that holds ``lm.arpa``. It is
    best a store on the machine's disk, which its workers share; of an ARPA file each makes one in its memory.
    ``lexicon`` is a file that :func:`read_lexicon` reads, or what holds one as ``lexicon.tsv``. Without it the words
    are those of ``language``; without either, any units are.

    Raises:
        UserError: one of them cannot be read, the units spell none of the words, the language model has none of them,
            or the units are phonemes and there is no lexicon.

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
    settings: DecoderStageSettings

    def __init__(
        self, settings: DecoderStageSettings, model: str, lexicon: str | None = None, language: str | None = None
    ) -> None:
        super().__init__(settings)
        self.model = Checkpoint(model, settings.device, "float32")
        self.decoder = make_decoder(self.model.info.units, settings, lexicon, language)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the texts, which are empty for rows without feature frames."""
        found: list[list[Decoded]] = [[] for _ in range(batch.num_rows)]
        for place, scores in outputs(self.model, "the model", batch):
            found[place] = self.decoder.decode(scores, frame=1 / self.model.info.frame_rate)
        return with_decoded(batch, found)


def with_decoded(batch: pa.Table, found: Sequence[Sequence[Decoded]]) -> pa.Table:
    """Return a batch with the columns of :class:`Decode`, of the hypotheses of each row; no time is beyond a row's."""
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
    for field, values in zip(Decode.adds, columns, strict=True):
        batch = set_column(batch, field.name, pa.array(values, field.type))
    return batch


def make_decoder(units: Units, settings: DecoderSettings, lexicon: str | None, language: str | None) -> Decoder:
    """Return the decoder of a model's units with the lexicon and the language model at URLs; see :class:`Decode`."""
    if lexicon is None and language is None:
        return Decoder(units, settings)
    if lexicon is None and units.kind == "phonemes":
        raise UserError(f"{language}: words, and a recogniser of phonemes; expected a lexicon of their pronunciations")
    words = None if language is None else load_store(language)
    if lexicon is not None:
        known = read_lexicon(read_lexicon_file(lexicon), units, lexicon)
    else:
        known = Lexicon.spelled(words.words.names() if words else (), units, str(language))
    if words is not None and (words.look_up(known.words) == words.unknown_word).all():
        raise UserError(f"{language}: has none of the {len(known.words)} words of {lexicon}; expected a model of them")
    return Decoder(units, settings, known, words)
