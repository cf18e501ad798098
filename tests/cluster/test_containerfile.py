"""The image agrees with the project and with the manifests."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from gristmill.cluster.fleet.settings import CHECKOUT, RAY_VERSION

ROOT = Path(__file__).resolve().parents[2]
TEXT = re.sub(r"\\\n", " ", (ROOT / "cluster" / "Containerfile").read_text())
LINES = [line.split(maxsplit=1) for line in TEXT.splitlines() if line and not line.startswith("#")]


def _all(word: str) -> list[str]:
    return [rest for first, rest in LINES if first == word]


def test_versions_are_those_tested_together() -> None:
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    assert f"torch=={pinned['torch']}" in TEXT
    assert pinned["ray"] == RAY_VERSION
    assert all("--constraint constraints.txt" in run for run in _all("RUN") if ".[" in run)


def test_what_it_is_made_from_is_named_by_digest() -> None:
    arguments = dict(argument.split("=", 1) for argument in _all("ARG") if "=" in argument)
    images = [re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], line.split()[0]) for line in _all("FROM")]
    images += re.findall(r"--from=(\S+)", TEXT)
    assert len(images) == 1
    assert all(re.fullmatch(r"[\w./-]+:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", image) for image in images)


def test_it_has_every_package_and_nothing_beside_the_project() -> None:
    copied = " ".join(_all("COPY")).split()
    rooms = {link.name for link in (ROOT / "gristmill").iterdir() if link.is_symlink()}
    assert rooms == {"actors", "cluster", "configs", "models", "pipelines", "shards"}
    assert rooms | {"gristmill"} <= set(copied)
    files = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license-files"]
    assert set(files) <= set(copied), "setuptools packs them"
    assert all((ROOT / name).exists() for name in copied if name != "./")
    extras = next(argument for argument in _all("ARG") if argument.startswith("EXTRAS="))[7:].split(",")
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) <= set(known)
    assert "espeak" not in extras, "an image is passed on, and this extra is under the GPL"


def test_it_runs_without_root_and_contains_no_secret() -> None:
    assert _all("USER") == ["1000"]
    assert _all("WORKDIR") == [CHECKOUT]
    assert LINES[-1][0] == "CMD"
    for given in _all("ENV") + _all("ARG"):
        assert not re.search(r"(RAY_AUTH_TOKEN|SECRET|PASSWORD|ACCESS_KEY)\w*=", given)
