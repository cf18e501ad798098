"""Digests of tiny trainings of every kind; ``python -m tests.actors.goldens`` keeps those of this tree.

The last bits of a sum are the processor's and torch's, so digests are compared where they were made.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill.shards import canonical  # before what it pins

# isort: split
import numpy as np
import torch

from gristmill.actors.nlu.domain_trainer import train as train_domain
from gristmill.actors.training.settings import LoopSettings
from tests.actors.nlu.test_domain_trainer import records, settings
from tests.actors.nlu.test_domain_trainer import sealed as sealed_requests
from tests.actors.ranks import RankContext, Ranks
from tests.actors.speech import toy

KEPT = Path(__file__).with_suffix(".json")


def machine() -> dict[str, str]:
    """Return what the last bits of a sum depend on."""
    about = Path("/proc/cpuinfo").read_text().partition("\n\n")[0] if Path("/proc/cpuinfo").exists() else ""
    lines = [line for line in about.splitlines() if line.startswith(("vendor_id", "flags", "model name"))]
    return {"torch": torch.__version__, "numpy": np.__version__, "processor": canonical.digest(lines)[:12]}


def acoustic(rank: int, count: int, root: str, url: str, **more: Any) -> dict[str, Any]:
    """Train an acoustic model through all objectives."""
    sets = Path(root, "speech")
    given = toy.config(sets, toy.SCHEDULE, checkpoint_steps=4, report_steps=3, ema=0.9)
    return toy.train(given, RankContext(url, rank, count, **more))


def translator(rank: int, count: int, root: str, url: str, **more: Any) -> dict[str, Any]:
    """Train a translator from scratch, with held-out pairs and averaged epochs."""
    from gristmill.actors.text.translator_trainer import train
    from tests.actors.text.translators import SMALL

    small = SMALL.but(epochs=3, checkpoint_steps=2, report_steps=1, average=2)
    data, dev = ([(f"{root}/pairs", 1.0)], f"{root}/dev")
    return train(small, RankContext(url, rank, count, **more), data=data, dev=dev, seed=3)


def domain(rank: int, count: int, root: str, url: str, **more: Any) -> dict[str, Any]:
    """Train the neural models of a domain."""
    given = settings(family="neural", loop=LoopSettings(checkpoint_steps=2, report_steps=1))
    return train_domain(given, RankContext(url, rank, count, **more), data=f"{root}/requests")


TRAININGS = {"acoustic": acoustic, "translator": translator, "domain": domain}


def make_data(root: Path) -> None:
    """Seal what the trainings read."""
    from tests.actors.text.translators import sealed, sentences

    toy.make_sets(root / "speech")
    sealed(root, "pairs", sentences(120))
    sealed(root, "dev", sentences(30, seed=9))
    sealed_requests(root / "requests", records())


def digests(made: Mapping[str, Any]) -> dict[str, str]:
    """Return the digests of a training's files and of its curves."""
    found = {name: canonical.sha256(data)[:16] for name, data in sorted(made["files"].items())}
    return found | {"curves": canonical.digest(made["curves"])[:16]}


def all_digests(root: Path, ranks: Ranks | None = None) -> dict[str, dict[str, str]]:
    """Return the digests of each training with 1 rank and, given ranks, with those."""
    found = {}
    for name, do in TRAININGS.items():
        found[name] = digests(do(0, 1, str(root), str(root / name)))
        if ranks is not None:
            found[f"{name} x2"] = digests(ranks(do, str(root), str(root / f"{name}2")))
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, Ranks(2, Path(folder)) as two:
        make_data(Path(folder))
        KEPT.write_text(json.dumps({"machine": machine(), "digests": all_digests(Path(folder), two)}, indent=1) + "\n")
