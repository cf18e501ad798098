"""The words that are known when recordings are transcribed: a language model, how words are spelled, a user's list."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from gristmill.actors.ngram_files import STORE, file_of
from gristmill.actors.speech.decode import Decode, DecoderStageSettings
from gristmill.actors.speech.decode_listed import DecodeListed, ListedSettings
from gristmill.actors.speech.lexicon_files import lexicon_file
from gristmill.actors.speech.personal_model import SETTINGS_FILE
from gristmill.models.speech.decoder import DecoderSettings
from gristmill.models.speech.personal import PersonalSettings
from gristmill.shards import store
from gristmill.shards.artifact import get_artifact
from gristmill.shards.errors import UserError
from gristmill.shards.stage import ArtifactRef, BatchFunction, Stage

_LANGUAGE = "a language model: a store, an ARPA file, or a folder that holds one"
_LEXICON = "a lexicon: a text with a word a line"
_LIST = "a text with a word or phrase a line"


@dataclass(frozen=True)
class KnownWords:
    """A word language model, a lexicon and a list of words, each a path or URL, and how words are searched for.

    ``lm`` is a store, an ARPA file, or an artifact or a folder that holds ``lm.arpa``. ``lexicon`` is a text with a
    word a line or, for recognisers of phonemes, which need one, a word, a tab and a pronunciation; without it,
    characters and pieces spell the words of ``lm``. ``listed`` is a text with a word or phrase a line: names and terms
    that may be said, to which lexicon and language model need not have. ``search`` has the width of the search and the
    weights, see :class:`~gristmill.models.speech.decoder.DecoderSettings`; by default those that the model was tuned
    to, if it was. ``changed`` are single settings ``NAME=VALUE`` that differ, by their names in
    :class:`~gristmill.models.speech.personal.PersonalSettings`: ``decoder.weight=0.8``, ``bias.enter=5``.

    Raises:
        UserError: none of them is given, or there is no such setting, or only one of lists and no list.

    Example:
        Transcriber("out/distill", words=KnownWords("models/hi.store", search=DecoderSettings(unknown=-8.0)))
        Transcriber("out/personalise", words=KnownWords(listed="contacts.txt", changed=["bias.enter=5"]))
    """

    lm: store.Place | None = None
    lexicon: store.Place | None = None
    listed: store.Place | None = None
    search: DecoderSettings | None = field(default=None)
    changed: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.lm is None and self.lexicon is None and self.listed is None:
            raise UserError("words: no language model, no lexicon and no list; expected one of them")
        self._changed(PersonalSettings())
        of_list = next((one for one in self.changed if not re.match(r"decoder\b", one)), None)
        if of_list is not None and self.listed is None:
            raise UserError(
                f"settings of words: {of_list} is for a list, and there is none; expected decoder.NAME=VALUE"
            )

    def stage(self, model: ArtifactRef, beam: int | None, device: str) -> Stage:
        """Return the stage that transcribes by a model; ``beam``, if given, is the width of the search.

        Raises:
            UserError: the width is 0, or there is no such file. What is wrong with the words is told by
                :class:`~gristmill.actors.speech.decode.Decode` and
                :class:`~gristmill.actors.speech.decode_listed.DecodeListed`, which load them.
        """
        if beam == 0:
            raise UserError("beam: 0 is the best path, which goes through no words; expected 1 or more")
        language = None if self.lm is None else _ref(file_of(store.absolute(self.lm)), _LANGUAGE)
        lexicon = None if self.lexicon is None else _ref(lexicon_file(store.absolute(self.lexicon)), _LEXICON)
        if self.listed is not None:
            settings = ListedSettings(personal=self._personal(model, beam), device=device)
            listed = _ref(store.absolute(self.listed), _LIST)
            return DecodeListed.stage(settings, model=model, listed=listed, lexicon=lexicon, language=language)
        search = self.search or DecoderSettings()
        search = self._changed(PersonalSettings(decoder=search if beam is None else search.but(beam=beam))).decoder
        given = DecoderStageSettings(**search.model_dump(), device=device)
        return Decode.stage(given, model=model, lexicon=lexicon, language=language)

    def problems(self, loaded: BatchFunction) -> tuple[str, ...]:
        """Return what a user should know of the list by the actor that has it: sentences about entries that act
        otherwise than written.

        Raises:
            UserError: none of its entries can act.
        """
        if not isinstance(loaded, DecodeListed):
            return ()
        listed = loaded.listed.plain
        if not listed.words:
            why = f" ({listed.problems[0]})" if listed.problems else ""
            raise UserError(f"{self.listed}: no word that can act{why}; expected a word or phrase a line")
        return listed.problems

    def _personal(self, model: ArtifactRef, beam: int | None) -> PersonalSettings | None:
        """Return the settings of recognition with the list; none where they are those of the model."""
        if self.search is None and beam is None and not self.changed:
            return None
        artifact = get_artifact(model.url)
        tuned = PersonalSettings()
        if artifact is not None and SETTINGS_FILE in artifact.files:
            tuned = PersonalSettings.model_validate_json(artifact.read(SETTINGS_FILE))
        search = self.search or tuned.decoder
        if beam is not None:
            search = search.but(beam=beam, nbest=min(search.nbest, beam))
        return self._changed(tuned.but(decoder=search))

    def _changed(self, settings: PersonalSettings) -> PersonalSettings:
        """Return settings with those that differ."""
        if not self.changed:
            return settings
        from gristmill.pipelines.config import check  # reads files of settings, for which there is mostly no need
        from gristmill.pipelines.reading import overridden

        values = overridden(settings.model_dump(mode="json"), self.changed)
        return check(PersonalSettings, values, "settings of words")


def _ref(url: str, expected: str) -> ArtifactRef:
    """Return the reference to a file, by the digest of its content."""
    digest = hashlib.sha256()
    try:
        for piece in store.read_pieces(url):
            digest.update(piece)
            if url.endswith(STORE):
                break  # its head has the digests of all else
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{url}: no such file; expected {expected}") from None
    return ArtifactRef(url, digest.hexdigest())
