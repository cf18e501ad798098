from __future__ import annotations

import json
import pickle

import pytest

from gristmill.shards.errors import UserError, one_line, with_class
from gristmill.shards.safe_text import escaped, holds_credentials, is_secret, redacted, secret_in
from gristmill.shards.work import steady

SECRET = "canary/of+the=tests&more"


@pytest.mark.parametrize("control", ["\x00", "\x07", "\x1b", "\n", "\x7f", "\x9b", "\u2028", "\u202e", "\ud800"])
def test_controls_are_escaped_and_json_stays_json(control: str) -> None:
    shown = escaped(f"a{control}b")
    assert control not in shown
    assert json.loads(f'"{shown}"') == f"a{control}b"
    assert json.loads(escaped(json.dumps({"k": control}, ensure_ascii=False))) == {"k": control}


def test_text_of_all_scripts_is_shown_as_it_is() -> None:
    text = "क्‍ष नमस्ते\u200c \xa0 é \U0001f600 a\\nb"  # with joiners
    assert escaped(text) == text


def test_errors_are_one_line_a_sentence_without_controls_or_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    error = UserError(f"a\nb\x1b[2J: {SECRET}", "two")
    assert str(error) == "a\\nb\\u001b[2J: $AWS_SECRET_ACCESS_KEY\ntwo"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    for text in (one_line(ValueError(SECRET)), with_class(ValueError(SECRET)), steady(f"x {SECRET}")):
        assert SECRET not in text
        assert "$AWS_SECRET_ACCESS_KEY" in text


def test_a_long_sentence_loses_its_middle() -> None:
    error = UserError(f"a.yaml: {'x' * 100_000} is not right; expected y")
    assert len(str(error)) < 2100
    assert str(error).startswith("a.yaml: x")
    assert str(error).endswith("x is not right; expected y")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_secret_is_found_however_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    for form in (SECRET, "canary%2Fof%2Bthe%3Dtests%26more"):
        assert redacted(f"<{form}>") == "<$HF_TOKEN>"
        assert secret_in(f"<{form}>") == "HF_TOKEN"
    assert secret_in("nothing") is None


def test_what_is_a_secret() -> None:
    for name in (
        "AWS_SECRET_ACCESS_KEY",
        "RAY_AUTH_TOKEN",
        "db_password",
        "AZURE_STORAGE_CONNECTION_STRING",
        "XApiKey",
    ):
        assert is_secret(name, SECRET)
    for name, value in (
        ("PATH", SECRET),
        ("TOKENIZERS_PARALLELISM", "certainly"),
        ("AWS_ACCESS_KEY_ID", "AKIA0000000000000000"),
        ("RAY_AUTH_TOKEN_PATH", "/run/secrets/token"),
        ("HF_TOKEN", "short"),
    ):
        assert not is_secret(name, value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://me:pa+s@bucket/x", "s3://me:***@bucket/x"),
        ("https://:pw@host", "https://:***@host"),
        ("https://h/x?a=1&X-Amz-Signature=0f0f&b=2", "https://h/x?a=1&X-Amz-Signature=***&b=2"),
        ("https://h/x?sig=a%2Fb", "https://h/x?sig=***"),
    ],
)
def test_credentials_in_urls_are_not_shown(url: str, shown: str) -> None:
    assert holds_credentials(url)
    assert redacted(f"{url}: gone") == f"{shown}: gone"
    assert not holds_credentials("https://host:8080/a@b?page=2")
