"""Translators as stored: an artifact or a plain folder, and their conversion to CTranslate2."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gristmill.models.normalise import base_language, is_known, letters_of
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

LEAST_LETTERS = 10  # of the target language's script that a translator into it has
FAST = "ctranslate2."  # before the names of the files of the converted model


def reader(url: str) -> Callable[[str], bytes | None]:
    """Return a function that reads a file of an artifact or plain folder by name; ``None`` where there is none."""
    artifact = get_artifact(url)

    def read(name: str) -> bytes | None:
        if artifact is None:
            return store.read_if_present(store.join(url, name))
        return artifact.read(name) if name in artifact.files else None

    return read


def read_units(url: str, prefix: str = "") -> TranslatorUnits:
    """Read the units of a translator, and with them its languages."""
    return TranslatorUnits.from_files(reader(url), url, prefix)


def check_languages(units: TranslatorUnits, where: str, source_lang: str, target_lang: str) -> None:
    """Refuse a translator that does not translate from the one language into the other."""
    codes = sorted(token for token in units.source.tokens if token.startswith(">>"))
    if codes and not units.prefix:
        raise UserError(
            f"{where}: translates into several languages; give the token of the one meant as prefix: {', '.join(codes)}"
        )
    own = {source_lang: units.source_lang, target_lang: units.prefix.strip("<>") or units.target_lang}
    # A checkpoint that names no language, or several by one code (mul, inc), is taken at the user's word.
    if any(is_known(lang) and base_language(lang) != base_language(wanted) for wanted, lang in own.items()):
        raise UserError(
            f"{where}: translates from {own[source_lang]!r} into {own[target_lang]!r}; "
            f"expected from {source_lang!r} into {target_lang!r}"
        )
    if is_known(target_lang) and letters_of(units.target.tokens, target_lang) < LEAST_LETTERS:
        raise UserError(f"{where}: has no letters of {target_lang!r} to write; expected a translator into it")


def convert(model: Any, units: TranslatorUnits) -> dict[str, bytes]:
    """Return CTranslate2's files of a network, by the names that it gives them."""
    with tempfile.TemporaryDirectory() as folder:
        to_ctranslate2(model, units).save(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def load_fast(url: str, prefix: str = "") -> tuple[dict[str, bytes], TranslatorUnits]:
    """Return (CTranslate2's files, units) of a translator; a checkpoint of the user's is converted."""
    artifact = get_artifact(url)
    if artifact is not None:
        names = [name for name in artifact.files if name.startswith(FAST)]
        if names:
            return {name.removeprefix(FAST): artifact.read(name) for name in names}, read_units(url, prefix)
    model, units = load_translator(reader(url), url, prefix)
    return convert(model, units), units


def longest(url: str) -> int:
    """Return the most units that a text may have for a translator, its end not counted."""
    return json.loads(reader(url)(CONFIG) or b"{}").get("max_position_embeddings", 512) - 1


def checkpoint_digest(folder: str) -> dict[str, str]:
    """Return the digests of the files that are read of a user's checkpoint, by name.

    Raises:
        UserError: it holds no translator.
    """
    read_units(folder)
    names = (CONFIG, WEIGHTS, PICKLED, SOURCE_SPM, TARGET_SPM, SOURCE_VOCAB, TARGET_VOCAB, TOKENIZER, DESCRIPTION)
    found = {name: reader(folder)(name) for name in names}
    return {name: canonical.sha256(data) for name, data in found.items() if data is not None}
