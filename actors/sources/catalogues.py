"""Listing of gettext catalogues (.po, .mo)."""

from __future__ import annotations

import codecs
import itertools
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from gristmill.actors.sources.reading import read_document
from gristmill.actors.sources.unlisted import OTHER_LANGUAGE, TOO_LARGE, TRUNCATED, UNREADABLE, FileFault
from gristmill.models.languages import base_language, is_tag
from gristmill.shards import store
from gristmill.shards.errors import UserError, one_line

FUZZY = "fuzzy"
UNTRANSLATED = "untranslated"
OBSOLETE = "obsolete"
MALFORMED = "malformed message"
NOT_UTF8 = "not of its encoding"

_PO_BYTES = 8 << 20  # polib holds all messages, at up to 35 times their size
_MO_BYTES = 64 << 20
_MESSAGE = 256 << 10  # letters of a message in .po: polib's time grows with the square
# A line of a catalogue: empty, a comment, or a quoted text, with or without a keyword before it.
_ENTRY = re.compile(r'(#.*)?|(?P<key>msgctxt\s*|msgid(_plural)?\s*|msgstr\s*(\[\d+\])?\s*)?"(?:[^"\\]++|\\.)*+"')
_CHARSET = re.compile(rb'"?Content-Type:[^\n]{1,200}? charset=([\w.:-]{1,40})')
_SLOW = ("punycode", "idna")  # their time grows with the square
_MAGIC = {0x950412DE: "<", 0xDE120495: ">"}


class _Message(NamedTuple):
    """A message of a .mo file, with the attributes of polib's."""

    msgid: str
    msgid_plural: str
    msgstr: str
    msgstr_plural: Mapping[int, str]
    obsolete: bool = False
    flags: Sequence[str] = ()


def list_gettext(
    file: str, sides: Sequence[str], langs: Sequence[str], *, named: bool = True
) -> Iterator[dict[str, Any]]:
    """Yield each message of a catalogue with its translation; of plural forms, the singular and the last plural.

    A message that is untranslated, or whose translation is marked fuzzy, is a row with a problem; one that cannot be
    parsed (a stray quote, a byte of another encoding) too, named by its line, after the others. The first language is
    that of the messages; with one language, only translations are yielded. A catalogue that declares another language
    is skipped, unless it was named explicitly; the language is a tag (``hi_IN``) or an English name (``Hindi``).

    Raises:
        FileFault: the catalogue cannot be read, or was named and declares another language, or one that is not known.
    """
    faults: dict[int, str] = {}
    lang, catalogue = _po(file, faults) if store.bare(file).lower().endswith(".po") else _mo(file)
    if lang and base_language(lang) != base_language(langs[-1]):
        if not named and is_tag(lang):
            return
        expected = repr(langs[-1]) if is_tag(lang) else f"{langs[-1]!r}, or the tag of another language"
        raise FileFault(file, OTHER_LANGUAGE, f"a catalogue of {lang!r}; expected {expected}")
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
    for line, problem in faults.items():
        yield {"id": f"line{line}", "problem": problem}


def _problem(entry: Any, target: str) -> str | None:
    if entry.obsolete:
        return OBSOLETE
    if "fuzzy" in entry.flags:
        return FUZZY
    return None if target else UNTRANSLATED


def _refused(file: str, why: str, reason: str = UNREADABLE) -> FileFault:
    return FileFault(file, reason, f"not a readable gettext catalogue: {why[:200]}")


def _charset(data: bytes) -> str:
    """Return the encoding that a catalogue declares; UTF-8 if it declares none, or one that is not known."""
    found = _CHARSET.search(data)
    name = found[1].decode("ascii", "replace") if found else "utf-8"
    try:
        return name if codecs.lookup(name).name not in _SLOW else "utf-8"
    except LookupError:
        return "utf-8"


def _po(file: str, faults: dict[int, str]) -> tuple[str, Iterable[Any]]:
    """Return the language of a .po file, and its messages; into ``faults`` go those that it has not, by line."""
    try:
        import polib
    except ImportError:
        raise UserError(f"{file}: .po catalogues need polib; expected pip install '.[translation]'") from None
    data = read_document(file, _PO_BYTES)
    try:
        encoding = _charset(data)
        # polib would also break lines at these.
        text = re.sub("[\v\f\x1c-\x1e\x85\u2028\u2029]", " ", data.decode(encoding, "surrogateescape"))
        text = _whole_messages(file, text.removeprefix("\ufeff"), faults)
        # polib takes a text of one line for a file name.
        catalogue = polib.pofile(text + "\n\n", encoding=encoding)
    except (OSError, ValueError, LookupError) as error:
        raise _refused(file, (str(error).strip().splitlines() or [type(error).__name__])[0]) from None
    return catalogue.metadata.get("Language", ""), catalogue


def _whole_messages(file: str, text: str, faults: dict[int, str]) -> str:
    """Return a catalogue without the messages that have a fault: of an open quote polib would drop the last letter.

    Raises:
        FileFault: there is no other message.
    """
    kept: list[str] = []
    first_fault = ""
    for begin, message in _split(text.splitlines()):
        problem, said = _fault(begin, message)
        if problem is None:
            kept += [*message, ""]
        else:
            faults[begin] = problem
            first_fault = first_fault or said
    if faults and not any(line.lstrip().startswith("msgid") for line in kept):
        raise _refused(file, first_fault, TOO_LARGE if TOO_LARGE in faults.values() else UNREADABLE)
    return "\n".join(kept)


def _split(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the messages of a catalogue, with the numbers of the lines at which they begin."""
    message: list[str] = []
    begin, is_over = 1, False
    for number, line in enumerate(lines, 1):
        bare = line.strip().removeprefix("#~").lstrip()  # of obsolete messages
        opens = bare.startswith(("#", "msgid", "msgctxt")) and not bare.startswith("msgid_plural")
        if message and (not bare or (opens and is_over)):
            yield begin, message
            message, is_over = [], False
        if bare:
            begin = begin if message else number
            message.append(line)
            is_over = is_over or bare.startswith("msgstr")
    if message:
        yield begin, message


def _fault(begin: int, message: Sequence[str]) -> tuple[str | None, str]:
    """Return the problem of a message and a sentence about it; no problem if it has none."""
    letters = 0
    for number, line in enumerate(message, begin):
        found = _ENTRY.fullmatch(line.strip())
        if not found:
            return MALFORMED, f"line {number} is {line.strip()[:60]!r}; expected a comment or a quoted text"
        letters = 0 if found["key"] else letters + len(line)
        if letters > _MESSAGE:
            return TOO_LARGE, f"line {number}: a message of more than {_MESSAGE} letters"
        if not line.isascii() and any("\ud800" <= sign <= "\udfff" for sign in line):
            return NOT_UTF8, f"line {number} has a byte that is not of its encoding"
    return None, ""


def _mo(file: str) -> tuple[str, Iterable[_Message]]:
    """Return the language of a .mo file, and its messages.

    It is not read by polib, which takes a file's content for a path if it can, and entries that overlap as they are.
    """
    data = read_document(file, _MO_BYTES)
    try:
        order = _MAGIC[struct.unpack_from("<I", data)[0]]
        version, count, ids, texts = struct.unpack_from(f"{order}IIII", data, 4)
    except struct.error:
        raise _refused(file, "it is truncated; expected a complete file", TRUNCATED) from None
    except KeyError:
        raise _refused(file, "it does not begin like one; expected .mo") from None
    if version >> 16 not in (0, 1):
        raise _refused(file, f"it has version {version >> 16}; expected 0 or 1")
    if max(ids, texts) + 8 * count > len(data):
        raise _refused(file, "it is truncated; expected a complete file", TRUNCATED)
    head = _string(file, data, order, texts) if count and not _string(file, data, order, ids) else b""
    encoding = _charset(head)
    lines = (line.partition(b":") for line in head.split(b"\n"))
    lang = next((value.strip().decode("ascii", "replace") for name, _, value in lines if name == b"Language"), "")
    return lang, _messages(file, data, order, range(1 if head else 0, count), (ids, texts), encoding)


def _messages(
    file: str, data: bytes, order: str, numbers: range, tables: tuple[int, int], encoding: str
) -> Iterator[_Message]:
    read = 0
    for number in numbers:
        found = [_string(file, data, order, table + 8 * number) for table in tables]
        read += sum(map(len, found))
        if read > len(data):
            raise _refused(file, "its messages overlap")
        try:
            ids, forms = ([part.decode(encoding) for part in one.split(b"\0")] for one in found)
        except ValueError as error:
            raise _refused(file, one_line(error)) from None
        ids[0] = ids[0].split("\x04")[1] if "\x04" in ids[0] else ids[0]  # without its context
        if len(ids) > 1:
            yield _Message(ids[0], ids[1], "", dict(enumerate(forms)))
        else:
            yield _Message(ids[0], "", "\0".join(forms), {})


def _string(file: str, data: bytes, order: str, place: int) -> bytes:
    length, start = struct.unpack_from(f"{order}II", data, place)
    if start + length > len(data):
        raise _refused(file, "it is truncated; expected a complete file", TRUNCATED)
    return data[start : start + length]
