"""Expected errors. Any other exception is a bug and keeps its traceback."""

from collections.abc import Mapping


class GristmillError(Exception):
    """Base of the errors that are reported in one sentence, without a traceback."""


class UserError(GristmillError):
    """A mistake that the user can fix; the message names the fault, its place and the expected value. Exit code 2."""


class Interrupted(GristmillError):
    """What a run worked on ended it; its committed work is kept, and the same command resumes it. Exit code 130."""


class Alarm(GristmillError):
    """A law was broken: a shard has two different contents. Exit code 1."""


class Damaged(GristmillError):
    """A stored file is missing, or is not the one that was committed. Exit code 1; `gristmill repair` is the way on."""

    def __init__(self, url: str, fault: str) -> None:
        super().__init__(url, fault)
        self.url, self.fault = url, fault

    def __str__(self) -> str:
        return (
            f"{self.url}: {self.fault}; `gristmill repair OUT` on the output it belongs to moves damaged work aside, "
            "and the next run makes it again"
        )


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
