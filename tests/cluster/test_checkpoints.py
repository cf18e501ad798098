"""Checkpoints: the newest that is whole is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.cluster.checkpoints import Checkpoints


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoints:
    checkpoints = Checkpoints(str(tmp_path))
    for data in (b"one", b"two", b"three"):
        checkpoints.write(data)
    return checkpoints


def paths(checkpoints: Checkpoints) -> list[Path]:
    return sorted(Path(checkpoints.url).iterdir())


def read_newest(checkpoints: Checkpoints) -> bytes | None:
    name = checkpoints.newest()
    return None if name is None else checkpoints.read(name)


def test_two_are_kept_and_the_newest_is_read(kept: Checkpoints) -> None:
    assert [path.name[:11] for path in paths(kept)] == ["step-000002", "step-000003"]
    assert read_newest(kept) == b"three"


@pytest.mark.parametrize("damaged", [b"thrfe", b"thr", b""])
def test_a_damaged_one_is_passed_over(kept: Checkpoints, damaged: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    paths(kept)[1].write_bytes(damaged)
    assert read_newest(kept) == b"two"
    assert f"{paths(kept)[1].name}: the checkpoint is damaged; the one before it is taken" in capsys.readouterr().err
    kept.write(b"three again")
    assert read_newest(kept) == b"three again"


def test_exchanged_ones_are_passed_over(kept: Checkpoints) -> None:
    two, three = (path.read_bytes() for path in paths(kept))
    paths(kept)[0].write_bytes(three)
    paths(kept)[1].write_bytes(two)
    assert read_newest(kept) is None


def test_one_that_changes_while_it_is_read_is_an_error(kept: Checkpoints) -> None:
    name = kept.newest()
    assert name is not None
    paths(kept)[1].write_bytes(b"four")
    with pytest.raises(RuntimeError, match="changed while it was read"):
        kept.read(name)
