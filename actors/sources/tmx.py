"""Listing of translation memories (TMX), in pieces: memory holds one unit, however deep its tags are nested."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any
from xml.parsers import expat

from gristmill.actors.sources.reading import LINE_BYTES, opened
from gristmill.actors.sources.unlisted import TOO_LARGE, UNREADABLE, FileFault
from gristmill.models.languages import base_language, is_spaceless
from gristmill.shards.errors import one_line

NO_LANGUAGE = "no text of the language"

_PIECE = 64 << 10
_DEEPEST = 10_000
_XML_LANG = "http://www.w3.org/XML/1998/namespace}lang"
_CODES = frozenset(("bpt", "ept", "ph", "it", "ut"))  # elements that hold another program's code
_PAIRED = ("bpt", "ept")
# Codes that change letters of a word and part none: bold, italics, underlined accelerators, links, in HTML and RTF.
_LOOKS = re.compile(
    r"\W*+((a|b|big|cf|code|em|font|g|i|s|small|span|strike|strong|su[bp]|tt|u|ul)(?![^\W_])|$)", re.IGNORECASE
)
_CODE_LETTERS = 100  # of a code that are looked at


def list_tmx(file: str, sides: Sequence[str], langs: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield each unit of a translation memory: the first text of each language, without inline codes.

    Between two words a code leaves a space, unless it only changes how letters look (``<bpt>&lt;b&gt;</bpt>``).

    Raises:
        FileFault: the file is not XML, is truncated, or has a unit of more than ``LINE_BYTES``.
    """
    number, since = 0, 0
    units = _Units(file)
    with opened(file) as raw:
        while piece := raw.read(_PIECE):
            for found in units.feed(piece):
                number, since = number + 1, 0
                yield {"id": number, **_chosen(found, sides, langs)}
            since += len(piece)
            if since > LINE_BYTES:
                said = f"no unit ends in {LINE_BYTES} bytes after unit {number}; expected shorter ones"
                raise FileFault(file, TOO_LARGE, said)
        for found in units.feed(b"", last=True):
            number += 1
            yield {"id": number, **_chosen(found, sides, langs)}


def _chosen(found: dict[str, str], sides: Sequence[str], langs: Sequence[str]) -> dict[str, Any]:
    texts = [found.get(lang.lower().replace("_", "-"), found.get(base_language(lang))) for lang in langs]
    if None in texts:
        return {"problem": NO_LANGUAGE}
    return dict(zip(sides, texts, strict=True))


def _are_words(before: str, after: str) -> bool:
    """Return whether two characters that a code parts are of words with spaces between them."""
    return all(unicodedata.category(sign)[0] in "LMN" and not is_spaceless(sign) for sign in (before, after))


class _Units:
    """The texts of each unit by language: tu holds tuv, each of them a seg, whose text runs through other elements."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._parser = expat.ParserCreate(namespace_separator="}")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.EntityDeclHandler = self._entity
        self._parser.SkippedEntityHandler = self._skipped
        self._path: list[str] = []
        self._done: list[dict[str, str]] = []
        self._unit: dict[str, str] = {}
        self._lang: str | None = None
        self._parts: list[str] | None = None  # of the text of this tuv, once its seg has begun
        self._seg = 0  # length of the path of the seg that is open, else 0
        self._codes = 0  # elements open that hold code
        self._code = ""  # the begin of the outermost of them
        self._parted = False  # whether a code ended here that parts words

    def feed(self, data: bytes, *, last: bool = False) -> list[dict[str, str]]:
        """Parse more of the file; return the units that have ended since."""
        try:
            self._parser.Parse(data, last)
        except (expat.ExpatError, LookupError, ValueError) as error:  # the last two: of the encoding it declares
            raise FileFault(self._file, UNREADABLE, f"not a readable TMX file: {one_line(error)}") from None
        done, self._done = self._done, []
        return done

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition("}")[2]
        above = self._path[-1] if self._path else ""
        self._path.append(name)
        if len(self._path) > _DEEPEST:
            raise FileFault(self._file, UNREADABLE, f"not a readable TMX file: more than {_DEEPEST} nested tags")
        if self._seg:
            if name in _CODES:
                self._code = self._code if self._codes else ""
                self._codes += 1
        elif name == "tu":
            self._unit = {}
        elif name == "tuv" and above == "tu":
            self._lang, self._parts = attributes.get(_XML_LANG) or attributes.get("lang"), None
        elif name == "seg" and above == "tuv" and self._parts is None:
            self._seg, self._parts, self._parted = len(self._path), [], False

    def _text(self, text: str) -> None:
        if self._codes:
            self._code = (self._code + text)[:_CODE_LETTERS]
        elif self._seg and self._parts is not None:
            if self._parted and self._parts and _are_words(self._parts[-1][-1], text[0]):
                text = f" {text}"
            self._parts.append(text)
            self._parted = False

    def _end(self, tag: str) -> None:
        name = self._path.pop()
        if self._seg:
            if name in _CODES:
                self._codes -= 1
                self._parted |= not self._codes and (name not in _PAIRED or not _LOOKS.match(self._code))
            if len(self._path) < self._seg:
                self._seg = 0
        elif name == "tuv" and self._path and self._path[-1] == "tu":
            if self._lang and self._parts is not None:
                text = "".join(self._parts)
                self._unit.setdefault(self._lang.lower().replace("_", "-"), text)
                self._unit.setdefault(base_language(self._lang), text)
            self._parts = None
        elif name == "tu":
            self._done.append(self._unit)

    def _entity(self, name: str, *_: object) -> None:
        # One of them may stand for any number of bytes; the format itself has none.
        raise FileFault(
            self._file, UNREADABLE, f"not a readable TMX file: it declares the entity {name}; expected none"
        )

    def _skipped(self, name: str, _: object) -> None:
        raise FileFault(self._file, UNREADABLE, f"not a readable TMX file: undefined entity &{name};")
