"""Text that may be shown: without control characters, and without the secrets of the environment."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from urllib.parse import quote

_SECRET = re.compile(
    r"TOKEN(?!IZ)|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|ACCESS_KEY(?!_ID)|ACCOUNT_KEY|STORAGE_KEY|API_?KEY"
    r"|PRIVATE_?KEY|CONNECTION_STRING",
    re.IGNORECASE,
)
_LEAST = 8  # characters: shorter values occur in any text
_PATH = re.compile(r"(~|\.{1,2})?/[\w.-]+(/|$)")

# C0 and C1 controls, which terminals obey, line and paragraph separators, which end lines for some readers, and what
# changes the direction of the text after it. Lone surrogates cannot be encoded. Joiners stay: Indic scripts need them.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

_USER_INFO = re.compile(r"(://[^/@\s:]*:)[^/@\s]+(?=@)")
_SIGNED = re.compile(
    r"([?&](?:X-Amz-Signature|X-Amz-Security-Token|X-Goog-Signature|Signature|sig|access_token|token|api_?key)=)"
    r"[^&\s]*[^&\s:;,.)]",
    re.IGNORECASE,
)


def escaped(text: str, keep: str = "") -> str:
    """Return a text with its control characters as JSON writes them, so that JSON stays what it is.

    ``keep`` are those that stay.

    Example:
        >>> print(escaped("one\\x1b[2Jtwo\\n"))
        one\\u001b[2Jtwo\\n
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def _escape(control: str) -> str:
    return _SHORT.get(control) or f"\\u{ord(control):04x}"


def control_in(text: str, allowed: str = "") -> str | None:
    """Return the first control character of a text, as :func:`escaped` writes it; ``None`` without one."""
    found = next((one for one in _CONTROL.findall(text) if one not in allowed), None)
    return None if found is None else escaped(found)


def is_secret(name: str, value: str) -> bool:
    """Return whether a variable of the environment is a secret, by its name; a path only locates one.

    Example:
        >>> is_secret("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI"), is_secret("RAY_AUTH_TOKEN_PATH", "/run/token")
        (True, False)
    """
    return bool(_SECRET.search(name)) and len(value) >= _LEAST and not _PATH.match(value)


def secret_in(text: str, environment: Mapping[str, str] | None = None) -> str | None:
    """Return the name of a secret variable of the environment whose value a text contains, or ``None``."""
    for name, value in _secrets(environment):
        if any(form in text for form in _forms(value)):
            return name
    return None


def holds_credentials(url: str) -> bool:
    """Return whether a URL contains a password, or the signature or token of a signed URL."""
    return bool(_USER_INFO.search(url) or _SIGNED.search(url))


def redacted(text: str) -> str:
    """Return a text with the values of secret variables as ``$NAME``, and passwords and signatures in URLs as ``***``.

    Example:
        >>> redacted("s3://me:abc@bucket/x cannot be read")
        's3://me:***@bucket/x cannot be read'
    """
    for name, value in _secrets():
        for form in _forms(value):
            text = text.replace(form, f"${name}")
    return _SIGNED.sub(r"\1***", _USER_INFO.sub(r"\1***", text))


def safe(text: str) -> str:
    """Return a text as it may be shown on a terminal and kept in a log."""
    return escaped(redacted(text))


def _secrets(environment: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """Return the secret variables, the longest value first: one may be a part of another."""
    given = os.environ if environment is None else environment
    return sorted((item for item in given.items() if is_secret(*item)), key=lambda item: -len(item[1]))


def _forms(value: str) -> set[str]:
    """Return a value as it stands in texts, URLs and JSON."""
    return {value, quote(value, safe=""), json.dumps(value)[1:-1]}
