"""The configs that come with Gristmill."""

from __future__ import annotations

import os
from pathlib import Path

from gristmill import configs

FLEET = "fleet"  # the one that is of machines, not of a recipe


def bundled() -> dict[str, str]:
    """Return the files of the bundled configs, by name."""
    found = (Path(folder) / name for folder in configs.__path__ for name in sorted(os.listdir(folder)))
    return {path.stem: str(path) for path in found if path.suffix == ".yaml"}


def bundled_recipes() -> list[str]:
    """Return the names of those that are of a recipe."""
    return sorted(set(bundled()) - {FLEET})
