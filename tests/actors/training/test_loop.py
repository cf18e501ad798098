"""The loop: exact resumption, averages, stopping, frozen parameters, accumulated gradients, and what goes wrong."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from gristmill.actors.training.loop import run_training
from gristmill.actors.training.settings import LoopSettings, Schedule
from gristmill.actors.training.training import LoopPhase, PlainObjective
from gristmill.pipelines.command.trial import Trial
from gristmill.shards.errors import SettingsError, UserError
from tests.actors.ranks import Killed, RankContext
from tests.actors.training.toy import SIZE, Toy, toy


def weights(made: dict[str, Any]) -> dict[str, torch.Tensor]:
    return load(made["files"]["toy.safetensors"])


def run(folder: Path, settings: dict[str, Any] | None = None, schedule: Schedule | None = None, **more: Any) -> Any:
    given = LoopSettings(**(settings or {}))
    return run_training(Toy(schedule or Schedule(steps=60, lr=3e-2), **more), given, RankContext(str(folder)))


KINDS: dict[str, dict[str, Any]] = {
    "last": {},
    "ema": {"ema": 0.9},
    "average": {"average": 2},
    "patience": {"patience": 50},
    "accumulate": {"accumulate": 3},
    "blocks": {"blocks": {"steps": 5, "momentum": 0.5}},
    "bfloat16": {"precision": "bfloat16"},
    "frozen": {"frozen": ["0."]},
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_killed_three_times_it_gives_the_bytes_of_one_that_ran_through(kind: str, tmp_path: Path) -> None:
    given = {**KINDS[kind], "checkpoint_steps": 7, "report_steps": 1}
    whole = toy(0, 1, str(tmp_path / "whole"), given)
    for point in (5, 23, 44):
        with pytest.raises(Killed):
            toy(0, 1, str(tmp_path / "killed"), given, die_at=point)
    again = toy(0, 1, str(tmp_path / "killed"), given)
    assert again["files"] == whole["files"]
    assert again["curves"] == whole["curves"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_how_it_is_carried_out_changes_no_byte(tmp_path: Path) -> None:
    whole = run(tmp_path / "a")
    assert whole["curves"][-1]["dev_loss"] < 0.1 * whole["curves"][0]["loss"]
    assert run(tmp_path / "b", {"prefetch": 0, "checkpoint_steps": 3})["files"] == whole["files"]
    assert run(tmp_path / "c", seed=1)["files"] != whole["files"]
    assert LoopSettings(prefetch=0, checkpoint_steps=3).identity() == {}


def test_accumulated_batches_are_a_larger_one(tmp_path: Path) -> None:
    """Without draws, and but for the statistics of a batch, which are those of each part."""

    class Plain(Toy):
        def build(self, device: torch.device) -> torch.nn.Module:
            self.network = torch.nn.Sequential(torch.nn.Linear(6, 3))
            return self.network

    schedule = Schedule(epochs=2, lr=3e-2)
    small = run_training(Plain(schedule), LoopSettings(accumulate=3), RankContext(str(tmp_path / "a")))
    large = run_training(Plain(schedule, size=24), LoopSettings(), RankContext(str(tmp_path / "b")))
    assert small["curves"][-1]["step"] == large["curves"][-1]["step"] == 2 * SIZE // 24 - 1
    for name, value in weights(small).items():
        assert torch.allclose(value, weights(large)[name], atol=1e-6)


def test_frozen_parameters_stay(tmp_path: Path) -> None:
    made = weights(run(tmp_path / "a", {"frozen": ["0."]}))
    torch.manual_seed(0)
    begun = Toy(Schedule(steps=1)).build(torch.device("cpu")).state_dict()
    assert {name for name, value in made.items() if torch.equal(value, begun[name])} == {"0.weight", "0.bias"}
    with pytest.raises(UserError, match=r"frozen: no parameter begins with 'encoder'.*'0.weight'"):
        run(tmp_path / "b", {"frozen": ["encoder"]})
    with pytest.raises(UserError, match="no parameter is left to train"):
        run(tmp_path / "c", {"frozen": ["0.", "2.", "3."]})


def test_it_ends_when_the_held_out_loss_is_no_longer_lower(tmp_path: Path) -> None:
    class Worse(Toy):
        """A training whose held-out loss rises from its third epoch on."""

        def held_out_loss(self, batch: Any) -> tuple[float, float]:
            self.measured = getattr(self, "measured", 0) + 1
            return abs(self.measured - 5.5), 1.0

    context = RankContext(str(tmp_path / "a"))
    made = run_training(Worse(Schedule(epochs=20, lr=1e-2)), LoopSettings(patience=2), context)
    assert [round(row["dev_loss"], 1) for row in made["curves"] if "dev_loss" in row] == [4.0, 2.0, 0.5, 2.0, 4.0]
    until = run_training(Toy(Schedule(epochs=3, lr=1e-2)), LoopSettings(), RankContext(str(tmp_path / "b")))
    assert [row["loss"] for row in made["curves"][:1]] == [row["loss"] for row in until["curves"][:1]]
    assert not torch.equal(weights(made)["3.weight"], weights(until)["3.weight"]), "the schedules differ"

    class Blind(Toy):
        def held_out(self) -> list[np.ndarray]:
            return []

    with pytest.raises(UserError, match="patience: there are 0 held-out batches"):
        run_training(Blind(Schedule(steps=2)), LoopSettings(patience=1), RankContext(str(tmp_path / "c")))


def test_a_training_that_stopped_by_patience_does_not_go_on_when_it_is_resumed(tmp_path: Path) -> None:
    """Killed after its last report, at a step that would store a checkpoint."""
    given = {"patience": 1, "checkpoint_steps": 12, "report_steps": 1}
    whole = toy(0, 1, str(tmp_path / "whole"), given, steps=600)
    last = whole["curves"][-1]["step"]
    assert last + 1 < 600
    assert (last + 1) % 12 == 0
    with pytest.raises(Killed):
        toy(0, 1, str(tmp_path / "again"), given, steps=600, die_at=last)
    assert toy(0, 1, str(tmp_path / "again"), given, steps=600) == whole


def test_the_last_epochs_are_averaged_and_a_part_of_one_is_one(tmp_path: Path) -> None:
    """Of two epochs and a half, an epoch being 12 steps, the states after 24 and 30 steps."""
    made = weights(run(tmp_path / "a", {"average": 2}, schedule=Schedule(epochs=2.5, lr=3e-2)))
    held: list[dict[str, torch.Tensor]] = []

    class Watched(Toy):
        def held_out_loss(self, batch: Any) -> tuple[float, float]:
            held.append({name: value.clone() for name, value in self.network.state_dict().items()})
            return super().held_out_loss(batch)

    run_training(Watched(Schedule(epochs=2.5, lr=3e-2)), LoopSettings(), RankContext(str(tmp_path / "b")))
    expected = (held[2]["0.weight"].double() + held[4]["0.weight"].double()) / 2  # two batches an evaluation
    assert torch.allclose(made["0.weight"].double(), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["lr", "square"])
def test_objectives_have_names_of_their_own(tmp_path: Path, name: str) -> None:
    class Two(Toy):
        def phases(self) -> list[LoopPhase]:
            loss = PlainObjective(name, lambda output, batch: output.sum())
            return [LoopPhase(self.schedule, [*super().phases()[0].objectives, loss], "toy")]

    with pytest.raises(UserError, match=f"toy: an objective is called '{name}'; expected distinct names"):
        run_training(Two(Schedule(steps=2)), LoopSettings(), RankContext(str(tmp_path)))


def test_no_batch_is_told(tmp_path: Path) -> None:
    class Empty(Toy):
        def batches(self, phase: int, epoch: int) -> list[np.ndarray]:
            return []

    with pytest.raises(UserError, match="toy: there is no batch in the data"):
        run_training(Empty(Schedule(steps=2)), LoopSettings(), RankContext(str(tmp_path)))


def test_draws_of_steps_keep_nothing(tmp_path: Path) -> None:
    """torch.manual_seed keeps the stack of each call for devices that are not in use."""
    before = len(torch.cuda._queued_calls)
    run(tmp_path, schedule=Schedule(steps=5, lr=3e-2))
    assert len(torch.cuda._queued_calls) == before


def test_a_checkpoint_of_an_earlier_version_is_passed_over(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import save

    context = RankContext(str(tmp_path / "a"))
    context.checkpoints.write(save({"w": torch.zeros(1)}, metadata={"step": "3"}))
    made = run_training(Toy(Schedule(steps=5, lr=3e-2)), LoopSettings(), context)
    assert made == run(tmp_path / "b", schedule=Schedule(steps=5, lr=3e-2))
    assert "of an earlier version is passed over" in capfd.readouterr().err


def test_a_step_without_a_finite_gradient_changes_nothing(tmp_path: Path) -> None:
    made = run(tmp_path / "a", {"report_steps": 1}, bad=5)
    assert [row.get("skipped", 0) for row in made["curves"]] == [0] * 5 + [1] * 55
    with pytest.raises(UserError, match=r"toy: no finite gradient in 1 of 10 steps, more than 5%.*lower lr"):
        run(tmp_path / "b", schedule=Schedule(steps=10, lr=3e-2), bad=5)


def test_a_lack_of_memory_is_told_in_a_sentence(tmp_path: Path) -> None:
    class Huge(Toy):
        def forward(self, network: Any, batch: Any, phase: int, seed: int) -> torch.Tensor:
            return super().forward(network, batch, phase, seed) + torch.empty(1 << 60)[0]

    with pytest.raises(UserError, match=r"memory of the cpu does not suffice for step 0; .* lower size"):
        run_training(Huge(Schedule(steps=2)), LoopSettings(), RankContext(str(tmp_path)))


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        toy(0, 1, str(tmp_path), {"checkpoint_steps": 2, "report_steps": 1}, die_at=4)

    class Other(Toy):
        def build(self, device: torch.device) -> torch.nn.Module:
            self.network = torch.nn.Sequential(torch.nn.Linear(6, 3))
            return self.network

    with pytest.raises(UserError, match="belongs to another training"):
        run_training(Other(Schedule(steps=9)), LoopSettings(), RankContext(str(tmp_path)))


def test_a_trial_takes_a_few_steps_of_the_full_number(tmp_path: Path) -> None:
    trial = Trial()
    run_training(Toy(Schedule(epochs=50)), LoopSettings(compression={}), trial)
    assert (len(trial.at[0]), trial.steps) == (6, {0: 50 * SIZE // 8})


@pytest.mark.parametrize("steps", [1, 2])
def test_a_training_of_a_step_or_two_has_a_price(steps: int) -> None:
    trial = Trial()
    run_training(Toy(Schedule(steps=steps)), LoopSettings(), trial)
    assert trial.steps == {0: steps}
    assert trial.seconds is not None
    assert trial.seconds > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ema": 0.9, "average": 2}, "ema, average and patience"),
        ({"blocks": {}, "compression": {}}, "blocks and compression"),
        ({"blocks": {}, "ema": 0.9}, "blocks and ema"),
        ({"compression": {"threshold": 0.1}}, "share and threshold: expected one"),
        ({"accumulate": 0}, "accumulate"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        LoopSettings(**wrong)
