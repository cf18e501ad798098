"""An actor in a process of its own: its results, errors and deaths are passed on."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.shards.errors import UserError
from gristmill.shards.isolation import IsolatedActor, ProcessDied, begin_attempt, end_attempts
from gristmill.shards.stage import Stage
from tests.fault.law_actors import HERE, noisy, table


class Strange(Exception):
    """Cannot be pickled: its constructor takes more than its text."""

    def __init__(self, text: str, more: object) -> None:
        super().__init__(text)
        self.more = lambda: more


class Raises:
    """Raises what the first record's text asks for."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        if batch["id"][0].as_py() == "r000-0000":
            raise Strange("odd", 1)
        raise UserError("a sentence")


def test_returns_the_result_of_the_actor() -> None:
    isolated = IsolatedActor(noisy(), 7)
    batch = table(0, 5)
    assert isolated(batch).equals(noisy().build(7)(batch))
    isolated.close()


def test_death_is_an_exception_and_the_next_batch_is_worked_on() -> None:
    isolated = IsolatedActor(Stage("s", f"{HERE}:Deadly", params={"poison": ["r000-0002"]}), 0)
    with pytest.raises(ProcessDied, match=r"ended the process \(SIGSEGV\)"):
        isolated(table(0, 5))
    assert isolated(table(1, 5))["upper"][0].as_py() == "TEXT R001-0000"
    isolated.close()


def test_errors_keep_their_kind_and_text() -> None:
    isolated = IsolatedActor(Stage("s", f"{__name__}:Raises"), 0)
    with pytest.raises(UserError, match="a sentence"):
        isolated(table(1, 1))
    with pytest.raises(Exception, match="odd") as caught:
        isolated(table(0, 1))
    assert type(caught.value).__name__ == "Strange"
    isolated.close()


def test_attempts_are_counted_until_the_work_is_done(tmp_path: Path) -> None:
    counts = [begin_attempt(str(tmp_path), "000001-0") for _ in range(3)]
    assert counts == [1, 2, 3]
    end_attempts(str(tmp_path), "000001-0", 3)
    assert begin_attempt(str(tmp_path), "000001-0") == 1
