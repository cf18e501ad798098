"""Bits are flipped, files cut, exchanged and deleted, in a finished run and in half-finished ones: nothing damaged is
used in silence, and there is a way on."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from gristmill.pipelines.command.audit import audit_output
from gristmill.pipelines.command.launch import carry_out
from gristmill.pipelines.command.repair import repair_output
from gristmill.pipelines.command.status import StatusReader
from gristmill.pipelines.config import load
from gristmill.pipelines.progress import RunProgress
from gristmill.shards import checked, parquet
from gristmill.shards.audit import audit_below
from gristmill.shards.errors import GristmillError

STOPS = {"finished": "", "in a step": "t/00021~0", "in a training": "step 4"}
EXCHANGED = (344, 607)  # trials in which plans, or receipts, of two steps are exchanged
KINDS = ("flip", "cut", "swap", "delete")


def work(out: Path, *, more: bool = False) -> dict[str, str]:
    """Run or resume the recipe, and return the digest of all that it made."""
    loaded = load(str(out.parent / "damage.yaml"), [f"out={out}", f"more={str(more).lower()}"])
    done, _ = carry_out(loaded, RunProgress())
    return {f"{trace.name} {trace.kind}": trace.digest for trace in done.trace}


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An output in each of the states."""
    folder = tmp_path_factory.mktemp("damage")
    (folder / "damage.yaml").write_text("recipe: tests.fault.damage\nout: out\nrunner: inprocess\n")
    made = {}
    for state, stop in STOPS.items():
        out = folder / state.replace(" ", "_")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DAMAGE_STOP", stop)
            if stop:
                with pytest.raises(KeyboardInterrupt):
                    work(out)
            else:
                work(out)
        made[state] = out
    return made


def files(out: Path) -> list[Path]:
    return sorted(path for path in out.rglob("*") if path.is_file() and ".lease" not in path.parts)


def damage(out: Path, kind: str, rng: np.random.Generator) -> list[Path]:
    """Do one kind of damage to one file, or two, and return them."""
    there = files(out)
    path = there[int(rng.integers(len(there)))]
    data = path.read_bytes()
    if kind == "flip" and data:
        changed = bytearray(data)
        bit = int(rng.integers(8 * len(data)))
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
    elif kind == "cut" and data:
        path.write_bytes(data[: int(rng.integers(len(data)))])
    elif kind == "swap":
        alike = [other for other in there if other.suffix == path.suffix and other != path]
        if alike:
            other = alike[int(rng.integers(len(alike)))]
            path.write_bytes(other.read_bytes())
            other.write_bytes(data)
            return [path, other]
    else:
        path.unlink()
    return [path]


def attempt(out: Path, damaged: list[Path], wanted: dict[str, str], *, more: bool) -> str:
    """Run on, and return whether the undisturbed digests came out ("same") or the damaged file was named ("named")."""
    told = ""
    try:
        found = work(out, more=more)
    except GristmillError as error:
        told = str(error)
    if told:
        assert any(str(path.relative_to(out)) in told for path in damaged), told
        return "named"
    assert found == wanted, damaged
    return "same"


def try_damages(states: dict[str, Path], folder: Path, trials: Iterable[int]) -> Counter[str]:
    shutil.copy(states["finished"].parent / "damage.yaml", folder)
    undisturbed = {}
    for more in (False, True):
        shutil.copytree(states["finished"], folder / f"undisturbed_{more}")
        undisturbed[more] = work(folder / f"undisturbed_{more}", more=more)
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    for trial in trials:
        rng = np.random.default_rng(trial)
        state, kind = list(STOPS)[trial % len(STOPS)], KINDS[trial // len(STOPS) % len(KINDS)]
        out, more = folder / "out", bool(rng.integers(2))
        shutil.copytree(states[state], out)
        damaged = damage(out, kind, rng)
        try:
            outcomes[attempt(out, damaged, undisturbed[more], more=more)] += 1
            for _ in range(2):  # the first run after a repair may meet with damage that only now is read
                repair_output(str(out))
                assert work(out, more=more) == undisturbed[more]
            assert not [gap for result in audit_below(str(out)) for gap in result.gaps]
        except Exception as error:
            names = [str(path.relative_to(out)) for path in damaged]
            wrong.append(
                f"trial {trial}: {state}, {kind} of {names}, more={more}: {type(error).__name__}: {error}"[:600]
            )
        shutil.rmtree(out)
    assert not wrong, "\n".join(wrong)
    return outcomes


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files are read by their pages too, as large ones are."""
    monkeypatch.setattr(parquet, "SMALL", 0)


@pytest.mark.usefixtures("small_pages")
def test_some_damage(states: dict[str, Path], tmp_path: Path) -> None:
    outcomes = try_damages(states, tmp_path, [*range(20), *EXCHANGED])
    assert outcomes["named"] > 5
    assert outcomes["same"] > 5


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("small_pages")
def test_a_thousand_damages(states: dict[str, Path], tmp_path: Path) -> None:
    outcomes = try_damages(states, tmp_path, range(1000))
    print(f"\n{dict(outcomes)}")
    assert outcomes.total() == 1000


def in_place_of(path: Path, kind: str) -> None:
    """Put something else than a file in its place, or a file of the right checksum and the wrong shape."""
    data = path.read_bytes()
    path.unlink()
    if kind == "link":
        path.symlink_to("/nowhere/at/all")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(checked.encode(FORGED[path.name], {"name": [1], "made": 3}) if path.name in FORGED else data)


FORGED = {"seal.json": "seal", "step.json": "plan of a step", "artifact.json": "artifact", "run.json": "ledger"}
FORGED |= {"000000.json": "receipt"}


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "forged"])
def test_what_is_no_file_of_ours_is_damage(states: dict[str, Path], tmp_path: Path, kind: str) -> None:
    shutil.copy(states["finished"].parent / "damage.yaml", tmp_path)
    wanted = work(shutil.copytree(states["finished"], tmp_path / "undisturbed"))
    (step,) = (states["finished"] / "tagged").iterdir()
    artifact = next(iter(states["finished"].glob("*/*/artifact.json"))).parent
    names = [f"tagged/{step.name}/{name}" for name in ("seal.json", "step.json", "receipts/000000.json")]
    names += [f"tagged/{step.name}/data/{next(iter((step / 'data').iterdir())).name}"]
    names += [str(path.relative_to(states["finished"])) for path in artifact.iterdir()]
    names += ["config.json", "run.json", "report.json", "report.html"]
    for name in names:
        if kind == "forged" and name.rpartition("/")[2] not in FORGED:
            continue
        out = shutil.copytree(states["finished"], tmp_path / "out")
        in_place_of(out / name, kind)
        assert not StatusReader(str(out)).read().over, name
        assert [gap for result in audit_output(str(out)) for gap in result.gaps], name
        assert attempt(out, [out / name], wanted, more=False)
        repair_output(str(out))
        assert work(out) == wanted, name
        assert not [gap for result in audit_output(str(out)) for gap in result.gaps], name
        shutil.rmtree(out)
