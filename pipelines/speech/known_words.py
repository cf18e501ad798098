"""The words that are known when recordings are transcribed: a language model of them, and how they are spelled."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from gristmill.actors.ngram_files import STORE, file_of
from gristmill.actors.speech.decode import Decode, DecoderStageSettings, make_decoder
from gristmill.actors.speech.lexicon_files import lexicon_file
from gristmill.models.speech.decoder import DecoderSettings
from gristmill.models.speech.units import Units
from gristmill.shards import store
from gristmill.shards.errors import UserError
from gristmill.shards.stage import ArtifactRef, Stage


@dataclass(frozen=True)
class KnownWords:
    """A word language model and a lexicon, each a path or URL, and how words are searched for.

    ``lm`` is a store, an ARPA file, or an artifact or a folder that holds ``lm.arpa``. ``lexicon`` is a text with a
    word a line or, for recognisers of phonemes, which need one, a word, a tab and a pronunciation; without it,
    characters and pieces spell the words of ``lm``. ``search`` has the width of the search and the weights of both, see
    :class:`~gristmill.models.speech.decoder.DecoderSettings`.

    Raises:
        UserError: neither is given.

    Example:
        Transcriber("out/distill", words=KnownWords("models/hi.store", search=DecoderSettings(unknown=-8.0)))
    """

    lm: store.Place | None = None
    lexicon: store.Place | None = None
    search: DecoderSettings = field(default_factory=DecoderSettings)

    def __post_init__(self) -> None:
        if self.lm is None and self.lexicon is None:
            raise UserError("words: neither a language model nor a lexicon; expected one of them, or both")

    def stage(self, model: ArtifactRef, units: Units, beam: int | None, device: str) -> Stage:
        """Return the stage that transcribes by a model of units; ``beam``, if given, is the width of the search.

        Raises:
            UserError: the width is 0, or see :class:`~gristmill.actors.speech.decode.Decode`.
        """
        if beam == 0:
            raise UserError("beam: 0 is the best path, which goes through no words; expected 1 or more")
        settings = DecoderStageSettings(**self.search.model_dump(), device=device)
        if beam is not None:
            settings = settings.but(beam=beam)
        language = None if self.lm is None else file_of(store.absolute(self.lm))
        lexicon = None if self.lexicon is None else lexicon_file(store.absolute(self.lexicon))
        make_decoder(units, settings, lexicon, language)  # so that mistakes are told before any work
        return Decode.stage(settings, model=model, lexicon=_ref(lexicon), language=_ref(language))


def _ref(url: str | None) -> ArtifactRef | None:
    """Return the reference to a file, by the digest of its content."""
    if url is None:
        return None
    digest = hashlib.sha256()
    for piece in store.read_pieces(url):
        digest.update(piece)
        if url.endswith(STORE):
            break  # its head has the digests of all else
    return ArtifactRef(url, digest.hexdigest())
