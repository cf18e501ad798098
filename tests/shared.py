"""What tests of several modules share, until those of other chains come (see tests/conftest.py)."""

from __future__ import annotations

import contextlib

SHARED = contextlib.ExitStack()  # fixtures of the scope of a session add to it what is to end
