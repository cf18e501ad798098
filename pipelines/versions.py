"""The versions of what results depend on: in reports, and in ``gristmill --version``."""

from __future__ import annotations

import functools
import platform
from importlib import metadata

PACKAGES = (
    "torch",
    "ray",
    "pyarrow",
    "numpy",
    "scipy",
    "soundfile",
    "av",
    "soxr",
    "safetensors",
    "transformers",
    "hama",
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that are installed; none is imported."""
    return {"python": platform.python_version(), **_installed()}


@functools.cache  # the files of these packages say much more, which takes a while to read
def _installed() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # of an extra that is not installed
    return found


def told() -> str:
    """Return what a bug report needs, a line each: Gristmill, the versions it runs on, and the machine."""
    try:
        own = metadata.version("gristmill")
    except metadata.PackageNotFoundError:
        own = "(not installed: run from its folder)"
    lines = [f"gristmill {own}", *(f"{name} {version}" for name, version in versions().items())]
    return "\n".join([*lines, f"on {platform.platform()}"])
