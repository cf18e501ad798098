"""Files of lexicons: a word a line, or a word, a tab and a pronunciation of it."""

from __future__ import annotations

from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.units import UNITS_FILE, Units
from gristmill.shards import store
from gristmill.shards.artifact import get_artifact, read_file
from gristmill.shards.errors import UserError

LEXICON_FILE = "lexicon.tsv"  # in an artifact or a folder


def load_lexicon(artifact: str) -> Lexicon:
    """Return the lexicon of an artifact that holds its units too.

    Raises:
        UserError: as :func:`read_lexicon`.
    """
    units = Units.from_json(read_file(artifact, UNITS_FILE).decode())
    return read_lexicon(read_file(artifact, LEXICON_FILE), units, artifact)


def read_lexicon(data: bytes, units: Units, source: str) -> Lexicon:
    """Return the lexicon of a file: a word a line or, for phonemes, a word, a tab and a pronunciation of it.

    A word of several pronunciations has several lines.

    Raises:
        UserError: the units cannot spell it, or a line has another form; the sentence names the source.

    Example:
        >>> from gristmill.models.speech.units import phonemes
        >>> read_lexicon("the\\tð ə\\nthe\\tð i\\n".encode(), phonemes(["ð", "ə", "i"]), "lexicon.tsv").words
        ('the',)
    """
    words: dict[str, list[str]] = {}
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{source}: not UTF-8; expected a lexicon: a text with a word a line") from None
    for number, line in enumerate(lines, start=1):
        word, tab, pronunciation = line.strip().partition("\t")
        if bool(tab) != (units.kind == "phonemes") and word:
            expected = f"a word, which {units.kind} spell" if tab else "a word, a tab and its phonemes"
            raise UserError(f"{source}: line {number} is {line[:80]!r}; expected {expected}")
        if word:
            words.setdefault(word, []).append(pronunciation)
    if units.kind == "phonemes":
        return Lexicon.pronounced(words, units, source)
    return Lexicon.spelled(words, units, source)


def lexicon_file(url: str) -> str:
    """Return the URL of a lexicon's file: of the one that an artifact or a folder holds, or else the URL itself."""
    artifact = get_artifact(url)
    if artifact is not None and LEXICON_FILE in artifact.files:
        return artifact.checked_url(LEXICON_FILE)
    inner = store.join(url, LEXICON_FILE)
    return inner if store.exists(inner) else url


def read_lexicon_file(url: str) -> bytes:
    """Return the bytes of the lexicon at a URL.

    Raises:
        UserError: there is none.
    """
    try:
        return store.read_bytes(lexicon_file(url))
    except FileNotFoundError:
        raise UserError(f"{url}: no such file; expected a lexicon: a text with a word a line") from None
    except IsADirectoryError:
        raise UserError(f"{url}: has no {LEXICON_FILE}; expected a lexicon: a text with a word a line") from None
