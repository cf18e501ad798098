"""Units of a translator: SentencePiece pieces of each side and their numbers, in the layout of Marian checkpoints.

A folder or artifact holds ``source.spm``, ``target.spm``, ``vocab.json`` and, if the sides have separate vocabularies,
``target_vocab.json``. Languages and text normalisation are in ``translator.json`` or, in a user's checkpoint, in
Marian's ``tokenizer_config.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

from pydantic import Field

from gristmill.models.normalise import normalise
from gristmill.models.pieces import fit_pieces
from gristmill.models.text.placeholders import MARKS
from gristmill.shards import canonical
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings, Size

END, UNKNOWN, PAD = "</s>", "<unk>", "<pad>"
SOURCE_SPM, TARGET_SPM, SOURCE_VOCAB, TARGET_VOCAB = "source.spm", "target.spm", "vocab.json", "target_vocab.json"
TOKENIZER, DESCRIPTION = "tokenizer_config.json", "translator.json"
MOST_LINES = 400_000  # for fitting pieces: more take longer and change little


class TranslatorUnitSettings(Settings):
    """The units of a translator that is trained from scratch."""

    units: Size = Field(4000, ge=50)
    """Maximum units of each language."""
    lower: bool = True
    """Whether text is lowercased."""
    placeholders: bool = True
    """Whether names, numbers and slot values become marks (:mod:`gristmill.models.text.placeholders`)."""


@dataclass(frozen=True)
class Side:
    """The pieces of one language: a serialised SentencePiece model, and the tokens by number (the last is the pad)."""

    model: bytes = field(repr=False)
    tokens: tuple[str, ...] = field(repr=False)

    @cached_property
    def pieces(self) -> Any:
        """SentencePiece's processor."""
        import sentencepiece

        return sentencepiece.SentencePieceProcessor(model_proto=self.model)

    @cached_property
    def number(self) -> dict[str, int]:
        """The numbers of the tokens."""
        return {token: place for place, token in enumerate(self.tokens)}


@dataclass(frozen=True)
class TranslatorUnits:
    """Both sides of a translator, its languages, and the normalisation of text before it is split into pieces.

    ``lower``: text is lowercased; ``placeholders``: it was trained with marks; ``prefix``: a token before each source
    text that names the target language, for multilingual checkpoints.
    """

    source: Side
    target: Side
    source_lang: str
    target_lang: str
    lower: bool
    placeholders: bool
    prefix: str = ""

    def form(self, text: str) -> str:
        """Return a text as normalised for the translator."""
        text = normalise(text)
        return text.lower() if self.lower else text

    def source_tokens(self, text: str) -> list[str]:
        """Return the pieces of a source text and the end token; pieces without a number become the unknown token."""
        found = self.source.pieces.encode(self.form(text), out_type=str)
        known = self.source.number
        prefix = [self.prefix] if self.prefix else []
        return [*prefix, *(piece if piece in known else UNKNOWN for piece in found), END]

    def source_ids(self, text: str) -> list[int]:
        """Return the numbers of :meth:`source_tokens`."""
        return [self.source.number[token] for token in self.source_tokens(text)]

    def target_ids(self, text: str) -> list[int]:
        """Return the numbers of a target text's pieces and the end token."""
        known = self.target.number
        found = self.target.pieces.encode(self.form(text), out_type=str)
        return [*(known.get(piece, known[UNKNOWN]) for piece in found), known[END]]

    def target_text(self, tokens: Sequence[str]) -> str:
        """Return the text of target pieces; special tokens and fillers are left out."""
        kept = [token for token in tokens if token not in (END, UNKNOWN, PAD) and not token.startswith("<unused")]
        return normalise(self.target.pieces.decode_pieces(kept))

    @property
    def joint(self) -> bool:
        """Whether both sides have the same numbers."""
        return self.source.tokens == self.target.tokens

    def to_files(self) -> dict[str, bytes]:
        """Return the files for :meth:`from_files`, which Marian's tokenizer can read too."""
        vocabularies = {SOURCE_VOCAB: self.source.number}
        if not self.joint:
            vocabularies[TARGET_VOCAB] = self.target.number
        tokenizer = {
            "tokenizer_class": "MarianTokenizer",
            "source_lang": self.source_lang,
            "target_lang": self.target_lang,
            "separate_vocabs": not self.joint,
        }
        described = {
            "source_lang": self.source_lang,
            "target_lang": self.target_lang,
            "lower": self.lower,
            "placeholders": self.placeholders,
            "prefix": self.prefix,
        }
        return {
            SOURCE_SPM: self.source.model,
            TARGET_SPM: self.target.model,
            **{name: canonical.dumps(numbers) for name, numbers in vocabularies.items()},
            TOKENIZER: canonical.dumps(tokenizer),
            DESCRIPTION: canonical.dumps(described),
        }

    @classmethod
    def from_files(cls, read: Callable[[str], bytes | None], where: str, prefix: str = "") -> TranslatorUnits:
        """Read the units of an artifact or of a Marian checkpoint; ``read`` returns a file, or ``None`` if it is
        absent.

        Raises:
            UserError: a file is missing or malformed.
        """

        def needed(name: str) -> bytes:
            data = read(name)
            if data is None:
                raise UserError(
                    f"{where}: no {name}; expected a translator of this project, or a Marian checkpoint: config.json, "
                    f"weights, {SOURCE_SPM}, {TARGET_SPM}, {SOURCE_VOCAB}"
                )
            return data

        source = _tokens(needed(SOURCE_VOCAB), f"{where}: {SOURCE_VOCAB}")
        other = read(TARGET_VOCAB)
        target = source if other is None else _tokens(other, f"{where}: {TARGET_VOCAB}")
        described = json.loads(read(DESCRIPTION) or b"null")
        if described is None:
            tokenizer = json.loads(read(TOKENIZER) or b"{}")
            described = {
                "source_lang": tokenizer.get("source_lang") or "",
                "target_lang": tokenizer.get("target_lang") or "",
                "lower": False,
                "placeholders": False,
                "prefix": prefix,
            }
        if prefix and prefix not in source:
            codes = [token for token in source if token.startswith(">>")]
            raise UserError(f"{where}: has no token {prefix!r}; expected one of {', '.join(codes) or 'none'}")
        sides = []
        for name, tokens in ((SOURCE_SPM, source), (TARGET_SPM, target)):
            sides.append(Side(needed(name), tokens))
            try:
                _ = sides[-1].pieces  # a damaged file fails now, not with each text
            except RuntimeError:
                raise UserError(f"{where}: {name} is damaged; expected a SentencePiece model") from None
        return cls(sides[0], sides[1], **described)


def fit_units(
    source: Iterable[str],
    target: Iterable[str],
    source_lang: str,
    target_lang: str,
    settings: TranslatorUnitSettings,
) -> TranslatorUnits:
    """Fit pieces of each side (unigram models, Kudo 2018; fewer where the text is small) to the texts of pairs.

    Both sides are filled up to the same size, since Marian has one pad number for both, the last one.
    """
    empty = Side(b"", ())
    form = TranslatorUnits(empty, empty, source_lang, target_lang, settings.lower, settings.placeholders).form
    fitted = []
    for texts, lang in ((source, source_lang), (target, target_lang)):
        lines = islice(filter(None, map(form, texts)), MOST_LINES)
        special = {"eos_id": 0, "unk_id": 1, "pad_id": -1, "user_defined_symbols": list(MARKS)}
        fitted.append(fit_pieces(lines, settings.units, f"units of {lang}", **special))
    most = max(len(tokens) for _, tokens in fitted)
    sides = []
    for model, tokens in fitted:
        fillers = [f"<unused{number}>" for number in range(most - len(tokens))]
        sides.append(Side(model, (*tokens, *fillers, PAD)))
    return TranslatorUnits(sides[0], sides[1], source_lang, target_lang, settings.lower, settings.placeholders)


def _tokens(data: bytes, where: str) -> tuple[str, ...]:
    try:
        numbers: Mapping[str, int] = json.loads(data)
        tokens = [token for token, _ in sorted(numbers.items(), key=lambda item: item[1])]
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{where}: not a vocabulary; expected a JSON object of tokens and their numbers") from None
    if [numbers[token] for token in tokens] != list(range(len(tokens))):
        raise UserError(f"{where}: the numbers of its tokens have gaps; expected 0 to {len(tokens) - 1}")
    if END not in numbers or UNKNOWN not in numbers or tokens[-1] != PAD:
        raise UserError(f"{where}: expected {END} and {UNKNOWN} among its tokens, and {PAD} as the last")
    return tuple(tokens)
