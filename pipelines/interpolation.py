"""References in settings, followed: each once, to a limited depth and size.

A value may refer to another (``${corpus.records}``, ``${.name}`` beside it) or to a variable of the environment
(``${oc.env:NAME}``, ``${oc.env:NAME,default}``); ``\\${`` is a plain ``${``.
"""

from __future__ import annotations

import os
import re
from typing import Any

from gristmill.pipelines.values import DEPTH, EACH, MOST
from gristmill.shards.errors import UserError
from gristmill.shards.safe_text import is_secret

_KEY = re.compile(r"\.?([^.\[\]=]+)|\[([0-9]{1,6})\]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # of a variable
_LONGEST = 4096  # characters of a variable's value
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?|true|false", re.IGNORECASE)
_URL_OR_PATH = re.compile(r"[A-Za-z][\w+.-]*://|(~|\.{1,2})?/")
_PUBLIC = {"USER", "LOGNAME", "HOSTNAME", "HOST", "SLURM_JOB_NAME"}
_SHORT = 8  # characters: no secret is shorter


def parts_of(key: str) -> list[str] | None:
    """Return the names and positions of a key such as ``shape.sizes[0]``, or ``None`` if it is none.

    Example:
        >>> parts_of("shape.sizes[0]"), parts_of("shape..sizes")
        (['shape', 'sizes', '0'], None)
    """
    parts: list[str] = []
    place = 0
    while place < len(key):
        found = _KEY.match(key, place)
        if found is None or (found[1] and (key[place] == ".") is not bool(parts)):
            return None
        parts.append(found[1] or found[2])
        place = found.end()
    return parts if parts and len(parts) <= DEPTH and key[0] != "[" else None


def position(part: str, items: list[Any]) -> int | None:
    """Return the position that a part of a key names in a list, or ``None`` if it has none there."""
    place = int(part) if re.fullmatch(r"[0-9]{1,6}", part) else len(items)
    return place if place < len(items) else None


def interpolated(raw: dict[str, Any], origin: str, *, stored: bool) -> dict[str, Any]:
    """Return values with their references followed; ``origin`` names their source in errors.

    ``stored`` values are kept with results: they take only places and numbers from the environment.

    Raises:
        UserError: a reference cannot be followed, or leads to too much.

    Example:
        >>> interpolated({"name": "a", "size": 3, "text": "${name}-${size}", "more": "${size}"}, "a.yaml", stored=True)
        {'name': 'a', 'size': 3, 'text': 'a-3', 'more': 3}
    """
    try:
        found: dict[str, Any] = _Interpolated(raw, origin, stored).values()
    except RecursionError:
        raise UserError(f"{origin}: references are more than {DEPTH} deep") from None
    return found


class _Interpolated:
    """Values with their references followed. Each is followed once, and what they amount to is limited."""

    def __init__(self, raw: dict[str, Any], origin: str, stored: bool) -> None:
        self._raw, self._origin, self._stored = raw, origin, stored
        self._known: dict[tuple[str, ...], tuple[Any, int]] = {}  # values and their sizes, by path
        self._open: list[tuple[str, ...]] = []

    def values(self) -> Any:
        """Return all values."""
        return self._at(())[0]

    def _at(self, path: tuple[str, ...]) -> tuple[Any, int]:
        """Return a value, and its size in characters."""
        if path not in self._known:
            if path in self._open:
                raise self._error(path, f"${{{'.'.join(path)}}} refers to itself")
            if len(self._open) > 3 * DEPTH:
                raise self._error(path, f"references are more than {DEPTH} deep")
            self._open.append(path)
            self._known[path] = self._made(path, self._node(path))
            self._open.pop()
            self._limit(path, self._known[path][1])
        return self._known[path]

    def _made(self, path: tuple[str, ...], raw: Any) -> tuple[Any, int]:
        if isinstance(raw, dict):
            inner = {key: self._at((*path, key)) for key in raw}
            return {key: value for key, (value, _) in inner.items()}, EACH + sum(
                EACH + len(str(key)) + size for key, (_, size) in inner.items()
            )
        if isinstance(raw, list):
            items = [self._at((*path, str(place))) for place in range(len(raw))]
            return [value for value, _ in items], EACH + sum(size for _, size in items)
        if isinstance(raw, str):
            if raw == "???":
                raise self._error(path, "this setting is missing; it has no default")
            return self._text(path, raw)
        return raw, EACH

    def _node(self, path: tuple[str, ...]) -> Any:
        node: Any = self._raw
        for key in path:
            if isinstance(node, dict) and key in node:
                node = node[key]
            elif isinstance(node, list) and (place := position(key, node)) is not None:
                node = node[place]
            else:
                raise self._error(self._open[-2], f"${{{'.'.join(path)}}}: there is no such key")
        return node

    def _text(self, path: tuple[str, ...], text: str) -> tuple[Any, int]:
        """Return a text with its references followed; the value itself if the text is one reference."""
        parts: list[Any] = []
        size, place = EACH, 0
        while (start := text.find("${", place)) >= 0:
            before = text[place:start]
            slashes = len(before) - len(before.rstrip("\\"))
            before = before[: len(before) - (slashes + 1) // 2]
            if slashes % 2:
                parts.append(before + "${")
                place = start + 2
                continue
            end = self._end(path, text, start)
            value, length = self._reference(path, text[start + 2 : end].strip())
            parts += [before] if before else []
            parts.append(value)
            size += length
            place = end + 1
        parts += [text[place:]] if place < len(text) or not parts else []
        size += sum(len(part) for part in parts if isinstance(part, str))
        self._limit(path, size)
        if len(parts) == 1:
            return parts[0], size
        if any(isinstance(part, (dict, list)) for part in parts):
            raise self._error(path, "a text refers to a list or a mapping; expected a single value")
        return "".join(map(str, parts)), size

    def _end(self, path: tuple[str, ...], text: str, start: int) -> int:
        """Return the position of the brace that closes a reference, in which others may be nested."""
        depth = 0
        for found in re.finditer(r"\$\{|\}", text[start:]):
            depth += 1 if found[0] == "${" else -1
            if depth == 0:
                return start + found.start()
            if depth > DEPTH:
                break
        raise self._error(path, "a reference is not closed; expected ${key}, or \\${ for a plain ${")

    def _reference(self, path: tuple[str, ...], inner: str) -> tuple[Any, int]:
        if inner.startswith("oc.env:"):
            name, comma, default = inner.removeprefix("oc.env:").partition(",")
            value = self._variable(path, name.strip())
            if value is not None:
                return value, len(value)
            if not comma:
                raise self._error(path, f"the environment has no variable {name.strip()!r}, and no default is given")
            default = default.strip()
            if default[:1] in ("'", '"') and default[-1:] == default[:1] and len(default) > 1:
                default = default[1:-1]
            return (None, EACH) if default == "null" else self._text(path, default)
        dots = len(inner) - len(inner.lstrip("."))
        parts = parts_of(inner[dots:])
        if parts is None or dots > len(path):
            shown = f"${{{inner[:80]}}}"
            raise self._error(path, f"{shown} cannot be followed; expected ${{key}} or ${{oc.env:NAME,default}}")
        return self._at((*(path[: len(path) - dots] if dots else ()), *parts))

    def _variable(self, path: tuple[str, ...], name: str) -> str | None:
        value = os.environ.get(name) if _NAME.fullmatch(name) else None
        if value is None or not self._stored:
            return value
        if is_secret(name, value):
            why = "is a secret by its name, and settings are stored with the results"
            raise self._error(path, f"${name} {why}; expected it in the environment alone")
        if not _may_be_stored(name, value):
            raise self._error(
                path,
                f"${name} is neither a path, nor a URL, nor a number: it might be a secret, and settings are stored "
                f"with the results; expected such a value, or the text itself in place of ${{oc.env:{name}}}",
            )
        return value

    def _limit(self, path: tuple[str, ...], size: int) -> None:
        if size > MOST:
            raise self._error(path, f"holds more than {MOST:,} characters, counting what each reference repeats")

    def _error(self, path: tuple[str, ...], problem: str) -> UserError:
        return UserError(f"{self._origin}: {'.'.join(path)}: {problem}" if path else f"{self._origin}: {problem}")


def _may_be_stored(name: str, value: str) -> bool:
    if len(value) < _SHORT or name in _PUBLIC or _NUMBER.fullmatch(value):
        return True
    return len(value) <= _LONGEST and (bool(_URL_OR_PATH.match(value)) or os.path.exists(value))
