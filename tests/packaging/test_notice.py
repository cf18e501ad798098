"""NOTICE names the licence of everything that is installed; of the plain install one wheel has parts under the GPL."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace

import pytest
from packaging.utils import canonicalize_name

from tests.conftest import ROOT
from tests.packaging.notices import DEVELOPMENT, EXTRAS, PLAIN, Notice, Package, closure, faults, installed

# Their metadata says nothing; NOTICE has it from the files of their sources.
SILENT = {"espeakng-loader": Package("GPL-3.0-or-later"), "kenlm": Package("LGPL-2.1-or-later")}
# A licence file among hundreds is of a test's helper of a part of a part, none of whose code is in the wheel.
# FFmpeg in PyAV's wheel is linked with x264 and x265.
EXCEPTIONS = {
    "torch: a licence file has the text of the GPL",
    "av: BSD-3-Clause AND LGPL-3.0-or-later AND GPL-2.0-or-later in the plain install",
}

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTICE = Notice.read((ROOT / "NOTICE").read_text())
PINNED = {canonicalize_name(n) for n in re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.M)}


def read(names: set[str]) -> dict[str, Package]:
    return {name: Package.of(found) for name in names if (found := installed(name)) is not None} | SILENT


def test_every_package_is_named_with_its_licence_and_the_plain_install_has_one_with_parts_under_the_gpl() -> None:
    plain = closure(PROJECT["dependencies"])
    assert len(PINNED) > 150
    assert {"torch", "ray", "hibari-tts"} <= plain
    assert set(faults(NOTICE, PINNED, plain, read(PINNED | plain))) == EXCEPTIONS


def test_extras_are_named_where_they_are_installed() -> None:
    """An extra that is not installed here brings what cannot be seen."""
    plain = closure(PROJECT["dependencies"])
    for extra, lines in PROJECT["optional-dependencies"].items():
        if extra == "dev":
            continue
        for name in closure(lines) - plain:
            assert extra in NOTICE.extras[name], f"{name} comes with the extra {extra}"
    assert set.union(*NOTICE.extras.values()) == set(PROJECT["optional-dependencies"]) - {"dev"}
    (only,) = {name for name, licence in NOTICE.sections[EXTRAS].items() if re.search(r"\b(A?GPL)-", licence)}
    assert NOTICE.extras[only] == {"espeak"}


MADE = Notice(
    {PLAIN: {"a": "MIT", "s": "LGPL-2.1-or-later"}, EXTRAS: {"x": "GPL-3.0-only"}, DEVELOPMENT: {"d": "BSD-3-Clause"}},
    {"x": {"extra"}},
    {"s"},
)
SAID = {
    "a": Package(words="License :: OSI Approved :: MIT License"),
    "s": Package(words="GNU Lesser General Public License v2 or later (LGPLv2+)"),
    "d": Package("BSD-3-Clause"),
}


def plain_line(name: str, licence: str) -> Notice:
    return replace(MADE, sections={**MADE.sections, PLAIN: {**MADE.sections[PLAIN], name: licence}})


@pytest.mark.parametrize(
    ("notice", "pinned", "plain", "said", "expected"),
    [
        (MADE, "adsx", "as", {}, None),
        (MADE, "adsxz", "as", {}, "z: not named"),
        (MADE, "adsx", "asz", {}, "z: not named"),
        (MADE, "asx", "as", {}, "d: named, but neither"),
        (MADE, "adsx", "ads", {}, "d: is in the plain"),
        (MADE, "adsx", "s", {}, "a: is not in the plain"),
        (MADE, "adsx", "asx", {}, "x: GPL-3.0-only in the plain install"),
        (plain_line("g", "MIT AND AGPL-3.0-or-later"), "adgsx", "ags", {}, "g: MIT AND AGPL-3.0-or-later in the plain"),
        (plain_line("g", "SSPL-1.0"), "adgsx", "ags", {}, "g: SSPL-1.0 in the plain"),
        (plain_line("g", "MIT OR GPL-2.0-only"), "adgsx", "ags", {}, None),
        (plain_line("g", "GPL-3.0-or-later WITH GCC-exception-3.1"), "adgsx", "ags", {}, None),
        (plain_line("g", "MPL-2.0"), "adgsx", "ags", {}, "list of what there is of copyleft"),
        (replace(MADE, weak=set()), "adsx", "as", {}, "s: LGPL-2.1-or-later is not in the list"),
        (plain_line("g", "Own"), "adgsx", "ags", {}, "g: is 'Own' permissive"),
        (MADE, "adsx", "as", {"a": Package("GPL-3.0-only")}, "a: it says GPL-3.0-only"),
        (MADE, "adsx", "as", {"a": Package("MIT AND MPL-2.0")}, "without MPL-2.0 here"),
        (MADE, "adsx", "as", {"a": Package(words="GNU General Public License v3 (GPLv3)")}, "a: it says GPL"),
        (MADE, "adsx", "as", {"d": Package(words="Affero")}, "d: it says AGPL"),
        (MADE, "adsx", "as", {"a": Package()}, "a: it says nothing"),
        (MADE, "adsx", "as", {"d": Package(words="see the site")}, "d: it says nothing"),
        (
            MADE,
            "adsx",
            "as",
            {"a": Package("MIT", texts=("   GNU GENERAL PUBLIC LICENSE\n Version 3",))},
            "a: a licence file has the text",
        ),
    ],
)
def test_what_is_wrong_is_found(
    notice: Notice, pinned: str, plain: str, said: dict[str, Package], expected: str | None
) -> None:
    found = list(faults(notice, set(pinned), set(plain), {**SAID, **said}))
    assert (not found) if expected is None else any(expected in one for one in found), found
