"""Filters and functions of one record: order is kept, rejects are counted, a broken record costs itself."""

from __future__ import annotations

import doctest
import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as h_settings
from hypothesis import strategies as st

from gristmill.actors import records
from gristmill.actors.records import Filter, PerRecord, filter_records, map_records
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.shards import names
from gristmill.shards import stage as stages
from gristmill.shards.dataset import seal_tables
from gristmill.shards.engine import run_step
from gristmill.shards.errors import RejectRecord, SettingsError, UserError
from gristmill.shards.settings import Settings
from gristmill.shards.stage import BatchLimits, Stage
from gristmill.shards.step import Step
from gristmill.shards.work import StageWorker, Work


class LengthSettings(Settings):
    least: int = 3


class TooShort(Filter):
    columns = ("text",)
    settings: LengthSettings

    def reason(self, record):
        if record["text"] == "break":
            raise ValueError("this record breaks")
        return "too short" if len(record["text"]) < self.settings.least else None


@filter_records
def too_short(text: str, *, least: int = 3) -> str | None:
    """Reject short texts."""
    return f"shorter than {least}" if len(text) < least else None


class Shape(PerRecord):
    columns, adds = ("text",), (pa.field("size", pa.int64()), pa.field("text", pa.string()))

    def record(self, record):
        if record["text"] == "no":
            raise RejectRecord("it says no")
        if record["text"] == "odd":
            return {"size": "odd", "text": "odd"}
        return {"size": len(record["text"]), "text": record["text"].upper()}


@map_records
def size(text: str) -> int | None:
    return len(text) or None


@map_records(adds=[pa.field("first", pa.string()), pa.field("rest", pa.list_(pa.string()))])
def ends(text: str, id: str, *, left: bool) -> dict:
    return {"first": text[0] if left else id, "rest": list(text[1:])}


def table(texts: list[str]) -> pa.Table:
    return pa.table(
        {"id": pa.array([f"r{n}" for n in range(len(texts))], pa.string()), "text": pa.array(texts, pa.string())}
    )


def worked(stage: Stage, texts: list[str]) -> Work:
    return StageWorker(stage, 0)(Work("s", table(texts), len(texts)))


def sides(work: Work) -> tuple[pa.Table, list, list]:
    return work.table, [t.to_pylist() for t in work.rejects], [t.to_pylist() for t in work.quarantine]


@h_settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(["", "on", "off", "break", "no", "odd", "dimmed"]), max_size=40), st.integers(1, 9))
def test_order_is_kept_all_are_counted_and_batches_change_nothing(texts: list[str], rows: int) -> None:
    for actor in (TooShort, Shape, too_short):
        stage = actor.stage()
        work = worked(stage, texts)
        again = worked(Stage(**{**vars(stage), "batch": BatchLimits(rows)}), texts)
        assert sides(work) == sides(again)
        kept = work.table["id"].to_pylist()
        assert kept == sorted(kept, key=lambda name: int(name[1:]))
        aside = [row["id"] for side in (*work.rejects, *work.quarantine) for row in side.to_pylist()]
        assert sorted([*kept, *aside]) == sorted(table(texts)["id"].to_pylist())


def test_a_record_that_breaks_costs_itself_at_once() -> None:
    work = worked(TooShort.stage(), ["fine"] * 40 + ["break", "on"] + ["fine"] * 10 + ["break"])
    (broken,) = work.quarantine
    assert broken["id"].to_pylist() == ["r40", "r52"]
    assert set(broken["error"].to_pylist()) == {"ValueError: this record breaks"}
    assert work.rejects[0]["reason"].to_pylist() == ["too short"]
    assert (work.batches_split, work.table.num_rows) == (1, 50)


def test_a_value_of_another_type_costs_its_record() -> None:
    work = worked(Shape.stage(), ["off", "odd", "no", "on"])
    assert work.table.to_pylist() == [
        {"id": "r0", "text": "OFF", "size": 3},
        {"id": "r3", "text": "ON", "size": 2},
    ]
    assert work.rejects[0]["reason"].to_pylist() == ["it says no"]
    (row,) = work.quarantine[0].to_pylist()
    assert row["id"] == "r1"
    assert row["error"].startswith("Arrow")


def test_a_function_is_an_actor_under_its_name() -> None:
    assert names.named(f"{__name__}:too_short") is too_short
    stage = too_short.stage(too_short.Settings(least=2))
    assert (stage.name, stage.actor, stage.columns) == ("too_short", f"{__name__}:too_short", ("text",))
    assert stage.params.identity() == {"least": 2}
    assert too_short.stage().identity() == {"name": "too_short"}  # a setting at its default is in no fingerprint
    assert pickle.loads(pickle.dumps(stage)) == stage
    assert worked(stage, ["a", "on"]).rejects[0]["reason"].to_pylist() == ["shorter than 2"]
    assert too_short.function("a", least=1) is None
    for wrong in ({"least": "many"}, {"most": 3}):
        with pytest.raises(SettingsError):
            too_short.Settings(**wrong)
    with pytest.raises(SettingsError):
        ends.Settings()  # `left` has no default


def test_functions_add_columns_of_the_types_they_state() -> None:
    assert worked(size.stage(), ["on", ""]).table["size"].to_pylist() == [2, None]
    made = worked(ends.stage(ends.Settings(left=False)), ["on"]).table
    assert made.drop_columns(["text", "id"]).to_pylist() == [{"first": "r0", "rest": ["n"]}]


def test_a_missing_column_is_an_error_before_any_work(tmp_path: Path) -> None:
    listed = seal_tables(str(tmp_path / "in"), "in", iter([pa.table({"id": ["a"], "words": ["x"]})]))
    step = Step("kept", (TooShort.stage(),), listed)
    with pytest.raises(UserError, match=r"^stage TooShort reads \['text'\], which its input lacks: \['id', 'words'\]$"):
        run_step(step, str(tmp_path / "out"), InProcessRunner(), 0)
    assert not (tmp_path / "out").exists()


def test_results_of_the_wrong_type_are_errors_of_the_actor() -> None:
    class Wrong(Filter):
        def reason(self, record):
            return True

    with pytest.raises(UserError, match="Wrong: returned the reason True; expected a text, or None"):
        Wrong(Settings())(table(["a"]))

    @map_records(adds=[pa.field("a", pa.string())])
    def wrong(text: str):
        return {"b": text}

    with pytest.raises(UserError, match=r"wrong: returned \['b'\]; expected a mapping with values of \['a'\]"):
        wrong(Settings())(table(["a"]))


def test_functions_that_name_no_columns_are_refused() -> None:
    def packed(*texts: str) -> None: ...
    def default(text: str, least: int = 3) -> None: ...
    def nothing(*, least: int = 3) -> None: ...

    for function, message in ((packed, "names no column"), (default, "after `\\*`"), (nothing, "no positional")):
        with pytest.raises(UserError, match=message):
            filter_records(function)
    with pytest.raises(UserError, match="its return type has no column type"):
        map_records(lambda text: text)


def test_settings_go_to_a_stage_in_their_class() -> None:
    expected = r"too_short.stage\(too_short.Settings\(least=4\)\)"
    with pytest.raises(TypeError, match=f"^too_short: least is a setting; expected {expected}$"):
        too_short.stage(least=4)
    with pytest.raises(TypeError, match=r"'least': 4\}; expected .*stage\(too_short.Settings\(least=...\)\)$"):
        too_short.stage({"least": 4})
    with pytest.raises(TypeError, match="laest=4 is neither a setting nor an artifact; expected one of the settings"):
        too_short.stage(laest=4)
    with pytest.raises(TypeError, match=r"expected an instance of LengthSettings: TooShort.stage\(LengthSettings"):
        TooShort.stage(3)
    assert too_short.stage(too_short.Settings(least=4)).params.least == 4


def test_what_a_script_defines_is_not_in_workers() -> None:
    with pytest.raises(UserError, match=r"^__main__:kept is not in this process; expected it in a module of its own"):
        names.named("__main__:kept")


def test_every_setting_of_a_function_has_a_type() -> None:
    @filter_records
    def untyped(text, *, least=3):
        return None

    for wrong in ("many", 2.5):
        with pytest.raises(ValueError, match="least"):
            untyped.Settings(least=wrong)
    for signature in ("text, *, least", "text, *, least=None"):
        with pytest.raises(UserError, match="the setting least has no type; expected an annotation"):
            filter_records(eval(f"lambda {signature}: None"))


def test_the_return_annotation_is_checked() -> None:
    def yes(text: str) -> bool: ...
    def number(text: str) -> int | None: ...
    def names_it(text: str) -> str: ...
    def plain(text): ...
    def row(text: str) -> dict[str, str]: ...

    for wrong in (yes, number, row):
        with pytest.raises(UserError, match=r": returns .* by its annotation; expected str \| None"):
            filter_records(wrong)
    for right in (names_it, plain):
        filter_records(right)
    adds = [pa.field("first", pa.string())]
    with pytest.raises(UserError, match="yes: returns bool by its annotation; expected a mapping"):
        map_records(adds=adds)(yes)
    for right in (row, plain):
        map_records(adds=adds)(right)


@pytest.mark.parametrize("module", [records, names, stages])
def test_the_examples_hold(module) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert not found.failed
