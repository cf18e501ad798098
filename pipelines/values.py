"""Plain values of settings: their limits, and what none of them may hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gristmill.shards.errors import UserError
from gristmill.shards.safe_text import control_in, holds_credentials, secret_in

MOST = 1 << 18  # characters of a file, and of all its values, where aliases and references count as what they stand for
EACH = 8  # characters that a value counts beside its text
DEPTH = 32  # levels of values, and of references
LONGEST_KEY = 200  # characters

_PLACE = re.compile(r"\s*([A-Za-z][\w+.-]*://|(~|\.{1,2})?/)|\S*/\S*\s*$")


def is_whole(value: int) -> bool:
    """Return whether a number fits into 64 bits, signed or not."""
    return -(1 << 63) <= value < 1 << 64


def check_values(value: Any, origin: str, path: str = "", depth: int = 0) -> None:
    """Check that values can be stored and read back as JSON, and hold no credentials.

    Raises:
        UserError: names the setting.
    """
    where = f"{origin}: {path}" if path else origin
    if depth > DEPTH:
        raise UserError(f"{where[:300]}: values are nested more than {DEPTH} deep")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str) or control_in(key) or len(key) > LONGEST_KEY:
                raise UserError(f"{where}: {str(key)[:80]!r} is not the name of a setting; expected a word")
            check_values(inner, origin, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            check_values(inner, origin, f"{path}[{place}]", depth + 1)
    elif isinstance(value, str):
        _check_text(value, where)
    elif isinstance(value, int):
        if not is_whole(value):
            raise UserError(f"{where}: the number has {value.bit_length()} bits; expected one of at most 64")
    elif value is not None and not isinstance(value, float):
        raise UserError(f"{where}: {type(value).__name__} is no kind of value for a setting; expected text or a number")


def check_no_secret(values: Mapping[str, Any], origin: str) -> None:
    """Check that no value contains that of a secret variable of the environment: settings are stored with results.

    Raises:
        UserError: names the setting and the variable.
    """
    for path, text in _texts(values, ""):
        if name := secret_in(text):
            raise UserError(
                f"{origin}: {path}: contains the value of ${name}, which would be stored with the results; expected "
                "secrets in the environment alone, where storage clients find them"
            )


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _texts(inner, f"{path}[{place}]")
    elif isinstance(value, str):
        yield path, value


def _check_text(text: str, where: str) -> None:
    place = _PLACE.match(text)
    found = control_in(text, "" if place else "\t\n\r")
    if found is not None:
        kind = "path or URL" if place else "text"
        raise UserError(f"{where}: holds the control character {found}; expected a {kind} without it")
    if holds_credentials(text):
        raise UserError(
            f"{where}: the URL contains a password or a token, which would be stored with it; expected credentials in "
            "the environment (for S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
        )
