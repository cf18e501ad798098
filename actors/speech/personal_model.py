"""The files of a recogniser with a user's words: one artifact with all its parts, and what is made of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib.util import find_spec

import numpy as np

from gristmill.actors.ngram_files import FILE, STORE_FILE, load_store
from gristmill.actors.speech.lexicon_files import LEXICON_FILE, read_lexicon, read_lexicon_file
from gristmill.actors.speech.teacher_checkpoint import Checkpoint
from gristmill.actors.speech.teacher_hama import phonemes_of
from gristmill.actors.speech.teacher_source import inference
from gristmill.models.speech.acoustic import AcousticModel
from gristmill.models.speech.adapter import ADAPTER, load_adapter
from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.personal import Heard, PersonalParts, PersonalRecogniser, PersonalSettings
from gristmill.models.speech.pronunciations import Pronunciations, Source
from gristmill.models.speech.spelling_variants import SpellingTable
from gristmill.models.speech.units import UNITS_FILE, Units, normalise
from gristmill.shards.artifact import get_artifact, read_file
from gristmill.shards.errors import UserError

SPELLINGS = "spellings.json"  # of an artifact: the table of other spellings
SETTINGS_FILE = "personal.json"  # of an artifact: the settings that were chosen


class PersonalModel:
    """A base with all that an artifact has beside it: an adapter, a language model, pronunciations and spellings.

    ``pronounced`` is a further artifact of pronunciations, in the phones of the base's inner head or in the units of a
    base of phones, and ``table`` one of spellings in place of the model's. Words of the entries ``ask`` that it lacks
    are pronounced by the text-to-phoneme model of the phoneme teacher, if that is installed, when they are needed: some
    15 ms each. ``language`` is a language model in place of the artifact's, and ``lexicon`` a file of the words to
    search for: by default those of the language model.

    Raises:
        UserError: there is no model, or its parts do not fit each other.
    """

    def __init__(
        self,
        model: str,
        settings: PersonalSettings | None = None,
        *,
        pronounced: str | None = None,
        table: str | None = None,
        lexicon: str | None = None,
        language: str | None = None,
        ask: Collection[str] = (),
        device: str = "cpu",
    ) -> None:
        made = get_artifact(model)
        files = set(made.files) if made is not None else set()
        if settings is None:
            tuned = read_file(model, SETTINGS_FILE) if SETTINGS_FILE in files else b"{}"
            settings = PersonalSettings.model_validate_json(tuned)
        self.base = Checkpoint(model, device, "float32")
        self.frame = 1 / self.base.info.frame_rate
        units, network = self.base.info.units, self.base.network
        if language is None and files & {FILE, STORE_FILE}:
            language = model
        words = load_store(language) if language is not None else None
        phones = units if units.kind == "phonemes" else self.base.phones
        several = [place for place in (model if LEXICON_FILE in files else None, pronounced) if place is not None]
        pronunciations = None
        asked = {word for entry in ask for word in normalise(entry).split()} if find_spec("hama") is not None else set()
        if phones is not None and (several or asked):
            read = [_read(place, phones) for place in several]
            pronunciations = Pronunciations(_source(read, asked, phones), phones)
        known = None
        if lexicon is not None:
            known = read_lexicon(read_lexicon_file(lexicon), units, lexicon)
        elif words is not None:
            known = _lexicon(words.words.names(), units, pronunciations, str(language))
        adapter = None
        if ADAPTER in files:
            adapter = load_adapter(read_file(model, ADAPTER), network, self.base.info.digest).to(self.base.device)
        where = table if table is not None else model if SPELLINGS in files else None
        spellings = None if where is None else SpellingTable.from_json(read_file(where, SPELLINGS).decode())
        parts = PersonalParts(units, known, words, adapter, network.classify, pronunciations, spellings)
        self.recogniser = PersonalRecogniser(parts, settings)

    def hear(self, features: np.ndarray) -> Heard:
        """Return what the base makes of the features (T, n_mels) of an utterance."""
        network = self.base.network
        states = self.base.layers(features)
        with inference(self.base.device, "float32"):
            log_probs = network.classify(states[-1])[0].cpu().numpy()
            if self.base.info.units.kind == "phonemes":
                return Heard(log_probs, log_probs, states)
            phones = None
            if isinstance(network, AcousticModel):
                heads = zip(network.classify_inner(states), network.settings.inner, strict=True)
                phones = next((one[0].cpu().numpy() for one, head in heads if head.of == "phones"), None)
        return Heard(log_probs, phones, states)


def _read(artifact: str, phones: Units) -> Lexicon:
    units = Units.from_json(read_file(artifact, UNITS_FILE).decode())
    if units.digest != phones.digest:
        raise UserError(f"{artifact}: pronunciations in other phones than those of the base")
    return read_lexicon(read_file(artifact, LEXICON_FILE), units, artifact)


def _source(several: Sequence[Lexicon], asked: Collection[str], phones: Units) -> Source:
    """Return the function that finds a word in the first lexicon that has it, and asks for some that none has."""
    symbols = set(phones.tokens)

    def find(word: str) -> list[str]:
        for one in several:
            if found := one.spelled_as(word):
                return [one.units.decode(spelled) for spelled in found]
        said = phonemes_of(word) if word in asked else []
        return [" ".join(said)] if said and symbols.issuperset(said) else []

    return find


def _lexicon(words: Sequence[str], units: Units, pronunciations: Pronunciations | None, source: str) -> Lexicon:
    if units.kind != "phonemes":
        return Lexicon.spelled(words, units, source)
    if pronunciations is None:
        raise UserError(f"{source}: words, and a base of phones; expected their pronunciations beside it")
    return Lexicon.pronounced(pronunciations.symbols(words), units, source)
