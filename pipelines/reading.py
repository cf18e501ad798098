"""Settings as plain values: YAML with ``key=value`` overrides and references, within limits."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.pipelines.interpolation import interpolated, parts_of, position
from gristmill.pipelines.values import DEPTH, EACH, MOST, is_whole
from gristmill.shards.errors import UserError, one_line


def read_values(text: str, overrides: Sequence[str], origin: str, *, stored: bool = True) -> dict[str, Any]:
    """Return the values of a YAML text with overrides, interpolated; ``origin`` names the text in errors.

    ``stored`` settings are kept with results, so they take only places and numbers from the environment.

    Raises:
        UserError: what is wrong, and where.

    Example:
        >>> read_values("{name: a, records: 5, out: 'x/${name}'}", ["records=7", "shape.width=2"], "a.yaml")
        {'name': 'a', 'records': 7, 'out': 'x/a', 'shape': {'width': 2}}
    """
    base = _parsed(text, origin)
    if base is None:
        base = {}
    if not isinstance(base, dict):
        # What it holds is not shown: it may be anything, with secrets.
        found = "a list" if isinstance(base, list) else "text" if isinstance(base, str) else "a single value"
        lines = (number for number, line in enumerate(text.splitlines(), 1) if line.strip() and line.lstrip()[0] != "#")
        raise UserError(f"{origin}: line {next(lines, 1)}: {found}; expected `key: value` lines")
    return interpolated(overridden(base, overrides), origin, stored=stored)


def overridden(base: Mapping[str, Any], overrides: Sequence[str], *, alone: bool = False) -> dict[str, Any]:
    """Return plain values with overrides ``key=value``, where a key is written as ``student.width`` or ``seeds[0]``.

    If ``alone``, references in the overrides are followed, to the environment only, and none in ``base``.

    Raises:
        UserError: an override is malformed, or does not fit the values.
    """
    values: Any = dict(base)
    for override in overrides:
        key, sign, value = override.partition("=")
        parts, shown = parts_of(key), repr(override if len(override) <= 200 else f"{override[:200]}...")
        if not sign or parts is None:
            raise UserError(f"{shown} is not an override; expected key=value")
        try:
            given = _parsed(_spelled(value), shown)
            if alone:
                given = interpolated({key: given}, shown, stored=True)[key]
            values = _merged(values, parts, given)
        except _Unfit as error:
            raise UserError(f"{shown} cannot be applied: {error}") from None
    return values


class _Unfit(Exception):
    """An override does not fit the values."""


def _merged(base: Any, parts: Sequence[str], value: Any) -> Any:
    """Return ``base`` with ``value`` put at a key; mappings are merged, everything else is replaced."""
    if not parts:
        if not (isinstance(base, dict) and isinstance(value, dict)):
            return value
        return {**base, **{key: _merged(base.get(key), (), inner) for key, inner in value.items()}}
    first, *rest = parts
    if isinstance(base, list):
        place = position(first, base)
        if place is None:
            raise _Unfit(f"the list has {len(base)} items, and no {first}")
        return [*base[:place], _merged(base[place], rest, value), *base[place + 1 :]]
    given = base if isinstance(base, dict) else {}
    return {**given, first: _merged(given.get(first), rest, value)}


def _spelled(value: str) -> str:
    """Quote an override's value for YAML where needed.

    In a path, " #" starts no comment, ": " makes no mapping, and the end of a line is no space.
    """
    structured = value.lstrip()[:1] in ("[", "{", '"', "'")
    special = re.search(r"(^|\s)#|:(\s|$)|[\x00-\x1f]", value)
    return json.dumps(value, ensure_ascii=False) if special and not structured else value


@functools.cache
def _loader() -> Any:
    """Return the class of the YAML reader; imported late, since not every command reads settings."""
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML 1.1 without dates; 1e5 is a number, and a key may be given once."""

        yaml_implicit_resolvers = {  # noqa: RUF012  # of PyYAML
            first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
            for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if key.tag != "tag:yaml.org,2002:merge" and isinstance(key.value, str):
                    if key.value in seen:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"the key {key.value!r} is given twice", key.start_mark
                        )
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

        def construct_yaml_int(self, node: Any) -> int:
            try:
                value: int | None = super().construct_yaml_int(node)
            except ValueError:  # Python converts no text of more than 4,300 digits
                value = None
            if value is None or not is_whole(value):
                shown = node.value if len(node.value) <= 20 else f"{node.value[:20]}... ({len(node.value)} characters)"
                problem = f"{shown} is not a whole number of at most 64 bits"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
            return value

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    return Loader


def _parsed(text: str, origin: str) -> Any:
    """Return the plain values of a YAML text."""
    import yaml

    if len(text) > MOST:
        raise UserError(f"{origin}: holds more than {MOST:,} characters; expected settings")
    try:
        _check_size(text, origin)
        return _named(yaml.load(text, Loader=_loader()), origin)
    except UserError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{origin}: not valid YAML: {line}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{origin}: not valid YAML: {one_line(error)}") from None
    except Exception as error:  # PyYAML's constructors raise whatever int(), float() and their like do
        raise UserError(f"{origin}: not valid YAML: a value does not fit its tag ({one_line(error)[:200]})") from None


def _check_size(text: str, origin: str) -> None:
    """Refuse a text whose values, aliases followed, are too many or too deep; nothing is built for it."""
    import yaml

    size = 0
    anchors: dict[str, int] = {}  # the sizes of what they stand for
    opened: list[tuple[str | None, int]] = []
    for event in yaml.parse(text, Loader=_loader()):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in anchors or event.anchor not in {anchor for anchor, _ in opened}:
                size += anchors.get(event.anchor, 0)
            else:
                raise UserError(f"{origin}: line {event.start_mark.line + 1}: *{event.anchor} is inside of itself")
        elif isinstance(event, yaml.ScalarEvent):
            one = EACH + len(event.value)
            size += one
            if event.anchor:
                anchors[event.anchor] = one
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, size))
            anchors.pop(event.anchor, None)
            size += EACH
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor:
                anchors[anchor] = size - before
        if len(opened) > DEPTH:
            raise UserError(f"{origin}: line {event.start_mark.line + 1}: values are nested more than {DEPTH} deep")
        if size > MOST:
            raise UserError(
                f"{origin}: line {event.start_mark.line + 1}: holds more than {MOST:,} characters, counting what each "
                "alias repeats; expected settings"
            )


def _named(value: Any, origin: str) -> Any:
    """Return values with keys that are text; PyYAML reads some as numbers, dates or whole collections."""
    if isinstance(value, list):
        return [_named(inner, origin) for inner in value]
    if not isinstance(value, dict):
        return value
    for key in value:
        if not isinstance(key, str | int) or isinstance(key, bool):
            raise UserError(f"{origin}: {key!r:.80} is not the name of a setting; expected a word")
    return {str(key): _named(inner, origin) for key, inner in value.items()}
