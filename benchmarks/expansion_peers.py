"""The expansion recipe beside its peers, on the same cells and the same tests.

    python -m benchmarks.expansion_peers OUT --work FOLDER [--draws 1] [--tuned alarm email]

OUT is a run of configs/expand-hwu64.yaml, finished or not: of it are read the seeds, others' requests, pool and test of
each function and draw. The whole system (``fused``) is made from them again, by the recipe's own steps and settings, in
FOLDER; a second start goes on where the first one stopped. Peers, each with what it is given:

- ``self_training`` and ``self_training_k``: scikit-learn's SelfTrainingClassifier, by its threshold of 0.75 or its 10
  best, around the recipe's balanced logistic regression on the recipe's fused features; unlabelled are the 400 requests
  that the filter kept for the first round.
- ``projection``: a linear map of the frozen sentence embeddings, trained as SetFit trains its encoder (cosines of pairs
  of one class to 1, of two classes to 0), and the balanced regression on what it gives. No pool.
- ``tuned``, of the functions named: the encoder itself trained on such pairs, as SetFit does. No pool. ``..._grams``:
  either of the two beside n-grams, in the place of the frozen embedding.
- ``cleanlab``: what ``fused`` added, without the rows that ``find_label_issues`` marks by probabilities of a
  cross-validation.
- ``apricot_...`` and ``submodlib_...``: half and quarter of what ``fused`` added, by these packages.

A peer that finds requests but reads none (the first three) has the intents and slots of ``fused_seeds``. Thresholds are
tuned as the recipe's: by four folds of the seeds and of others' requests, what is not annotated in every training.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gristmill.actors.requests.function_reader import Detect, DetectSettings
from gristmill.actors.requests.propagation import PropagationSettings
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.nlu.domain import log_sigmoid
from gristmill.models.requests.diversity import DiversitySettings
from gristmill.pipelines.command.planfile import read_plan
from gristmill.pipelines.graph import DONE
from gristmill.pipelines.requests.diversity import choose
from gristmill.pipelines.requests.expand import SHARES
from gristmill.pipelines.requests.expand_parts import FunctionCell
from gristmill.pipelines.requests.expand_scores import REPLICATES, read_cell
from gristmill.pipelines.requests.expand_systems import (
    CellSystems,
    FunctionRecogniserSettings,
    SelfTrainingSettings,
)
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import find_sealed, open_sealed
from gristmill.shards.step import Step

import numpy as np
import pyarrow as pa

from benchmarks.request_peers import TUNED_PAIRS, Requests, cleaned, projection, selected, self_training, tuned

PACKAGES = {"cleanlab": "cleanlab", "apricot": "apricot-select", "submodlib": "submodlib-py"}
COLUMNS = ("f1", "f1_half", "semer", "semer_half", "false_accept", "false_accept_half")
COMPARED = ("f1", "semer")
WITHOUT_POOL = ("fused_seeds", "projection", "projection_grams", "tuned", "tuned_grams")


def cells_of(out: str) -> Iterator[FunctionCell]:
    """Yield the cells of a run whose parts are made, in the order of their draws."""
    nodes = (read_plan(out) or {}).get("run", {}).get("nodes", [])
    planned = {one["name"]: f"{out}/{one['path']}" for one in nodes if one.get("path") and one["state"] == DONE}

    def place(name: str) -> str | None:
        if name in planned:
            return planned[name]
        made = [str(one) for one in Path(out, name).glob("*") if find_sealed(str(one))]
        return made[0] if len(made) == 1 else None  # of an earlier start, which this one has not come to yet

    found = []
    for name in {one["name"] for one in nodes}:
        if match := re.fullmatch(r"seeds_(.+)_(\d+)_(\d+)", name):
            function, count, draw = match[1], int(match[2]), int(match[3])
            names = name, f"others_{function}_{draw}", f"pool_{function}_{count}_{draw}", f"test_{function}_{draw}"
            urls = [url for url in map(place, names) if url]
            if len(urls) == len(names):
                found.append((draw, count, function, urls))
    for draw, count, function, urls in sorted(found):
        yield FunctionCell(function, draw, count, *map(open_sealed, urls))


def by_packages(requests: Requests, rows: int) -> Iterator[tuple[str, pa.Table]]:
    """Yield what other packages keep of the added rows; of one that is not installed, nothing."""
    if importlib.util.find_spec("cleanlab"):
        yield "cleanlab", cleaned(requests)
    for how in ("apricot_facility", "apricot_features", "submodlib_facility"):
        for part, share in SHARES.items():
            if importlib.util.find_spec(how.split("_")[0]):
                yield f"{how}_{part}", selected(requests, how, max(1, round(share * rows)))


def by_scores(given: Requests, embedder: str, steps: int) -> dict[str, Callable[[], dict[str, dict[str, Any]]]]:
    """Return the peers that score requests, by the name of their result."""
    found = {
        "self_training": lambda: {"self_training": self_training(given)},
        "self_training_k": lambda: {"self_training_k": self_training(given, criterion="k_best")},
        "projection": lambda: projection(given),
    }
    return found | {"tuned": lambda: tuned(given, embedder, steps)}


def kept(path: Path, make: Callable[[], dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return scores that an earlier start has made, or make them."""
    if not path.exists():
        begun = time.process_time()
        found = {name: {key: np.asarray(own).tolist() for key, own in one.items()} for name, one in make().items()}
        print(json.dumps({"scores": path.name, "cpu_seconds": round(time.process_time() - begun, 1)}), flush=True)
        path.write_text(json.dumps(found))
    return json.loads(path.read_text())


def measured(cell: FunctionCell, config: dict[str, Any], work: Path, steps: int, without: Sequence[str]) -> Measured:
    """Return the metrics of all systems in the test of a cell, and the numbers of rows that they add to the seeds."""
    assert cell.test is not None
    fused = FunctionRecogniserSettings.model_validate(config["fused"])
    given = config.get("propagation")
    propagation = None if given is None else PropagationSettings.model_validate(given)
    run = Run(str(work / cell.name), InProcessRunner())
    systems = CellSystems(run, cell, SelfTrainingSettings.model_validate(config["training"]))
    models = {"fused_seeds": systems.recogniser("fused_seeds", fused)}
    whole = systems.self_trained("fused", fused, models["fused_seeds"], propagation)
    models["fused"], sets = whole.model, {"fused": whole.added}
    for part, share in SHARES.items():
        wanted = DiversitySettings(selector=config["selector"], share=share, seed=cell.draw)
        sets[f"diverse_{part}"] = choose(run, f"diverse_{part}_{cell.name}", whole.added, wanted, cell.seeds)
    requests = Requests(cell, whole, systems.filtered("1"), fused)
    for name, table in by_packages(requests, whole.added.records):
        sets[name] = run.table(f"{name}_{cell.name}", table)
    models |= {name: systems.recogniser(name, fused, added) for name, added in sets.items() if name != "fused"}
    refs: Any = {f"read_{name}": model.ref for name, model in models.items()}
    detect = Detect.stage(DetectSettings(systems=tuple(models)), **refs)
    read = read_cell(
        cell.function, cell.draw, run.step(Step(f"tested_{cell.name}", (detect,), cell.test)), list(models)
    )
    assert list(read.ids) == requests.test["id"].to_pylist()
    found = dict(read.systems)
    for name, make in by_scores(requests, config["embedder"]["embedder"], steps).items():
        path = work / cell.name / f"{name}.json"
        if name in (*without, *([] if steps else ["tuned"])) and not path.exists():
            continue
        for system, one in kept(path, make).items():
            sure = log_sigmoid(np.array(one["test"])).astype(np.float32)
            limit = float(np.float32(log_sigmoid(np.array(one["threshold"]))))
            found[system] = replace(found["fused_seeds"], logprob=sure, threshold=limit)
    numbers = {name: one.numbers(np.arange(len(read.ids))) for name, one in found.items()}
    return Measured(cell.function, numbers, {name: one.records for name, one in sets.items()})


@dataclass(frozen=True)
class Measured:
    """The metrics of all systems in one cell, and how many rows each adds to the seeds."""

    function: str
    systems: dict[str, dict[str, float]]
    rows: dict[str, int]


@dataclass(frozen=True)
class Figures:
    """The metrics of all systems over cells; intervals are of a bootstrap over functions, paired."""

    cells: Sequence[Measured]

    def values(self, system: str, metric: str) -> np.ndarray:
        """Return the metric over all cells, and over resamples."""
        functions = sorted({cell.function for cell in self.cells})
        own = [cell.systems[system][metric] for cell in self.cells]
        rng = np.random.Generator(np.random.Philox(0))
        share = [1 / len(functions)] * len(functions)
        drawn = np.stack([np.ones(len(functions)), *rng.multinomial(len(functions), share, REPLICATES)])
        weights = drawn[:, [functions.index(cell.function) for cell in self.cells]]
        return (weights / weights.sum(1, keepdims=True)) @ np.array(own)

    def difference(self, system: str, other: str, metric: str) -> str:
        """Return the difference to another system in points, with its interval."""
        found = 100 * (self.values(system, metric) - self.values(other, metric))
        low, high = np.percentile(found[1:], [2.5, 97.5])
        return f"{found[0]:+.1f} ({low:+.1f} to {high:+.1f})"


def beside(system: str) -> str:
    """Return which of our systems has as much to learn from."""
    part = next((f"diverse_{part}" for part in SHARES if system.endswith(part)), "fused")
    return "fused_seeds" if system in WITHOUT_POOL else part


def table(cells: Sequence[Measured], systems: Sequence[str]) -> None:
    """Print the figures, and each system beside ours."""
    figures = Figures(cells)
    print(f"\n{len(cells)} cells of {len({cell.function for cell in cells})} functions")
    print("| system | rows added | " + " | ".join(COLUMNS) + " | beside | F1, points | SemER, points | F1 to fused |")
    print("| --- " * (len(COLUMNS) + 6) + "|")
    for name in systems:
        rows = f"{np.mean([one.rows[name] for one in cells]):.0f}" if name in cells[0].rows else ""
        whole = [f"{100 * figures.values(name, metric)[0]:.2f}" for metric in COLUMNS]
        other = beside(name) if beside(name) != name else "fused"
        apart = [figures.difference(name, other, metric) if name != other else "" for metric in COMPARED]
        last = figures.difference(name, "fused", "f1") if name != "fused" else ""
        print("| " + " | ".join([name, rows, *whole, other, *apart, last]) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--functions", nargs="*", help="only these")
    parser.add_argument("--tuned", nargs="*", default=[], help="functions for which the encoder is tuned")
    parser.add_argument("--steps", type=int, default=60, help=f"steps of the encoder, of {TUNED_PAIRS} pairs each")
    parser.add_argument(
        "--without", nargs="*", default=[], help="scores that are left out: self_training, projection ..."
    )
    parser.add_argument("--table", action="store_true", help="only the tables of the cells that are measured")
    args = parser.parse_args()
    config = json.loads((Path(args.out) / "config.json").read_text())
    for module, package in PACKAGES.items():
        if not importlib.util.find_spec(module):
            print(f"{package}: not installed, left out")
    found = []
    for cell in cells_of(args.out):
        wanted = cell.count == config["requests"][0] and cell.draw in config["seeds"][: args.draws]
        if not wanted or (args.functions and cell.function not in args.functions):
            continue
        path = args.work / f"{cell.name}.json"
        if not args.table:
            steps = args.steps if cell.function in args.tuned else 0
            made = measured(cell, config, args.work, steps, args.without)
            path.write_text(json.dumps(asdict(made)))
            print(json.dumps({"cell": cell.name, "f1": round(made.systems["fused"]["f1"], 3)}), flush=True)
        if path.exists():
            found.append(Measured(**json.loads(path.read_text())))
    if not found:
        sys.exit(f"{args.out}: no cell is made; expected a run of configs/expand-hwu64.yaml")
    everywhere = [name for name in found[0].systems if all(name in one.systems for one in found)]
    table(found, everywhere)
    for scores in ("projection", "tuned"):  # which may be there of some cells only
        some = [one for one in found if scores in one.systems]
        if 0 < len(some) < len(found):
            table(some, ["fused_seeds", "fused", *(name for name in some[0].systems if name.startswith(scores))])


if __name__ == "__main__":
    main()
