"""Listing of translation memories (TMX), in pieces: memory holds one unit, however deep its tags are nested."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any
from xml.parsers import expat
from xml.parsers.expat import errors

from gristmill.actors.sources.reading import LINE_BYTES, SourceFile, opened
from gristmill.actors.sources.unlisted import TOO_LARGE, UNREADABLE, FileFault
from gristmill.models.languages import base_language, is_spaceless
from gristmill.shards.errors import one_line

NO_LANGUAGE = "no text of the language"
BAD_UNIT = "malformed unit"

_PIECE = 64 << 10
_DEEPEST = 10_000
_AT_END = {
    errors.codes[said]
    for said in (
        errors.XML_ERROR_NO_ELEMENTS,
        errors.XML_ERROR_UNCLOSED_TOKEN,
        errors.XML_ERROR_PARTIAL_CHAR,
        errors.XML_ERROR_UNCLOSED_CDATA_SECTION,
    )
}
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

    Between two words a code leaves a space, unless it only changes how letters look (``<bpt>&lt;b&gt;</bpt>``). A unit
    that is not XML (a stray byte, a character that XML does not allow, an unknown entity) is a row with a problem, and
    reading goes on at the next.

    Raises:
        FileFault: the file is not XML, is truncated, or has a unit of more than ``LINE_BYTES``.
    """
    with opened(file) as raw:
        for number, found in enumerate(_read_units(file, raw), 1):
            yield {"id": number, **({"problem": BAD_UNIT} if found is None else _chosen(found, sides, langs))}


def _read_units(file: str, raw: SourceFile) -> Iterator[dict[str, str] | None]:
    """Yield the texts of each unit, ``None`` for one that cannot be parsed."""
    form = _Form(raw.read(_PIECE))
    raw.seek(0)
    units, begin, since, number, at = _Units(file), 0, 0, 0, -1
    while True:
        piece = raw.read(_PIECE)
        done, fault = units.feed(piece, last=not piece)
        for found in done:
            number, since = number + 1, 0
            yield found
        if fault is not None:
            # The parser is over: a new one reads on from the next unit.
            after = form.next_unit(raw, max(at, begin + units.place) + 1)
            if after is None and (units.is_at_end or not units.in_unit):
                raise FileFault(file, UNREADABLE, f"not a readable TMX file: {fault}")
            number, since = number + 1, 0
            yield None
            if after is None:
                return
            units, at, begin = _Units(file), after, after - len(form.head)
            if (fault := units.feed(form.head)[1]) is not None:
                raise FileFault(file, UNREADABLE, f"not a readable TMX file: {fault}")
            raw.seek(at)
            continue
        if not piece:
            return
        since += len(piece)
        if since > LINE_BYTES:
            said = f"no unit ends in {LINE_BYTES} bytes after unit {number}; expected shorter ones"
            raise FileFault(file, TOO_LARGE, said)


class _Form:
    """The encoding of a file, as far as it takes to read on from one of its units."""

    def __init__(self, begin: bytes) -> None:
        wide = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be", b"<\0": "utf-16-le", b"\0<": "utf-16-be"}
        self._encoding = wide.get(begin[:2], "ascii")
        mark = begin[:2] if begin[:2] in (b"\xff\xfe", b"\xfe\xff") else b""
        end = "?>".encode(self._encoding)
        declared = begin[len(mark) :].partition(end)[0] + end if "<?xml".encode(self._encoding) in begin else b""
        self.head = mark + declared + "<tmx><body>".encode(self._encoding)
        """What comes before a unit in a file that begins with it."""
        self._units = [f"<tu{sign}".encode(self._encoding) for sign in "> \t\r\n"]

    def next_unit(self, raw: SourceFile, place: int) -> int | None:
        """Return where the next unit begins from a place on, if there is one."""
        rest = b""
        raw.seek(place)
        while piece := raw.read(_PIECE):
            rest += piece
            found = [at for mark in self._units if (at := rest.find(mark)) >= 0]
            if found:
                return place + min(found)
            kept = rest[-16:]
            place, rest = place + len(rest) - len(kept), kept
        return None


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
        self._done: list[dict[str, str] | None] = []
        self._is_bad = False  # the unit has an entity that is not known
        self._unit: dict[str, str] = {}
        self._lang: str | None = None
        self._parts: list[str] | None = None  # of the text of this tuv, once its seg has begun
        self._seg = 0  # length of the path of the seg that is open, else 0
        self._codes = 0  # elements open that hold code
        self._code = ""  # the begin of the outermost of them
        self._parted = False  # whether a code ended here that parts words

    @property
    def in_unit(self) -> bool:
        """Whether a unit has begun and not ended."""
        return "tu" in self._path

    @property
    def place(self) -> int:
        """The byte of what was fed at which parsing stopped."""
        return max(0, self._parser.ErrorByteIndex)

    @property
    def is_at_end(self) -> bool:
        """Whether parsing stopped since there was no more of the file."""
        return self._parser.ErrorCode in _AT_END

    def feed(self, data: bytes, *, last: bool = False) -> tuple[list[dict[str, str] | None], str | None]:
        """Parse more of the file; return the units that have ended since, and why parsing has stopped, if it has."""
        fault = None
        try:
            self._parser.Parse(data, last)
        except expat.ExpatError as error:
            fault = one_line(error)
        except (LookupError, ValueError) as error:  # of the encoding it declares
            raise FileFault(self._file, UNREADABLE, f"not a readable TMX file: {one_line(error)}") from None
        done, self._done = self._done, []
        return done, fault

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
            self._unit, self._is_bad = {}, False
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
            self._done.append(None if self._is_bad else self._unit)

    def _entity(self, name: str, *_: object) -> None:
        # One of them may stand for any number of bytes; the format itself has none.
        raise FileFault(
            self._file, UNREADABLE, f"not a readable TMX file: it declares the entity {name}; expected none"
        )

    def _skipped(self, name: str, _: object) -> None:
        self._is_bad = True
