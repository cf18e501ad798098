"""Translators as stored: an artifact or a plain folder, and their conversion to CTranslate2."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from gristmill.models.languages import base_language, is_known, letters_of
from gristmill.models.text.translator import CONFIG, PICKLED, WEIGHTS, load_translator, to_ctranslate2
from gristmill.models.text.translator_units import (
    DESCRIPTION,
    SOURCE_SPM,
    SOURCE_VOCAB,
    TARGET_SPM,
    TARGET_VOCAB,
    TOKENIZER,
    TranslatorUnits,
)
from gristmill.shards import canonical, store
from gristmill.shards.artifact import get_artifact
from gristmill.shards.errors import UserError
from gristmill.shards.scratch import scratch

LEAST_LETTERS = 10  # minimum letters of the target language's script in a translator's units
FAST = "ctranslate2."  # prefix of the converted model's file names


def reader(url: str) -> Callable[[str], bytes | None]:
    """Return a function that reads a file of an artifact or plain folder by name; ``None`` if it is absent."""
    artifact = get_artifact(url)

    def read(name: str) -> bytes | None:
        if artifact is None:
            return store.read_if_present(store.join(url, name))
        return artifact.read(name) if name in artifact.files else None

    return read


def read_units(url: str, prefix: str = "") -> TranslatorUnits:
    """Read the units of a translator, which include its languages."""
    return TranslatorUnits.from_files(reader(url), url, prefix)


def check_languages(units: TranslatorUnits, where: str, source_lang: str, target_lang: str) -> None:
    """Check that a translator translates from the one language into the other."""
    codes = sorted(token for token in units.source.tokens if token.startswith(">>"))
    if codes and not units.prefix:
        raise UserError(
            f"{where}: translates into several languages; expected the token of one as prefix: {', '.join(codes)}"
        )
    own = {source_lang: units.source_lang, target_lang: units.prefix.strip("<>") or units.target_lang}
    # A checkpoint that names no language, or several by one code (mul, inc), is trusted.
    if any(is_known(lang) and base_language(lang) != base_language(wanted) for wanted, lang in own.items()):
        raise UserError(
            f"{where}: translates from {own[source_lang]!r} into {own[target_lang]!r}; "
            f"expected from {source_lang!r} into {target_lang!r}"
        )
    if is_known(target_lang) and letters_of(units.target.tokens, target_lang) < LEAST_LETTERS:
        raise UserError(f"{where}: has no letters of {target_lang!r} among its units; expected a translator into it")


def convert(model: Any, units: TranslatorUnits) -> dict[str, bytes]:
    """Return the files of a network converted to CTranslate2, by CTranslate2's names."""
    with scratch() as folder:
        to_ctranslate2(model, units).save(str(folder))
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def load_fast(url: str, prefix: str = "") -> tuple[dict[str, bytes], TranslatorUnits]:
    """Return a translator's CTranslate2 files and units; a user's checkpoint is converted."""
    artifact = get_artifact(url)
    if artifact is not None:
        names = [name for name in artifact.files if name.startswith(FAST)]
        if names:
            return {name.removeprefix(FAST): artifact.read(name) for name in names}, read_units(url, prefix)
    model, units = load_translator(reader(url), url, prefix)
    return convert(model, units), units


def longest(url: str) -> int:
    """Return a translator's maximum units of a text, its end not counted."""
    return json.loads(reader(url)(CONFIG) or b"{}").get("max_position_embeddings", 512) - 1


def checkpoint_digest(folder: str) -> dict[str, str]:
    """Return the digests of the files read from a user's checkpoint, by name.

    Raises:
        UserError: it does not contain a translator.
    """
    read_units(folder)
    names = (CONFIG, WEIGHTS, PICKLED, SOURCE_SPM, TARGET_SPM, SOURCE_VOCAB, TARGET_VOCAB, TOKENIZER, DESCRIPTION)
    found = {name: reader(folder)(name) for name in names}
    return {name: canonical.sha256(data) for name, data in found.items() if data is not None}
