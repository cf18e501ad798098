"""``gristmill config``: the settings of a recipe, as its classes declare them and as a file sets them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from gristmill.pipelines.config import Common, find, load, recipe_module, recipes
from gristmill.pipelines.describing import Described, describe
from gristmill.shards import names, store
from gristmill.shards.errors import UserError
from gristmill.shards.safe_text import escaped
from gristmill.shards.wording import nearest, or_else


@dataclass(frozen=True)
class RecipeSettings:
    """The settings of a recipe: its own, and those that all recipes have."""

    recipe: str
    config: str  # as it was asked for
    file: str | None  # that was read; without one, the defaults are shown
    own: tuple[Described, ...]
    common: tuple[Described, ...]

    def walk(self) -> Iterator[Described]:
        """Yield all settings, sections before what is in them."""
        for one in (*self.own, *self.common):
            yield from one.walk()

    def below(self, sections: Sequence[str]) -> list[Described]:
        """Return the settings with these paths.

        Raises:
            UserError: there is none of that path.
        """
        known = {one.path: one for one in self.walk()}
        for path in sections:
            if path not in known:
                last = {one.path.rpartition(".")[2]: one.path for one in known.values()}
                near = nearest(path, known)
                if path in last:
                    near = f", did you mean {last[path]!r}?"
                raise UserError(
                    f"{path}: {self.recipe} has no such setting"
                    + or_else(near, "the path of a section or setting, such as those that `gristmill config` shows")
                )
        return [known[path] for path in sections]

    def unset_above(self, one: Described) -> Described | None:
        """Return the section around a setting that is null, so that the setting has no value."""
        around = (other for other in self.walk() if one.path.startswith(f"{other.path}."))
        return next((other for other in around if other.inner and not other.required and other.value is None), None)


def recipe_settings(config: str, overrides: Sequence[str] = ()) -> RecipeSettings:
    """Return the settings of a config, or of a recipe by its name, with the values that are set.

    Raises:
        UserError: there is no such config or recipe, or a setting in it is wrong.
    """
    if _is_recipe(config):
        if overrides:
            raise UserError(
                f"{overrides[0]!r}: {config} is a recipe without a file; expected a recipe file to set it in"
            )
        return RecipeSettings(config, config, None, *_described(recipe_module(config, config).Config, None, None))
    loaded = load(config, overrides)
    values, common = (part.model_dump(mode="json") for part in (loaded.config, loaded.common))
    return RecipeSettings(loaded.recipe, config, find(config), *_described(type(loaded.config), values, common))


def _is_recipe(name: str) -> bool:
    """Return whether a name is that of a recipe, and of no file."""
    if "://" in name or find(name) != name or store.exists(name):
        return False
    names.look_in(".")
    module = "." in name and not name.endswith((".yaml", ".yml")) and all(map(str.isidentifier, name.split(".")))
    return name in recipes() or module or (name.isidentifier() and names.lies_in_own_folder(name))


def _described(model: type[BaseModel], values: Any, common: Any) -> tuple[tuple[Described, ...], tuple[Described, ...]]:
    own = describe(model, values)
    taken = {one.path for one in own}
    return own, tuple(one for one in describe(Common, common) if one.path not in taken)


def show(found: RecipeSettings, sections: Sequence[str], as_json: bool) -> None:
    """Print settings: all, or those of some sections."""
    chosen = found.below(sections) if sections else [*found.own, *found.common]
    if as_json:
        told = {"recipe": found.recipe, "file": found.file, "settings": [one.to_json() for one in chosen]}
        print(escaped(json.dumps(told, indent=2, ensure_ascii=False), keep="\n"))
        return
    from rich.console import Console

    console = Console(highlight=False)
    width = min(console.width, 110) if console.is_terminal else 110
    source = f"{found.file}, a config of the recipe {found.recipe}" if found.file else f"the recipe {found.recipe}"
    print(f"Settings of {source}.")
    if not sections:
        leaf = next((one.path for one in found.own if not one.inner), "seed")
        where = "or the same key in the file" if found.file else f"in a file with `recipe: {found.recipe}`"
        config = shlex.quote(found.config)
        print(f"To change one: `gristmill run {config if found.file else 'FILE'} {leaf}=VALUE`, {where}.")
        print(f"To see a section alone: `gristmill config {config} SECTION`.")
    for title, rows in (("", chosen),) if sections else (("", found.own), ("Of all recipes", found.common)):
        if title:
            print(f"\n{title}")
        for one in rows:
            if sections and (above := found.unset_above(one)) is not None:
                print(f"\n{above.path} is null; if it is set:")
            for line in _lines(one, 0 if not sections else one.path.count("."), width, full=bool(sections)):
                if console.is_terminal:
                    console.print(line, soft_wrap=True)
                else:
                    print(line.plain)


def _lines(one: Described, above: int, width: int, *, full: bool = False) -> Iterator[Any]:
    """Yield the lines of a setting, and of those in it."""
    from rich.text import Text

    depth = one.path.count(".") - above
    margin = "  " * depth
    head = Text(margin)
    head.append(one.path if full else one.name, style="bold" if one.given else "")
    if one.is_section:
        head.append(":")
    else:
        value = "(no default)" if one.required and one.value is None else shown(one.value)
        head.append(": ")
        head.append(value, style="bold green" if one.given else "")
        told = one.kind + (f"; default {shown(one.default)}" if one.given and not one.required else "")
        head.append(f"   ({told})", style="dim")
    if depth == 0:
        yield Text("")
    yield head
    yield from (Text(f"{margin}    {line}", style="dim italic") for line in _wrapped(one.doc, width - len(margin) - 4))
    if one.inner and not one.is_section:
        yield Text(f"{margin}    {'of each:' if one.each else 'if it is set:'}", style="dim italic")
    for inner in one.inner:
        yield from _lines(inner, above, width)


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, max(30, width), break_long_words=False, break_on_hyphens=False)


def shown(value: Any) -> str:
    """Return a value as YAML and ``key=value`` have it, shortened if it is long.

    Example:
        >>> shown(None), shown(True), shown([0, 30]), shown({"rows": 100}), shown("")
        ('null', 'true', '[0, 30]', '{rows: 100}', "''")
    """
    if isinstance(value, str):
        return escaped(value) or "''"
    if isinstance(value, list):
        text = f"[{', '.join(map(shown, value))}]"
    elif isinstance(value, dict):
        text = f"{{{', '.join(f'{key}: {shown(inner)}' for key, inner in value.items())}}}"
    else:
        text = "null" if value is None else str(value).lower() if isinstance(value, bool) else f"{value}"
    return text if len(text) <= 100 else f"{text[:97]}..."
