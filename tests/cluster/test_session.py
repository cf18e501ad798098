"""A cluster is never opened without token authentication."""

from __future__ import annotations

import pytest

from cluster import session
from shards.errors import UserError


@pytest.mark.parametrize("mode", ["disabled", "none", ""])
@pytest.mark.parametrize("address", [None, "127.0.0.1:1"])
def test_a_mode_without_a_token_is_refused(monkeypatch: pytest.MonkeyPatch, mode: str, address: str | None) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("Ray was opened")

    monkeypatch.setattr(session, "_start_local", opened)
    monkeypatch.setattr(session, "_join", opened)
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    if address is None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
    else:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=r"RAY_AUTH_MODE is .*expected 'token'"):
        session.start(1)
