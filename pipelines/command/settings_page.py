"""Makes ``docs/settings.md``, and what the shell completes, from the settings classes of Gristmill's recipes.

``python -m gristmill.pipelines.command.settings_page`` renews both in a checkout; a test compares with the classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gristmill.pipelines.command.config import shown
from gristmill.pipelines.command.known import COMMON, LONGEST, SETTINGS
from gristmill.pipelines.config import Common, recipe_module, recipes
from gristmill.pipelines.describing import Described, describe

COMMAND = "python -m gristmill.pipelines.command.settings_page"
_ROOT = Path(__file__).resolve().parents[2]
PAGE, NAMES = _ROOT / "docs" / "settings.md", _ROOT / "configs" / SETTINGS

_HEAD = f"""# Settings

Every setting of Gristmill's recipes, with its kind, default and meaning. A recipe file holds them as YAML; `KEY=VALUE`
behind `gristmill run CONFIG` overrides those of the file: `gristmill run distill corpus.labelled_records=100`.
`gristmill config CONFIG` shows them with the values of a file, also for a recipe of your own; `gristmill config CONFIG
SECTION` a part of them.

Behind a path, `[]` means of each entry of a list. A setting that may be null is turned off by `null`, or left to the
default that its text names; the settings of a section that is null by default are those that it has once it is set.

*This page is made from the classes:* `{COMMAND}` *renews it.*
"""


def described() -> dict[str, tuple[Described, ...]]:
    """Return the settings of each recipe, and under ``COMMON`` those of all."""
    found = {COMMON: describe(Common)}
    taken = {one.path for one in found[COMMON]}
    for name in sorted(recipes()):
        own = describe(recipe_module(name, name).Config)
        found[name] = tuple(one for one in own if one.path not in taken)
    return found


def page(found: dict[str, tuple[Described, ...]]) -> str:
    """Return the page."""
    return "\n".join([_HEAD, *(line for name, settings in found.items() for line in _chapter(name, settings))])


def _chapter(name: str, settings: tuple[Described, ...]) -> Iterator[str]:
    yield f"## {'All recipes' if name == COMMON else f'`{name}`'}\n"
    yield from _table([one for one in settings if not one.inner])
    for one in settings:
        if one.inner:
            yield f"### `{one.path}`\n"
            yield f"{one.doc}{'' if one.is_section else f' ({one.kind})'}\n"
            yield from _table([inner for inner in one.walk() if inner is not one])


def _table(rows: list[Described]) -> Iterator[str]:
    if not rows:
        return
    yield "| setting | kind | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for one in rows:
        default = "none" if one.required else "" if one.is_section else f"`{shown(one.default)}`"
        yield f"| `{one.path}` | {one.kind} | {_cell(default)} | {_cell(one.doc)} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def names(found: dict[str, tuple[Described, ...]]) -> str:
    """Return the file that the shell's completion reads."""
    told = {name: {one.path: _told(one) for top in rows for one in top.walk()} for name, rows in found.items()}
    return json.dumps(told, indent=0, ensure_ascii=False) + "\n"


def _told(one: Described) -> dict[str, Any]:
    first = re.split(r"(?<=[.;:])\s", one.doc)[0].rstrip(".;:")
    told: dict[str, Any] = {"doc": first if len(first) <= LONGEST else first[: LONGEST - 3] + "..."}
    if one.choices:
        told["choices"] = one.choices
    if one.inner and not one.each:
        told["section"] = True
    return told


def main() -> None:
    """Write both files."""
    found = described()
    PAGE.write_text(page(found), encoding="utf-8")
    NAMES.write_text(names(found), encoding="utf-8")


if __name__ == "__main__":
    main()
