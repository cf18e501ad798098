"""What the shell completes: recipe files, settings and their values, from files alone, so that it takes no time.

The settings of Gristmill's recipes are in ``configs/settings.json``, made from their classes (``settings_page``); of a
recipe of the user's own, whose module would have to be imported, those that its file names and the common ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from gristmill import configs
from gristmill.pipelines.bundled import bundled, bundled_recipes

SETTINGS = "settings.json"  # beside the bundled configs
COMMON = ""  # its entry for the settings that all recipes have

LONGEST = 90  # characters of a help that a shell shows

Offer = list[tuple[str, str]]  # words, each with its help


def recipe_files(incomplete: str) -> Offer:
    """Return the bundled configs, and the YAML files and folders, that begin as a word does."""
    folder, _, start = incomplete.rpartition("/")
    found: Offer = [] if folder else [(name, "") for name in bundled_recipes() if name.startswith(start)]
    try:
        entries = sorted(os.scandir((folder or "/") if "/" in incomplete else "."), key=lambda entry: entry.name)
    except OSError:
        return found
    prefix = f"{folder}/" if "/" in incomplete else ""
    for entry in entries:
        if not entry.name.startswith(start) or (entry.name.startswith(".") and not start):
            continue
        if entry.is_dir():
            found.append((f"{prefix}{entry.name}/", ""))
        elif entry.name.endswith((".yaml", ".yml")):
            found.append((f"{prefix}{entry.name}", ""))
    return found


def settings(config: str | None, incomplete: str, signs: str = "=") -> Offer:
    """Return what a word about a setting may become: the next part of its key, or one of its values.

    A key that is whole ends in ``signs``, a section in ``.``; without ``signs`` a section is also whole by itself.

    Example:
        >>> settings("distill", "systems.stu")
        [('systems.student.', 'Training on stored labels')]
        >>> [word for word, _ in settings("distill", "systems.student.t")]
        ['systems.student.temperature=', 'systems.student.tail=', 'systems.student.transcripts=']
        >>> [word for word, _ in settings("distill", "runner=")]
        ['runner=ray', 'runner=inprocess']
    """
    known = of_config(config)
    key, sign, value = incomplete.partition("=")
    if sign:
        choices = known.get(key, {}).get("choices", ())
        return [(f"{key}={one}", "") for one in choices if one.startswith(value)]
    found: dict[str, str] = {}
    for path, about in known.items():
        if not path.startswith(key) or "[" in path:
            continue
        first, dot, _ = path[len(key) :].partition(".")
        whole = f"{key}{first}"
        if dot:
            found[f"{whole}."] = known.get(whole, {}).get("doc", "")
        elif not about.get("section"):
            found[f"{whole}{signs}"] = about.get("doc", "")
        else:
            if not signs:
                found[whole] = about.get("doc", "")
            found.setdefault(f"{whole}.", about.get("doc", ""))
    return list(found.items())


def of_config(config: str | None) -> Mapping[str, Any]:
    """Return the known settings of a config by path, each with what is told of it."""
    told = _stored()
    given: Mapping[str, Any] = {}
    recipe = config if config in told else None
    file = bundled().get(os.path.basename(config or "").removesuffix(".yaml")) if config else None
    if config and os.path.isfile(config):
        file = config
    if file is not None:
        given = _read(file)
        recipe = str(given.get("recipe") or "").rpartition(".")[2]
    own = told.get(recipe or "", {}) if recipe != COMMON else {}
    return {**{path: {} for path in _paths(given)}, **own, **told.get(COMMON, {})}


def _stored() -> dict[str, dict[str, Any]]:
    for folder in configs.__path__:
        try:
            with open(os.path.join(folder, SETTINGS), encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError):
            continue
    return {}


def _read(file: str) -> Mapping[str, Any]:
    import yaml

    try:
        with open(file, encoding="utf-8") as text:
            values = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def _paths(values: Mapping[str, Any], prefix: str = "") -> Sequence[str]:
    found: list[str] = []
    for name, value in values.items():
        found += _paths(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
    return found
