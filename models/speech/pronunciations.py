"""Words' pronunciations in a model's phone units, from a table or a function, each looked up once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from gristmill.models.speech.units import WORD_BOUNDARY, Units
from gristmill.shards.errors import UserError

Source = Mapping[str, Sequence[str]] | Callable[[str], Sequence[str]]


class Pronunciations:
    """The pronunciations of words, each the numbers of its units; of a word that has none, nothing.

    Example:
        >>> from gristmill.models.speech.units import phonemes
        >>> found = Pronunciations({"a": ["ə", "e ɪ"]}, phonemes(["ə", "e", "ɪ"]))
        >>> found["a"], found["b"]
        (((1,), (2, 3)), ())
    """

    def __init__(self, source: Source, units: Units, name: str = "pronunciations") -> None:
        """Take pronunciations, each the phonemes between spaces, from a mapping or a function of words.

        A function is asked once for each word; ``name`` is how errors name where pronunciations are from.

        Raises:
            UserError: the units are no phonemes.
        """
        if units.kind != "phonemes":
            raise UserError(f"{name}: the units are {units.kind}; expected phonemes")
        self.units, self._name = units, name
        self.boundary = units.tokens.index(WORD_BOUNDARY) if WORD_BOUNDARY in units.tokens else None
        self._of = (lambda word: source.get(word, ())) if isinstance(source, Mapping) else source
        self._number = {token: place for place, token in enumerate(units.tokens) if place}
        self._known: dict[str, tuple[tuple[int, ...], ...]] = {}

    def __getitem__(self, word: str) -> tuple[tuple[int, ...], ...]:
        """Return the distinct pronunciations of a word.

        Raises:
            UserError: one has a symbol that is no unit, or they are no list.
        """
        if word not in self._known:
            several = self._of(word)
            if isinstance(several, str):
                raise UserError(f"{self._name}: {word!r} has the pronunciation {several!r}; expected a list of them")
            numbers = (self._numbers(word, one.split()) for one in several)
            self._known[word] = tuple(dict.fromkeys(one for one in numbers if one))
        return self._known[word]

    def symbols(self, words: Iterable[str]) -> dict[str, list[str]]:
        """Return the pronunciations of those of the words that have some, each the phonemes between spaces.

        Raises:
            UserError: as of looking one up.
        """
        tokens = self.units.tokens
        found = {word: self[word] for word in words}
        return {word: [" ".join(tokens[one] for one in way) for way in ways] for word, ways in found.items() if ways}

    def _numbers(self, word: str, symbols: Sequence[str]) -> tuple[int, ...]:
        unknown = next((symbol for symbol in symbols if symbol not in self._number), None)
        if unknown is not None:
            raise UserError(f"{self._name}: {word!r} is pronounced with the symbol {unknown!r}, which is no unit")
        return tuple(self._number[symbol] for symbol in symbols)
