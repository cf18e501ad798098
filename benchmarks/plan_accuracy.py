"""How far the estimate of ``gristmill plan`` is from the time that the run takes, for each config at a small size.

    python -m benchmarks.plan_accuracy [CONFIG ...] [key=value ...] [--largest N]

Each config is planned and then run, by the command as a user does; a ratio of 1 is a plan that is right. The parts of
the run whose estimates are furthest off, in seconds, are shown below; parts that are made side by side add up to more
than the run. Configs of real data are left out where that is absent (``$GRISTMILL_DATA``). ``expand-own`` has the
steps of ``expand``, and ``fleet`` those of ``distill``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("GRISTMILL_DATA") or ROOT.parent / "shared" / "data")
_SPEECH = [
    "corpus.labelled_records=200",
    "corpus.unlabelled_records=600",
    "corpus.test_records=80",
    "systems.teacher.epochs=6",
    "systems.multicondition.epochs=3",
    "systems.hard_labels.epochs=3",
    "systems.student.epochs=3",
    "noise.rooms.count=40",
]
_ALARM = "{name: alarm, intents: [alarm_query, alarm_set]}"
_EMAIL = "{name: email, intents: [email_query, email_sendemail]}"
SMALL = {
    "distill": [*_SPEECH, "sweep={k: [1], temperature: [1], epochs: 1}"],
    "distill-debian-noise": [*_SPEECH, "sweep={k: [1], temperature: [1], epochs: 1}"],
    "distill-digits": [*_SPEECH, "sweep={k: [1], temperature: [1], epochs: 1}", "seeds=[0]"],
    "distill-hama": ["systems.multicondition.epochs=2", "systems.hard_labels.epochs=2", "systems.student.epochs=2"],
    "rerank": ["seeds=[0]"],
    "rerank-hwu64": ["seeds=[0]"],
    "bootstrap-lm": ["pairs.records=3000", "translator.epochs=3", "in_domain.sizes=[1, 10]"],
    "bootstrap-lm-hi": [
        f"pairs.files.places=[{DATA}/parallel/tatoeba_en_hi.tsv, {DATA}/parallel/lohelp_en_hi.tsv]",
        "seeds=[0]",
        "translator.epochs=6",  # one that has learnt nothing repeats units up to the limit
        "in_domain.sizes=[1, 10]",
        "in_domain.source_records=1000",
        "selection.compare=false",
        "selection.tune.epochs=2",
        "fine_tuning.tune.epochs=1",
    ],
    "expand": ["seeds=[0]"],
    "expand-hwu64": ["seeds=[0]", f"functions=[{_ALARM}, {_EMAIL}]"],
    "expand-snips": ["seeds=[0]", "functions=[{name: weather, intents: [GetWeather]}]"],
    "personalise": [
        "corpus={train_records: 800, adapter_records: 300, development_records: 40, test_records: 60, texts: 5000}",
        "base.schedule.epochs=3",
        "adapter.schedule.epochs=3",
        "lists={present: [10, 100], absent: [10], words: 300}",
        "tuning.sizes=[100]",
    ],
    "personalise-librispeech": [
        "corpus.adapter_records=300",
        "adapter.schedule.epochs=3",
        "lists={present: [10, 100], absent: [10], own: false, words: 1000}",
        "tuning.sizes=[100]",
    ],
    "sessions": ["seeds=[0]"],
    "sessions-slurp": ["seeds=[0]", "sessions.simulation.sessions=3000"],
}
NEEDS = {
    "distill-digits": DATA / "speech/digits",
    "distill-hama": DATA / "speech/kathleen",
    "distill-debian-noise": Path("/usr/share/games/fillets-ng"),
    "rerank-hwu64": DATA / "nlu/hwu64/train",
    "bootstrap-lm-hi": DATA / "parallel/tatoeba_en_hi.tsv",
    "expand-hwu64": DATA / "nlu/hwu64/train",
    "expand-snips": DATA / "nlu/snips/train",
    "personalise-librispeech": DATA / "speech/librispeech-dev",
    "sessions-slurp": DATA / "overview/rephrase",
}


def compared(config: str, overrides: list[str]) -> dict[str, Any] | None:
    """Plan and run a config; return the estimate and what was measured, by part, or ``None`` if one fails."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        for command in ("plan", "run"):
            words = [command, config, *SMALL[config], *overrides, f"out={out}"]
            done = subprocess.run(
                [sys.executable, "-m", "gristmill", *words], cwd=ROOT, capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(f"{config}: {command} ended with {done.returncode}: {done.stderr[-400:]}", flush=True)
                return None
        return json.loads((out / "report.json").read_text())["plan"]


def main() -> None:
    """Compare the configs that are named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="CONFIG or key=value")
    parser.add_argument("--largest", type=int, default=6, help="parts to show of each config")
    given = parser.parse_args()
    overrides = [word for word in given.words if "=" in word]
    for config in [word for word in given.words if "=" not in word] or SMALL:
        if not NEEDS.get(config, ROOT).exists():
            print(f"{config}: left out, there is no {NEEDS[config]}")
            continue
        plan = compared(config, overrides)
        if plan is None:
            continue
        told, took = plan["estimate"], plan["actual"]
        ratio = told["seconds"] / took["seconds"]
        print(f"{config}: planned {told['seconds']:.0f} s, took {took['seconds']:.0f} s, ratio {ratio:.2f}", flush=True)
        parts = {name: (_seconds(told, name), _seconds(took, name)) for name in {*told, *took} - {"seconds"}}
        off = sorted(parts.items(), key=lambda part: -abs(part[1][0] - part[1][1]))
        for name, (one, two) in off[: given.largest]:
            print(f"    {name}: planned {one:.1f} s, took {two:.1f} s", flush=True)


def _seconds(whole: dict[str, Any], name: str) -> float:
    return float(whole[name]["seconds"]) if name in whole else 0.0


if __name__ == "__main__":
    main()
