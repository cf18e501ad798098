"""Imports go down the table only, no wing imports another, and nothing is imported by a plain name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.imports import ROOMS, breaches, circles, missing

ROOT = Path(__file__).resolve().parent.parent


def test_the_table_holds() -> None:
    assert list(breaches(ROOT)) == []


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        (
            "actors/speech/new.py",
            "from gristmill.actors.text.select import Distance",
            "wing speech may not import wing text",
        ),
        ("actors/speech/new.py", "from gristmill.models.text import ngram_mix", "wing speech may not import wing text"),
        ("actors/new.py", "import gristmill.models.text.ngram_mix", "files may not import wing text"),
        ("models/new.py", "from gristmill.actors.audio import decode", "models may not import actors"),
        ("models/new.py", "from gristmill.shards import store", "models may import of shards only"),
        ("shards/new.py", "from gristmill.cluster import session", "shards may not import cluster"),
        ("cluster/new.py", "from gristmill.models.weights import read_metadata", "cluster may not import models"),
        (
            "pipelines/speech/new.py",
            "from gristmill.pipelines.command.plan import make_plan",
            "command may be imported",
        ),
        ("actors/new.py", "import models", "models is a plain name; expected gristmill.models"),
        ("tests/new.py", "from shards.errors import UserError", "shards.errors is a plain name"),
        ("actors/new.py", "def f():\n    from . import audio", "a relative import"),
    ],
)
def test_what_breaks_it_is_found(tmp_path: Path, file: str, line: str, expected: str) -> None:
    for room in ROOMS:
        (tmp_path / room).mkdir()
    for module in ("actors/text/select", "models/text/ngram_mix", "shards/store", "cluster/session"):
        path = tmp_path / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{line}\n")
    (found,) = breaches(tmp_path)
    assert expected in found


def test_no_modules_import_each_other_in_a_circle(tmp_path: Path) -> None:
    assert circles(ROOT) == []
    for room in ROOMS:
        (tmp_path / room).mkdir()
    (tmp_path / "models" / "a.py").write_text("from gristmill.models import b\n")
    (tmp_path / "models" / "b.py").write_text("def f():\n    from gristmill.models.a import x\n")
    assert circles(tmp_path) == [["gristmill.models.a", "gristmill.models.b"]]


def test_a_class_has_a_name_of_its_own() -> None:
    """One name, one meaning; each recipe has its own ``Config``, and what begins with _ is its module's."""
    places: dict[str, list[str]] = {}
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and node.name != "Config":
                    places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_scripts_import_what_is_there(tmp_path: Path) -> None:
    assert list(missing(ROOT)) == []
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "here.py").write_text(
        "try:\n    ONE = 1\nexcept OSError:\n    TWO = 2\n\ndef three(): ...\n"
    )
    line = "from gristmill.models.here import ONE, TWO, three, four\nfrom gristmill.models.gone import one\n"
    (tmp_path / "benchmarks" / "new.py").write_text(line)
    assert list(missing(tmp_path)) == [
        "benchmarks/new.py:1: gristmill.models.here has no four",
        "benchmarks/new.py:2: gristmill.models.gone has no one",
    ]


@pytest.mark.parametrize("folder", ["benchmarks", "examples"])
def test_what_is_run_by_itself_imports_gristmill_first(folder: str) -> None:
    """It pins what numpy and others compute with, and refuses them where they have chosen more than the run's level."""
    late = [
        str(file)
        for file in sorted((ROOT / folder).rglob("*.py"))
        if _first(file.read_text()) not in (None, "gristmill")
    ]
    assert late == []


PAGES = sorted([Path("README.md"), *(one.relative_to(ROOT) for one in (ROOT / "docs").glob("*.md"))])


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_examples_of_a_page_import_it_first_too(page: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    assert [block for block in blocks if _first(block) not in (None, "gristmill")] == []


def _first(code: str) -> str | None:
    """Return what code imports first at its top level, of the package and of those that compute."""
    computing = {"gristmill", "numba", "numpy", "pandas", "pyarrow", "scipy", "sklearn", "soundfile", "torch"}
    for node in ast.parse(code).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if found := [name.partition(".")[0] for name in names if name.partition(".")[0] in computing]:
            return found[0]
    return None
