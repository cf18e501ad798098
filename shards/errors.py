"""Expected errors. Any other exception is a bug and keeps its traceback."""

from __future__ import annotations

from collections.abc import Mapping

from gristmill.shards.safe_text import safe

_LONGEST = 2000  # characters of a sentence


class GristmillError(Exception):
    """Base of the errors that are reported in one sentence, without a traceback; several may be given.

    Sentences quote names, values and other libraries' messages: control characters in them are escaped, so that a
    sentence is one line, secrets of the environment are replaced by the names of their variables, and the middle of a
    long sentence is left out.

    Example:
        >>> print(GristmillError("a\\nb: no such file"))
        a\\nb: no such file
    """

    def __init__(self, *sentences: object) -> None:
        super().__init__(*(_shortened(safe(str(sentence))) for sentence in sentences))

    def __str__(self) -> str:
        return "\n".join(self.args)


class UserError(GristmillError):
    """A mistake that the user can fix; the message names the fault, its place and the expected value. Exit code 2."""


class SettingsError(UserError, ValueError):
    """Settings that do not exist, are missing or have a wrong value. Exit code 2."""


class Interrupted(GristmillError):
    """What a run worked on ended it; its committed work is kept, and the same command resumes it. Exit code 130."""


class Alarm(GristmillError):
    """A law was broken: a shard has two different contents. Exit code 1."""


class Damaged(GristmillError):
    """A stored file is missing, or is not the one that was committed. Exit code 1; `gristmill repair` is the way on."""

    def __init__(self, url: str, fault: str) -> None:
        super().__init__(
            f"{url}: {fault}; `gristmill repair OUT` on the output it belongs to moves damaged work aside, and the "
            "next run makes it again"
        )
        self.url, self.fault = url, fault

    def __reduce__(self) -> tuple[type[Damaged], tuple[str, str]]:
        return Damaged, (self.url, self.fault)


class TooManyQuarantined(GristmillError):
    """More records broke a step than ``max_quarantine`` allows. Exit code 1."""


class RejectRecord(Exception):
    """Raised inside an actor's helper to reject one record; the actor stores the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BrokenRecords(Exception):
    """Raised by an actor that knows which rows of its batch broke, and by what; it is called again on the others."""

    def __init__(self, errors: Mapping[int, str]) -> None:
        super().__init__(errors)
        self.errors = dict(errors)  # by row of the batch


def _shortened(sentence: str) -> str:
    half = _LONGEST // 2
    return sentence if len(sentence) <= _LONGEST else f"{sentence[: half - 10]} [...] {sentence[10 - half :]}"


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, for the end of a sentence."""
    return safe(" ".join(str(error).split()))


def with_class(error: BaseException) -> str:
    """Return an error's class and message on one line: many libraries' messages say little without the class."""
    return f"{type(error).__name__}: {one_line(error)}"
