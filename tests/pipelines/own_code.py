"""Code of a user's own, as files: a package with a recipe, an actor and a filter, and a single file."""

from __future__ import annotations

from pathlib import Path

RECIPE = '''
"""Greets by name."""

import pyarrow as pa

from gristmill.pipelines.report.report import Report
from gristmill.shards.settings import Settings
from gristmill.shards.step import Step
from lab.filters import TooShort, TooShortSettings
from lab.greet import Greeting


class Config(Settings):
    least: int = 3


def run(config, run):
    rows = [{"id": f"n/{n}", "text": "x" * n} for n in range(1, 9)]
    names = run.source("names", lambda: iter([pa.Table.from_pylist(rows)]), {"version": 1})
    stages = (TooShort.stage(TooShortSettings(least=config.least)), Greeting.stage())
    made = run.step(Step("greeted", stages, names))
    return Report(title="Hello", recipe={"name": "hello"}, summary=f"{made.records} names.", digests={})
'''
GREETING = """
import pyarrow as pa

from gristmill.actors.records import PerRecord


class Greeting(PerRecord):
    columns, adds = ("text",), (pa.field("greeting", pa.string()),)

    def record(self, record):
        return {"greeting": "hello " + record["text"]}
"""
FILTERS = """
from gristmill.actors.records import Filter
from gristmill.shards.settings import Settings


class TooShortSettings(Settings):
    least: int = 3


class TooShort(Filter):
    columns = ("text",)
    settings: TooShortSettings

    def reason(self, record):
        return "too short" if len(record["text"]) < self.settings.least else None
"""
ONE_FILE = """
from gristmill.actors.records import filter_records


@filter_records
def long_winded(text: str, *, most: int = 4) -> str | None:
    return f"over {most} words" if len(text.split()) > most else None
"""
ROOMS = ("models", "actors", "cluster", "pipelines", "shards")  # names of rooms, which the user's own may have too


def written(folder: Path) -> Path:
    """Write all of it into a folder, with the config ``hello.yaml``, and return the folder."""
    (folder / "lab").mkdir()
    files = {"lab/__init__.py": "", "lab/hello.py": RECIPE, "lab/greet.py": GREETING, "lab/filters.py": FILTERS}
    files |= {"one_file.py": ONE_FILE, "one_recipe.py": RECIPE, "hello.yaml": "recipe: lab.hello\nout: out\n"}
    for name, text in (files | {f"{room}.py": "raise ImportError('not this one')\n" for room in ROOMS}).items():
        (folder / name).write_text(text)
    return folder
