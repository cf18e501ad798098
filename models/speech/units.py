"""Output units of a CTC model: characters, SentencePiece pieces or a given list of phonemes. Unit 0 is the blank."""

from __future__ import annotations

import base64
import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from gristmill.models.normalise import JOINERS, plain_apostrophes
from gristmill.models.normalise import normalise as composed
from gristmill.models.pieces import fit_pieces
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings, Size

BLANK = "<blank>"
WORD_BOUNDARY = "<wb>"  # between words, of phonemes that have one
KINDS = ("characters", "sentencepiece", "phonemes")
UNITS_FILE = "units.json"  # of an artifact that holds units


class UnitSettings(Settings):
    """The units that are fitted to texts."""

    kind: Literal["characters", "sentencepiece"] = "characters"
    """The characters of the annotated text, or SentencePiece's pieces of it."""
    size: Size = Field(256, ge=8)
    """SentencePiece units, without the blank."""


@dataclass(frozen=True)
class Units:
    """The units and their numbers. ``model`` is SentencePiece's serialised model, empty for the other kinds."""

    kind: str
    tokens: tuple[str, ...]
    model: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"units.kind: {self.kind!r}, expected one of {', '.join(KINDS)}")
        if not self.tokens or self.tokens[0] != BLANK or len(set(self.tokens)) != len(self.tokens):
            raise UserError(f"units: expected distinct tokens that begin with {BLANK}, got {self.tokens[:5]}...")

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def _number(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens)}

    @cached_property
    def _pieces(self) -> Any:
        import sentencepiece

        return sentencepiece.SentencePieceProcessor(model_proto=self.model)

    def encode(self, text: str) -> list[int]:
        """Return the unit numbers of a text, never the blank; parts that the units cannot spell are left out."""
        if self.kind == "sentencepiece":
            # Unit numbers are piece numbers shifted by one to make room for the blank; piece 0 is "unknown".
            return [i + 1 for i in self._pieces.encode(normalise(text)) if i != 0]
        parts: Iterable[str] = normalise(text) if self.kind == "characters" else text.split()
        return [self._number[part] for part in parts if self._number.get(part, 0) != 0]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of unit numbers; blanks are ignored."""
        known = [int(i) for i in ids if i != 0]
        if self.kind == "sentencepiece":
            return self._pieces.decode([i - 1 for i in known]).strip()
        parts = [self.tokens[i] for i in known]
        return " ".join("".join(parts).split()) if self.kind == "characters" else " ".join(parts)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, so of the meaning of the numbers."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Return the units as canonical JSON."""
        model = base64.b64encode(self.model).decode()
        return json.dumps({"kind": self.kind, "tokens": self.tokens, "model": model}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Units:
        """Return the units written by :meth:`to_json`."""
        try:
            data = json.loads(text)
            return cls(data["kind"], tuple(data["tokens"]), base64.b64decode(data.get("model") or ""))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"units are not readable: {error}") from None


def normalise(text: str) -> str:
    """Return a text as the units spell it: lower-case letters with their marks, digits, apostrophes, single spaces."""
    if text.isascii() and text.isalnum():  # as most words of lexicons are
        return text.lower()
    kept: list[str] = []
    for c in unicodedata.normalize("NFC", plain_apostrophes(composed(text)).lower()):
        # Many scripts write vowels as marks, which belong to the letter before them; one on punctuation goes with it.
        inner = (unicodedata.category(c)[0] == "M" or c in JOINERS) and kept and kept[-1] != " "
        kept.append(c if inner or c.isalnum() or c == "'" else " ")
    return " ".join("".join(kept).split())


def characters(texts: Iterable[str]) -> Units:
    """Return the characters that occur in texts as units; the space between words is one of them.

    Example:
        >>> units = characters(["Stop!", "go"])
        >>> len(units), units.encode("go"), units.decode(units.encode("go to"))
        (7, [2, 3], 'go to')
    """
    seen: set[str] = {" "}
    for text in texts:
        seen.update(normalise(text))
    if seen == {" "}:
        raise UserError("units: the texts to take the characters from contain no letter")
    return Units("characters", (BLANK, *sorted(seen)))


def phonemes(symbols: Sequence[str]) -> Units:
    """Return a given list of phonemes as units, in the list's order; a text is phonemes between spaces."""
    return Units("phonemes", (BLANK, *symbols))


def fit_units(settings: UnitSettings, texts: Iterable[str]) -> Units:
    """Return units of the configured kind, fitted to texts."""
    return characters(texts) if settings.kind == "characters" else sentencepiece(texts, settings.size)


def sentencepiece(texts: Iterable[str], size: int) -> Units:
    """Return ``size`` pieces (without the blank) of a model fitted to texts."""
    model, pieces = fit_pieces(map(normalise, texts), size, "units")
    return Units("sentencepiece", (BLANK, *pieces), model)
