"""Expected errors. Any other exception is a bug and keeps its traceback."""

from collections.abc import Mapping


class GristmillError(Exception):
    """Base of the errors that are reported in one sentence, without a traceback."""


class UserError(GristmillError):
    """A mistake that the user can fix; the message names the fault, its place and the expected value. Exit code 2."""


class SettingsError(UserError, ValueError):
    """Settings that do not exist, are missing or have a wrong value. Exit code 2."""


class Alarm(GristmillError):
    """A law was broken: a shard has two different contents. Exit code 1."""


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


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, for the end of a sentence."""
    return " ".join(str(error).split())


def with_class(error: BaseException) -> str:
    """Return an error's class and message on one line: many libraries' messages say little without the class."""
    return f"{type(error).__name__}: {one_line(error)}"
