"""The actor that transcribes utterances with a user's list of words."""

from __future__ import annotations

import pyarrow as pa

from gristmill.actors.speech.decode import Decode, with_decoded
from gristmill.actors.speech.features import rows_of
from gristmill.actors.speech.personal_model import PersonalModel
from gristmill.actors.speech.recognise import FeatureReader, check_features
from gristmill.actors.speech.word_lists import read_entries
from gristmill.models.speech.decoder import Decoded
from gristmill.models.speech.personal import TECHNIQUES, PersonalSettings, Technique
from gristmill.shards.settings import Settings


class ListedSettings(Settings):
    """Settings of recognition with a list of words, and the device of the acoustic model."""

    personal: PersonalSettings | None = None
    """Null: those that the model was tuned to."""
    techniques: tuple[Technique, ...] = TECHNIQUES
    """What acts on the list, as far as the model has what it needs."""
    device: str = "cpu"


class DecodeListed(FeatureReader):
    """Adds what :class:`~gristmill.actors.speech.decode.Decode` adds, with the words of a list; drops the features.

    ``listed`` is a text with a word or phrase a line; of the model, ``lexicon`` and ``language`` see
    :class:`~gristmill.actors.speech.personal_model.PersonalModel`.

    Raises:
        UserError: one of them cannot be read or is not of the model's units.

    Example:
        DecodeListed.stage(model=joint.ref, listed=contacts.ref)
    """

    name = "decode_listed"
    adds = Decode.adds
    settings: ListedSettings

    def __init__(
        self,
        settings: ListedSettings,
        model: str,
        listed: str | None = None,
        lexicon: str | None = None,
        language: str | None = None,
    ) -> None:
        super().__init__(settings)
        words = read_words(listed) if listed is not None else []
        self.model = PersonalModel(
            model, settings.personal, lexicon=lexicon, language=language, ask=words, device=settings.device
        )
        self.listed = self.model.recogniser.listed(words)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the texts, which are empty for rows without feature frames."""
        check_features(self.model.base, "the model", batch)
        found: list[list[Decoded]] = []
        for flat, frames in zip(rows_of(batch["features"]), batch["feature_frames"].to_pylist(), strict=True):
            if not frames:
                found.append([])
                continue
            heard = self.model.hear(flat.reshape(frames, -1))
            given = (self.listed, self.settings.techniques)
            found.append(self.model.recogniser.recognised(heard, *given, frame=self.model.frame))
        return with_decoded(batch, found)


def read_words(url: str) -> list[str]:
    """Return the entries of a list: the lines of a text that are not empty.

    Raises:
        UserError: there is no such file, or it is no text.
    """
    return read_entries(url, f"{url}: {{}}; expected a list: a text with a word or phrase a line")
