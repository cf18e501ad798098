"""Mutations of texts that people write: configs and overrides, from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

PIECES = (
    *("&a ", "*a", "*b", "<<: *a\n", "? ", "- ", ": ", ":", "#", " #", "|\n", ">\n", "\n", "\n\n  ", "\t", "---\n"),
    *("[", "]", "{", "}", "[[[[", "{{{{", '"', "'", ",", "%", "@", "`", "!!int ", "!!float ", "!!bool ", "!!binary "),
    *("!!timestamp ", "!!set ", "!!omap ", "!!python/name:os.system ", "!x ", "???", "null", "~", "true", ".nan"),
    *(".inf", "1e400", "0x", "0b1", "1:59", "0o7", "-0", "1_000", "9" * 25, "9" * 5000, "0x" + "f" * 5000, "a" * 300),
    *("${", "}", "${a}", "${recipe}", "${.}", "${..x}", "${seed}", "${corpus}", "${oc.env:HOME}", "${oc.env:NOPE,x}"),
    *("${oc.env:", "${oc.decode:", "${${recipe}}", "\\${", "\\", '"\\ud800"', '"\\0"', '"\\x1b[2J"', "\x00"),
    *("\x1b[31m", "\ufeff", "\u2028", "\u202e", "\ud800", "\udc80", "é", "हिन्दी", "[" * 99, "- " * 99, "/", "//"),
    *(
        "::",
        "../",
        "s3://",
        "s3://u:p@b/x",
        "=",
        "==",
        ".",
        "..",
        "...\n",
        "[0]",
        "[99999999]",
        "recipe",
        "out",
        "math",
    ),
)


def mutated(text: str, rng: random.Random) -> str:
    """Return a text with one to four changes: a character, a cut, a piece put in, a part moved or repeated."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        place, other = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        other = min(other, place + 40)
        how = rng.randrange(6)
        if how == 0 and text:
            place = min(place, len(text) - 1)
            text = text[:place] + chr(ord(text[place]) ^ 1 << rng.randrange(8)) + text[place + 1 :]
        elif how == 1:
            text = text[:place] + text[other:]
        elif how == 2:
            text = text[:place]
        elif how == 3:
            text = text[:other] + text[place:other] * rng.choice((1, 2, 50)) + text[other:]
        else:
            text = text[:place] + rng.choice(PIECES) + text[place:]
    return text


def mutations(texts: Sequence[str], seed: int, number: int) -> Iterator[str]:
    """Give mutations of texts, the same for a seed."""
    rng = random.Random(seed)
    for _ in range(number):
        yield mutated(rng.choice(texts), rng)
