"""How far the share that ``gristmill status`` names is from what the clock shows in the end, while a run goes on.

    python -m benchmarks.status_accuracy [CONFIG ...] [key=value ...] [--planned] [--every SECONDS]

Each config is run at a small size, by the command as a user does, and its status is read again and again; with
``--planned`` it is planned before. Printed are the shares named when the clock, as it turned out, was at a quarter, at
half and at three quarters of the work, and the largest difference of all from a third on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gristmill.pipelines.command.planfile import read_plan
from gristmill.pipelines.command.status import StatusReader
from gristmill.shards.errors import GristmillError

from benchmarks.plan_accuracy import NEEDS, ROOT, SMALL

SHOWN = (0.25, 0.5, 0.75)


def watched(config: str, overrides: list[str], every: float, planned: bool) -> list[tuple[float, float | None, str]]:
    """Run a config; return for each look the share of the time that had passed, the share named, and the line."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "out")
        words = [config, *SMALL[config], *overrides, f"out={out}"]
        gristmill = [sys.executable, "-m", "gristmill"]
        if planned:
            subprocess.run([*gristmill, "plan", *words], cwd=ROOT, capture_output=True, check=True)
        looks: list[tuple[float, float | None, str]] = []
        reader = StatusReader(out)
        with subprocess.Popen([*gristmill, "run", "-q", *words], cwd=ROOT, stdout=subprocess.DEVNULL) as run:
            while run.poll() is None:
                time.sleep(every)
                try:
                    whole = reader.read().whole
                except GristmillError:
                    continue  # nothing is there yet
                looks.append((time.time(), whole.forecast.share, whole.line()))
        if run.returncode:
            raise SystemExit(f"{config}: ended with {run.returncode}")
        work = (read_plan(out) or {})["run"]
        begun, whole_time = work["begun"], work["at"] - work["begun"]
    return [((at - begun) / whole_time, share, line) for at, share, line in looks if begun < at <= begun + whole_time]


def main() -> None:
    """Watch the configs that are named, or the first of each recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="CONFIG or key=value")
    parser.add_argument("--planned", action="store_true", help="plan each config before it is run")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two looks")
    given = parser.parse_args()
    overrides = [word for word in given.words if "=" in word]
    for config in [word for word in given.words if "=" not in word] or ("distill", "rerank", "bootstrap-lm"):
        if not NEEDS.get(config, ROOT).exists():
            print(f"{config}: left out, there is no {NEEDS[config]}")
            continue
        looks = watched(config, overrides, given.every, given.planned)
        for clock in SHOWN:
            at, _, line = min(looks, key=lambda look: abs(look[0] - clock))
            print(f"{config}: at {at:.0%} by the clock: {line}", flush=True)
        off = [abs(share - at) for at, share, _ in looks if share is not None and at > 1 / 3]
        print(
            f"{config}: {len(looks)} looks, {len(off)} of them with a share behind a third, at most {max(off):.2f} off"
        )


if __name__ == "__main__":
    main()
