"""Communication of two ranks: averaged gradients, compressed ones, and blocks, each resumed to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from gristmill.actors.training.communication import Blocks
from gristmill.actors.training.loop import run_training
from gristmill.actors.training.settings import BlockSettings, LoopSettings, Schedule
from gristmill.shards.errors import UserError
from tests.actors.ranks import Killed, RankContext, Ranks
from tests.actors.training.toy import Toy, toy

EXCHANGES: dict[str, dict[str, Any]] = {
    "averaged": {},
    "accumulated": {"accumulate": 2},
    "share": {"compression": {"share": 0.1}},
    "threshold": {"compression": {"share": None, "threshold": 0.3}},
    "blocks": {"blocks": {"steps": 4}},
    "plain blocks": {"blocks": {"steps": 4, "nesterov": False, "momentum": 0.0}},
}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    with Ranks(2, tmp_path_factory.mktemp("ranks")) as ranks:
        yield ranks


def resumed(rank: int, count: int, url: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Train after three deaths."""
    for point in (9, 26, 47):
        with pytest.raises(Killed):
            toy(rank, count, url, settings, die_at=point)
    return toy(rank, count, url, settings)


@pytest.mark.parametrize("kind", sorted(EXCHANGES))
def test_two_ranks_learn_and_resume_to_the_bit(kind: str, two: Ranks, tmp_path: Path) -> None:
    given = {**EXCHANGES[kind], "checkpoint_steps": 7, "report_steps": 1}
    whole = two(toy, str(tmp_path / "whole"), given)
    assert whole["curves"][-1]["dev_loss"] < 0.2 * whole["curves"][0]["loss"]
    again = two(resumed, str(tmp_path / "again"), given)
    assert again["files"] == whole["files"]
    assert again["curves"] == whole["curves"]


def test_each_way_gives_weights_of_its_own(two: Ranks, tmp_path: Path) -> None:
    kinds = ({}, {"compression": {}}, {"blocks": {}})
    plain, *on = (two(toy, str(tmp_path / str(n)), kind)["files"] for n, kind in enumerate(kinds))
    assert all(files != plain for files in on)


def test_a_block_is_the_mean_of_what_ranks_learnt_apart(two: Ranks, tmp_path: Path) -> None:
    """Without momentum, after one block."""
    blocks = {"blocks": {"steps": 4, "nesterov": False, "momentum": 0.0}}
    made = load(two(toy, str(tmp_path / "together"), blocks, 4)["files"]["toy.safetensors"])
    apart = [load(one) for one in two(alone, str(tmp_path / "apart"))]
    for name, value in made.items():
        if value.is_floating_point():
            mean = torch.stack([one[name] for one in apart]).mean(0)
            assert torch.allclose(value, mean, atol=1e-6), name


@pytest.mark.parametrize("nesterov", [False, True])
def test_blocks_follow_their_equations(nesterov: bool) -> None:
    """Where ranks learn nothing more, what they learnt fades by the momentum."""
    weight = torch.nn.Parameter(torch.zeros(1))
    settings = BlockSettings(steps=1, momentum=0.5, rate=0.8, nesterov=nesterov)
    blocks = Blocks(torch.nn.ParameterList([weight]), 1, settings, {"w": weight}, torch.optim.AdamW([weight]))
    change = after = 0.0
    for learnt in (1.0, -0.3, 0.0, 0.0, 0.0):
        with torch.no_grad():
            weight.add_(learnt)
        assert blocks.stepped(1, end=False, counts=[0, 0])
        change = 0.5 * change + 0.8 * learnt
        after += change
        assert weight.item() == pytest.approx(after, abs=1e-6)
        blocks.go_on()
        assert weight.item() == pytest.approx(after + (0.5 * change if nesterov else 0.0), abs=1e-6)


def one_bad_step(rank: int, count: int, url: str, deaths: tuple[int, ...]) -> dict[str, Any]:
    """Train in blocks, the first step of the last rank without a finite gradient, after some deaths."""

    def train(die_at: int | None, *, begun: bool) -> dict[str, Any]:
        given = LoopSettings(blocks={"steps": 2}, checkpoint_steps=4, report_steps=1)
        training = Toy(Schedule(steps=40, lr=3e-2), bad=0 if rank + 1 == count and not begun else None)
        return run_training(training, given, RankContext(url, rank, count, die_at))

    for number, point in enumerate(deaths):
        with pytest.raises(Killed):
            train(point, begun=number > 0)
    return train(None, begun=bool(deaths))


def test_blocks_resume_to_the_bit_after_a_step_that_one_rank_left_out(two: Ranks, tmp_path: Path) -> None:
    whole = two(one_bad_step, str(tmp_path / "whole"), ())
    assert whole["curves"][-1]["skipped"] == 1
    again = two(one_bad_step, str(tmp_path / "again"), (5, 23))
    assert again["files"] == whole["files"]
    assert again["curves"] == whole["curves"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(EXCHANGES))
def test_three_ranks_resume_to_the_bit(kind: str, tmp_path: Path) -> None:
    given = {**EXCHANGES[kind], "checkpoint_steps": 7, "report_steps": 1}
    with Ranks(3, tmp_path) as three:
        whole = three(toy, str(tmp_path / "whole"), given)
        again = three(resumed, str(tmp_path / "again"), given)
    assert again["files"] == whole["files"]
    assert again["curves"] == whole["curves"]


def alone(rank: int, count: int, url: str) -> list[bytes]:
    """Train as each of two ranks would without the other."""
    found = []
    for one in range(count):
        context = RankContext(f"{url}/{rank}{one}", one, count)
        training = Toy(Schedule(steps=4, lr=3e-2))
        # A block that is longer than the training, and no communication at its end.
        found.append(_without_communication(training, context))
    return found


def _without_communication(training: Toy, context: RankContext) -> bytes:
    from gristmill.actors.training import communication

    mean, reduce = communication.Blocks._mean, torch.distributed.all_reduce
    communication.Blocks._mean = lambda self, value: value  # type: ignore[method-assign]
    torch.distributed.all_reduce = lambda *_: None
    try:
        run_training(training, LoopSettings(blocks={"steps": 99, "momentum": 0.0, "nesterov": False}), context)
    finally:
        communication.Blocks._mean, torch.distributed.all_reduce = mean, reduce  # type: ignore[method-assign]
    return training.files()["toy.safetensors"]


def test_one_rank_has_nothing_to_compress(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="compression: one rank exchanges no gradients"):
        toy(0, 1, str(tmp_path), {"compression": {}})
