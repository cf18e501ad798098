"""The elements of one JSON document, an array or an object by key, read one after another in bounded memory."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from gristmill.actors.sources.reading import BLOCK, LINE_BYTES, unpacked
from gristmill.actors.sources.unlisted import EMPTY_FILE, OTHER_ENCODING, TOO_LARGE, UNREADABLE, FileFault

_CLOSING = {"[": "]", "{": "}"}
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()
_CUT = 16  # letters from the end of a block, in which JSON is taken to be cut: a pair of escapes has 12


class Element(NamedTuple):
    """An element of a document: its key in an object, its value, and the text of the value as it stands there."""

    key: str | None
    value: Any
    text: str


def elements(url: str) -> Iterator[Element]:
    """Yield the elements of a file that is one JSON array, or one object; ``.gz`` is decompressed.

    What is held is an element and a block of the file.

    Raises:
        FileFault: it is something else or nothing, it is not whole, or an element has more than ``LINE_BYTES`` letters.
            What is before the fault is yielded.

    Example:
        >>> from gristmill.shards import store
        >>> store.write_bytes("made/all.json", b'{"first": {"log": []}, "second": {"log": [1]}}')
        >>> [(one.key, one.text) for one in elements("made/all.json")]
        [('first', '{"log": []}'), ('second', '{"log": [1]}')]
    """
    with unpacked(url) as file:
        document = _Document(url, file)
        opening = document.sign()
        if not opening:
            raise FileFault(url, EMPTY_FILE, "is empty; expected a JSON array of objects")
        if opening not in _CLOSING:
            raise FileFault(url, UNREADABLE, "is no JSON array or object; expected an array of objects")
        document.take()
        closing = _CLOSING[opening]
        if document.sign() == closing:
            document.take()
        else:
            yield from _elements(document, closing)
        if document.sign():
            raise document.fault("something follows its end")


def _elements(document: _Document, closing: str) -> Iterator[Element]:
    while True:
        key = None
        if closing == "}":
            key, _ = document.value()
            if not isinstance(key, str) or document.take() != ":":
                raise document.fault("a key is missing")
        yield Element(key, *document.value())
        sign = document.take()
        if sign == closing:
            return
        if sign != ",":
            raise document.fault(f"expected a comma or {closing}")


class _Document:
    """The text of a file from a place on, of which blocks are read as they are needed."""

    def __init__(self, url: str, file: io.BufferedIOBase) -> None:
        self._url, self._file = url, file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._before = "", 0, 0

    def fault(self, said: str, reason: str = UNREADABLE) -> FileFault:
        """Return the fault of the file at this place."""
        return FileFault(self._url, reason, f"{said}, at letter {self._before + self._at}; expected whole JSON")

    def sign(self) -> str:
        """Return the next sign that is no white space, of which the place is then; nothing at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self) -> str:
        """Return the next sign that is no white space, and go on behind it."""
        sign = self.sign()
        self._at += len(sign)
        return sign

    def value(self) -> tuple[Any, str]:
        """Return the next value with its text, and go on behind it."""
        self.sign()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                end = len(self._text)
                if error.pos < end - _CUT and not error.msg.startswith("Unterminated"):
                    self._at = error.pos
                    raise self.fault(error.msg) from None
            if end < len(self._text):  # a number that a block ends with may go on
                text, self._at = self._text[self._at : end], end
                return value, text
            if end - self._at > LINE_BYTES:
                raise self.fault(f"an element of more than {LINE_BYTES} letters", TOO_LARGE)
            if not self._more():
                raise self.fault("it ends in an element")

    def _more(self) -> bool:
        block = self._file.read(BLOCK)
        try:
            added = self._decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            self._at = len(self._text) + len(error.object[: error.start].decode(errors="ignore"))
            raise self.fault(f"no UTF-8 ({error.reason})", OTHER_ENCODING) from None
        self._before += self._at
        self._text, self._at = self._text[self._at :] + added, 0
        return bool(block)
