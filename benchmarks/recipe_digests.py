"""Digests of all recipes, cut small: what a change of the code left equal.

    python -m benchmarks.recipe_digests OUT                  # runs each config cut small, writes OUT/digests.json
    python -m benchmarks.recipe_digests OUT --checkout OLD   # the same by another checkout
    python -m benchmarks.recipe_digests OUT --compare OTHER  # a table of what differs

Configs of real data are cut from `$GRISTMILL_DATA` (default `../shared/data`), the same way each time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("GRISTMILL_DATA") or ROOT.parent / "shared" / "data")

_SIZES = "corpus={labelled_records: 12, unlabelled_records: 24, test_records: 8, shard: {rows: 8}}"
_ONCE = "{epochs: 1}"
_SYSTEMS = (
    f"systems={{model: {{dim: 16, layers: 1, channels: 4}}, ema: 0.9, teacher: {_ONCE}, multicondition: {_ONCE}, "
    f"hard_labels: {_ONCE}, student: {_ONCE}, gold: {_ONCE}, sequence: {_ONCE}}}"
)
_SWEEP = "sweep={k: [1, 20], temperature: [2.0], epochs: 1}"
_ROOMS = "noise={generated: 8, seconds: 3, rooms: {count: 4}}"
_DOMAIN = (
    "in_domain={domains: [light, timer], target_records: 300, source_records: 80, reference_records: 12, "
    "sizes: [1, 4], shard: {rows: 100}}"
)
_TRANSLATOR = (
    "translator={model: {dim: 16, encoder_layers: 1, decoder_layers: 1, ff: 32, heads: 2}, units: 120, epochs: 1}"
)
_TEXT = [_DOMAIN, _TRANSLATOR, "translation={n: 3, beam: 3}", "tuning={weights: [0.5], keeps: [1.0, 0.5]}"]


def overrides(folder: Path) -> dict[str, list[str]]:
    """Return the overrides that cut each config small; ``folder`` holds the parts of the real data."""
    places = (
        f"labelled: {folder}/kathleen, unlabelled: [{folder}/librispeech-unlabelled], test: {folder}/librispeech-dev"
    )
    return {
        "distill": [_SIZES, "corpus.sampling_rate=8000", _ROOMS, "features={n_mels: 40}", _SYSTEMS, _SWEEP],
        "distill-digits": [_SIZES, _ROOMS, _SYSTEMS, _SWEEP],
        "distill-hama": [f"corpus={{{places}, shard: {{rows: 4}}}}", _ROOMS, _SYSTEMS, "systems.gold=null"],
        "rerank": [
            "corpus={kind: assistant, lang: en, records: 400, ambiguous: 400, folds: 2, shard: {rows: 100}}",
            "lists={n: 12}",
        ],
        "rerank-hwu64": ["corpus={folds: 2}", f"corpus.places={folder}/hwu64"],
        "bootstrap-lm": ["pairs.records=300", "selection={share: 0.5, compare: true}", *_TEXT],
        "bootstrap-lm-hi": [
            f"pairs={{files: {{places: [{folder}/pairs.tsv]}}}}",
            "selection={tune: {epochs: 1}, share: 0.5, compare: false}",
            *_TEXT,
        ],
    }


def cut_data(folder: Path) -> None:
    """Copy a part of the real data."""
    for name, most in (("kathleen", 10), ("librispeech-unlabelled", 8), ("librispeech-dev", 6)):
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        rows = (DATA / "speech" / name / "manifest.jsonl").read_text().splitlines()[:most]
        (place / "manifest.jsonl").write_text("\n".join(rows) + "\n")
        for row in rows:
            file = json.loads(row)["audio_filepath"]
            shutil.copyfile(DATA / "speech" / name / file, place / file)
    (folder / "hwu64").mkdir(exist_ok=True)
    for name in ("alarm_set", "alarm_query", "play_music"):
        lines = (DATA / "nlu" / "hwu64" / "train" / f"{name}.csv").read_text().splitlines()[:60]
        (folder / "hwu64" / f"{name}.csv").write_text("\n".join(lines) + "\n")
    pairs = [
        line
        for name in ("debian_mo", "android", "tatoeba")
        for line in (DATA / "parallel" / f"{name}_en_hi.tsv").read_text().splitlines()[:300]
    ]
    (folder / "pairs.tsv").write_text("\n".join(pairs) + "\n")


def run(checkout: Path, command: str, out: Path, only: list[str]) -> dict[str, dict[str, list[str]]]:
    """Run the configs of a checkout, cut small, and return the digests of their sets and artifacts by name."""
    if DATA.is_dir():
        cut_data(out / "data")
    found = {}
    for name, cut in overrides(out / "data").items():
        real = any(str(out / "data") in one for one in cut) or name == "distill-digits"
        if (only and name not in only) or (real and not DATA.is_dir()):
            continue
        begun = time.perf_counter()
        words = [sys.executable, "-m", command, "run", f"configs/{name}.yaml", "runner=inprocess", "seeds=[0]", "-q"]
        environment = os.environ | {"PYTHONPATH": str(checkout), "GRISTMILL_DATA": str(DATA)}
        subprocess.run(
            [*words, *cut, f"out={out / name}"], cwd=checkout, env=environment, check=True, stdout=sys.stderr
        )
        digests: dict[str, list[str]] = {}
        for file in ("seal.json", "artifact.json"):
            for path in (out / name).glob(f"*/*/{file}"):
                digests.setdefault(path.parent.parent.name, []).append(json.loads(path.read_text())["digest"])
        found[name] = {key: sorted(values) for key, values in sorted(digests.items())}
        print(f"{name}: {len(found[name])} names, {time.perf_counter() - begun:.0f} s", flush=True)
    return found


def compare(one: Path, other: Path) -> None:
    """Print what differs between two outputs of this script."""
    mine, theirs = (json.loads((place / "digests.json").read_text()) for place in (one, other))
    for config in mine.keys() & theirs.keys():
        names = sorted(mine[config].keys() | theirs[config].keys())
        differ = [name for name in names if mine[config].get(name) != theirs[config].get(name)]
        equal = f"{len(names) - len(differ)} of {len(names)} names have equal digests"
        print(f"{config}: {equal}" + (f"; {', '.join(differ)} differ" if differ else ""))


def main() -> None:
    """Run or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkout", type=Path, default=ROOT)
    parser.add_argument("--command", default="gristmill", help="the module that is the command")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--compare", type=Path)
    given = parser.parse_args()
    if given.compare:
        compare(given.out, given.compare)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    found = run(given.checkout.resolve(), given.command, given.out.resolve(), given.only)
    (given.out / "digests.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
