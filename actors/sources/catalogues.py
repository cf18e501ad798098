"""Listing of translation memories (TMX) and of gettext catalogues (.po, .mo)."""

from __future__ import annotations

import itertools
import re
import struct
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from typing import Any

from gristmill.models.normalise import base_language
from gristmill.shards import store
from gristmill.shards.errors import UserError

NO_LANGUAGE = "no text of the language"
FUZZY = "fuzzy"
UNTRANSLATED = "untranslated"
OBSOLETE = "obsolete"

# A line of a catalogue: empty, a comment, or a quoted text, with or without a keyword before it.
_ENTRY = re.compile(r'(#.*)?|(msgctxt\s*|msgid(_plural)?\s*|msgstr\s*(\[\d+\])?\s*)?"([^"\\]|\\.)*"')
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_CODES = ("bpt", "ept", "ph", "it", "ut")  # elements that hold another program's code


def list_tmx(file: str, sides: Sequence[str], langs: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield each unit of a translation memory: the first text of each language, without inline codes.

    Raises:
        UserError: the file is not XML, or is truncated.
    """
    number = 0
    with store.open_read(file) as opened:
        events = ET.iterparse(opened, ("start", "end"))
        try:
            body: ET.Element | None = None
            for event, element in events:
                name = _plain(element.tag)
                if event == "start" and name == "body":
                    body = element
                if event == "end" and name == "tu":
                    number += 1
                    yield {"id": number, **_unit(element, sides, langs)}
                    if body is not None:
                        body.clear()  # frees the units listed
        except ET.ParseError as error:
            raise UserError(f"{file}: not a readable TMX file: {error}") from None


def _plain(tag: str) -> str:
    return tag.rpartition("}")[2]


def _unit(unit: ET.Element, sides: Sequence[str], langs: Sequence[str]) -> dict[str, Any]:
    found: dict[str, str] = {}
    for variant in unit:
        segment = next((inner for inner in variant if _plain(inner.tag) == "seg"), None)
        lang = variant.get(_XML_LANG) or variant.get("lang")
        if _plain(variant.tag) == "tuv" and segment is not None and lang:
            text = "".join(_texts(segment))
            found.setdefault(lang.lower().replace("_", "-"), text)
            found.setdefault(base_language(lang), text)
    texts = [found.get(lang.lower().replace("_", "-"), found.get(base_language(lang))) for lang in langs]
    if None in texts:
        return {"problem": NO_LANGUAGE}
    return dict(zip(sides, texts, strict=True))


def _texts(element: ET.Element) -> Iterator[str]:
    yield element.text or ""
    for inner in element:
        if _plain(inner.tag) not in _CODES:
            yield from _texts(inner)
        yield inner.tail or ""


def list_gettext(
    file: str, sides: Sequence[str], langs: Sequence[str], *, named: bool = True
) -> Iterator[dict[str, Any]]:
    """Yield each message of a catalogue with its translation; of plural forms, the singular and the last plural.

    A message that is untranslated, or whose translation is marked fuzzy, is a row with a problem. The first language is
    that of the messages; with one language, only translations are yielded. A catalogue that declares another language
    is skipped, unless it was named explicitly.

    Raises:
        UserError: the catalogue cannot be read, or was named and declares another language.
    """
    catalogue = _catalogue(file)
    lang = catalogue.metadata.get("Language", "")
    if lang and base_language(lang) != base_language(langs[-1]):
        if not named:
            return
        raise UserError(f"{file}: a catalogue of {lang!r}; expected {langs[-1]!r}")
    numbers = itertools.count(1)
    for entry in catalogue:
        forms = entry.msgstr_plural
        pairs = [(entry.msgid, entry.msgstr)]
        if entry.msgid_plural:
            last = max(forms, default=0)
            pairs = [(entry.msgid, forms.get(0, "")), (entry.msgid_plural, forms.get(last, ""))][: 1 + (last > 0)]
        for source, target in pairs:
            record: dict[str, Any] = {"id": next(numbers), "problem": _problem(entry, target)}
            yield record | dict(zip(sides, (source, target)[-len(sides) :], strict=True))


def _problem(entry: Any, target: str) -> str | None:
    if entry.obsolete:
        return OBSOLETE
    if "fuzzy" in entry.flags:
        return FUZZY
    return None if target else UNTRANSLATED


def _catalogue(file: str) -> Any:
    try:
        import polib
    except ImportError:
        raise UserError(
            f"{file}: gettext catalogues need polib; expected pip install 'gristmill[translation]'"
        ) from None
    data = store.read_bytes(file)
    try:
        if not file.lower().endswith(".po"):
            return polib.mofile(data)
        encoding = polib.detect_encoding(data)
        # polib would also break lines at these.
        text = re.sub("[\v\f\x1c-\x1e\x85\u2028\u2029]", " ", data.decode(encoding).removeprefix("\ufeff"))
        _refuse_open_quotes(file, text)
        # polib takes a text of one line for a file name.
        return polib.pofile(text + "\n\n", encoding=encoding)
    except struct.error:
        raise UserError(
            f"{file}: not a readable gettext catalogue: it is truncated; expected a complete file"
        ) from None
    except (OSError, ValueError, LookupError) as error:
        message = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{file}: not a readable gettext catalogue: {message[:200]}") from None


def _refuse_open_quotes(file: str, text: str) -> None:
    """Raise :class:`UserError` for a missing closing quote, with which polib would drop the last letter."""
    for number, line in enumerate(text.splitlines(), 1):
        if not _ENTRY.fullmatch(line.strip()):
            raise UserError(
                f"{file}: not a readable gettext catalogue: line {number} is {line.strip()[:60]!r}; "
                "expected a comment or a quoted text"
            )
