"""What NOTICE says of licences, against what is pinned, what is installed and what the installed packages say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PLAIN, EXTRAS, DEVELOPMENT = "The plain install", "Extras", "Development"
PERMISSIVE = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-0"),
    *("MIT-CMU", "PSF-2.0", "Zlib"),
}
WEAK = re.compile(r"(LGPL|MPL|EPL|CDDL|EUPL)-")
STRONG = re.compile(r"(GPL|AGPL|SSPL|OSL|CC-BY-SA)-")
# How packages that give no SPDX expression call their licences, and the beginning of the SPDX names of the same.
_FREE_WORDS = {
    "Apache": r"Apache",
    "BSD": r"\bBSD|Redistribution and use in source and binary forms",
    "MIT": r"\bMIT\b|Permission is hereby granted, free of charge",
    "PSF": r"\bPSF|Python Software Foundation",
    "ISC": r"\bISC",
    "MPL": r"\bMPL|Mozilla",
    "LGPL": r"\bLGPL|Lesser General|Library General",
    "AGPL": r"\bAGPL|Affero",
    "GPL": r"(?<![AL])GPL|(?<!Lesser )(?<!Library )(?<!Affero )General Public",
}
_GPL_TEXT = re.compile(r"^\s*GNU (AFFERO )?GENERAL PUBLIC LICENSE\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Package:
    """What an installed package says of its licence: an SPDX expression or free words, and its licence files."""

    expression: str = ""
    words: str = ""
    texts: tuple[str, ...] = ()

    @classmethod
    def of(cls, found: Distribution) -> Package:
        data = found.metadata
        classified = [line for line in data.get_all("Classifier", []) if line.startswith("License ::")]
        begun = "".join(data.get_all("License", []))[:500]  # some packages put all of the text there
        places = [(f"licenses/{name}", name) for name in data.get_all("License-File", [])]
        texts = tuple(found.read_text(new) or found.read_text(old) or "" for new, old in places)
        return cls("".join(data.get_all("License-Expression", [])), " ".join([*classified, begun]).strip(), texts)


@dataclass(frozen=True)
class Notice:
    """The lines of NOTICE: the licence of each package, by section, and the packages it names for weak copyleft."""

    sections: Mapping[str, Mapping[str, str]]
    extras: Mapping[str, set[str]]
    weak: set[str]

    @classmethod
    def read(cls, text: str) -> Notice:
        sections: dict[str, dict[str, str]] = {PLAIN: {}, EXTRAS: {}, DEVELOPMENT: {}}
        extras: dict[str, set[str]] = {}
        weak: set[str] = set()
        section = ""
        for line in text.splitlines():
            if line and not line.startswith(" "):
                section = next((title for title in (*sections, "not what uses them") if line.startswith(title)), "")
            elif line and section:
                name, *_, licence = re.split(r" {2,}", line.strip())
                name = canonicalize_name(name)
                if section not in sections:
                    weak.add(name)
                    continue
                sections[section][name] = licence
                if section == EXTRAS:
                    extras[name] = set(re.split(r" {2,}", line.strip())[1].split(", "))
        return cls(sections, extras, weak)

    @property
    def licences(self) -> dict[str, str]:
        return {name: licence for lines in self.sections.values() for name, licence in lines.items()}


@cache
def installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def closure(requirements: Iterable[str], find: Callable[[str], Distribution | None] = installed) -> set[str]:
    """Return the packages that requirements bring here, by what the installed ones require in turn."""
    seen: dict[str, set[str]] = {}
    todo = [Requirement(line) for line in requirements]
    while todo:
        one = todo.pop()
        name = canonicalize_name(one.name)
        if name in seen and one.extras <= seen[name]:
            continue
        seen.setdefault(name, set()).update(one.extras)
        found = find(name)
        for line in (found.requires or []) if found else []:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in ("", *seen[name])):
                todo.append(needed)
    return set(seen) - {"gristmill"}


def is_copyleft(expression: str, kind: re.Pattern[str]) -> bool:
    """Return whether a licence of this kind cannot be avoided by a choice that the expression leaves."""
    return all(
        any(kind.match(term) and " WITH " not in term for term in re.split(r" AND ", choice))
        for choice in expression.split(" OR ")
    )


def faults(notice: Notice, pinned: set[str], plain: set[str], packages: Mapping[str, Package]) -> Iterator[str]:
    """Yield a sentence for each fault: of the lines, of the plain install, and against what packages say."""
    named = notice.licences
    for name in sorted((pinned | plain) - set(named)):
        yield f"{name}: not named"
    for name in sorted(set(named) - pinned - plain):
        yield f"{name}: named, but neither pinned nor installed"
    for name in sorted(set(notice.sections[PLAIN]) ^ plain):
        yield f"{name}: {'is' if name in plain else 'is not'} in the plain install"
    for name, licence in named.items():
        for one in _names(licence) - PERMISSIVE:
            if not (WEAK.match(one) or STRONG.match(one)):
                yield f"{name}: is {one!r} permissive or copyleft?"
    for name in sorted(plain & set(named)):
        if is_copyleft(named[name], STRONG):
            yield f"{name}: {named[name]} in the plain install"
        if is_copyleft(named[name], WEAK) != (name in notice.weak):
            yield f"{name}: {named[name]} is not in the list of what there is of copyleft, or is there without being it"
        for text in packages[name].texts if name in packages else ():
            if _GPL_TEXT.search(text) and not re.search("GCC RUNTIME LIBRARY EXCEPTION", text, re.IGNORECASE):
                yield f"{name}: a licence file has the text of the GPL"
    for name in sorted(set(named) & set(packages)):
        yield from _unlike(name, named[name], packages[name])


def _unlike(name: str, licence: str, package: Package) -> Iterator[str]:
    """Yield what a package says of its licence and NOTICE does not. NOTICE may say more, of what it contains."""
    if package.expression:
        if missing := _names(package.expression) - _names(licence):
            yield f"{name}: it says {package.expression}, without {', '.join(sorted(missing))} here"
        return
    said = {family for family, pattern in _FREE_WORDS.items() if re.search(pattern, package.words)}
    if not said:
        yield f"{name}: it says nothing of its licence that can be read: {package.words[:60]!r}"
    for family in sorted(said):
        if not any(one.startswith(family) for one in _names(licence)):
            yield f"{name}: it says {family} ({package.words[:60]}), not {licence}"


def _names(expression: str) -> set[str]:
    """Return the licences of an expression, without exceptions to them."""
    return {term.split(" WITH ")[0].strip() for term in re.split(r" AND | OR |[()]", expression) if term.strip()}
