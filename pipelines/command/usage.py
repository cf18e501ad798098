"""The form of the command's help: what is to be given is named as in the documentation, without types of Python."""

from __future__ import annotations

import re
import shlex
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from gristmill.pipelines.bundled import bundled


class Verb(TyperCommand):
    """A command whose arguments are shown as they are declared: ``CONFIG [KEY=VALUE]...``."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        for param in self.params:
            if param.param_type_name == "option" and not getattr(param, "is_flag", False) and not param.metavar:
                param.metavar = (param.name or "").upper()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words behind the command; what is wrong with a value is told without Python's terms."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = _plain(error.message)
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the line of usage behind the command's name."""
        arguments = [_shown(param) for param in self.get_params(ctx) if param.param_type_name == "argument"]
        return [self.options_metavar, *arguments] if self.options_metavar else arguments

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections of arguments and options."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is None:
                continue
            if param.param_type_name == "argument":
                sections["Arguments"].append((_shown(param), record[1].removesuffix("[required]").rstrip()))
            else:
                sections["Options"].append(record)
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _plain(message: str) -> str:
    """Return what pydantic says of a value in words that need no Python.

    Example:
        >>> _plain("Value error, 'x' is not one of 'a'."), _plain("Input should be a valid integer, unable to parse")
        ("'x' is not one of 'a'.", 'expected a whole number')
    """
    plain = message.removeprefix("Value error, ").replace("a valid integer", "a whole number")
    plain = re.sub(r", unable to .*", "", plain.replace("a valid number", "a number"))
    return re.sub("^Input should be ", "expected ", plain)


def _shown(param: Any) -> str:
    """Return an argument's name in usage: in brackets if it may be left out."""
    name = param.metavar or param.name.upper()
    if not param.required and not name.startswith("["):
        name = f"[{name}]"
    return f"{name}..." if param.nargs == -1 and not name.endswith("...") else name


class Verbs(TyperGroup):
    """The commands, each with the whole first sentence of its help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the section of commands."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, verb.get_short_help_str(200)) for name, verb in found if verb is not None and not verb.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is called; a recipe in place of a command is told how to be run."""
        name = args[0]
        if self.get_command(ctx, name) is None and (name in bundled() or name.endswith((".yaml", ".yml"))):
            ctx.fail(f"No such command '{name}'. Did you mean `gristmill run {shlex.quote(name)}`?")
        return super().resolve_command(ctx, args)


class Commands(typer.Typer):
    """An app whose commands have this form."""

    def __init__(self, **given: Any) -> None:
        super().__init__(cls=Verbs, add_completion=False, **given)  # that is the verb ``completion``

    def command(self, *args: Any, **given: Any) -> Any:
        """Register a command."""
        given.setdefault("cls", Verb)
        return super().command(*args, **given)
