"""What decides whether soft labels beat hard ones: variants of a distillation recipe, one setting at a time.

    python -m benchmarks.distillation_study CONFIG OUT [KEY=VALUE ...] [--variants VARIANTS.yaml] [--only NAME ...]
        [--seeds 0 1 2] [--speakers all|dev|test] [--systems student]

``VARIANTS.yaml`` maps the name of a variant to its overrides; ``KEY=VALUE`` are those of all variants. Each variant is
a run of the recipe in this process under ``OUT``, so that what variants have in common is made once, and a second run
of the script reads what the first made. Several processes may share ``OUT``, each with other seeds; a last one with all
seeds then prints the rows of all.

The speakers of the test set are dealt in two: settings are tuned on one half (``dev``) and confirmed on the other
(``test``). For each variant the script prints a JSON line: the teacher's entropy (nats per frame; of frames whose
likeliest unit is not the blank), the share of such frames whose likeliest unit has less than 0.9, the teacher's error
rate on the unlabelled speech; and for each test set the word error rates of hard labels and of the systems with the
relative change to hard labels, with its 95 % interval (paired: bootstrap over utterances or speakers, and seeds), and
the change of each seed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill.actors.speech.features import rows_of
from gristmill.actors.speech.training_data import TOPK_COLUMNS
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.measures.significance import relative_interval
from gristmill.models.measures.wer import WerResult, score
from gristmill.models.speech import topk
from gristmill.pipelines.config import load
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet, open_sealed
from gristmill.shards.process import prepare

import numpy as np
import pyarrow as pa
import yaml

BASELINE = "hard_labels"
TESTS = ("clean", "noisy", "rerecorded")
# What the comparison does not need, unless a variant asks for it.
SHORT = ("sweep.k=[]", "systems.multicondition.epochs=0.01", "systems.sequence.epochs=0.01")


def main() -> None:
    """Run the variants and print their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("out", type=Path)
    parser.add_argument("common", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--variants", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--speakers", choices=("all", "dev", "test"), default="dev")
    parser.add_argument("--systems", nargs="*", default=["student"])
    given = parser.parse_args()
    prepare()
    variants: dict[str, list[str]] = {"as it is": []}
    if given.variants:
        variants = yaml.safe_load(given.variants.read_text())
    for name, overrides in variants.items():
        if given.only and name not in given.only:
            continue
        begun = time.process_time()
        seeds = f"seeds={given.seeds}"
        loaded = load(given.config, [*SHORT, seeds, f"out={given.out.resolve()}", *given.common, *(overrides or [])])
        run = Run(loaded.common.out, InProcessRunner(), loaded.common.seed, seeds=given.seeds)
        loaded.run(loaded.config, run)
        run.finish()
        sets = {trace.name: open_sealed(trace.url) for trace in run.trace if trace.kind != "artifact" and trace.records}
        row: dict[str, Any] = {"variant": name, "seeds": given.seeds, **teacher(sets, given.seeds)}
        for test in TESTS:
            row[test] = compared(sets[f"transcripts_{test}"], given.seeds, given.systems, given.speakers)
        print(json.dumps({**row, "cpu_s": round(time.process_time() - begun)}), flush=True)


def teacher(sets: Mapping[str, SealedSet], seeds: list[int]) -> dict[str, Any]:
    """Return measures of the labels of the unlabelled speech, means over seeds."""
    spoken = _texts_of_unlabelled(sets)
    rows = []
    for seed in seeds:
        entropies, best, unsure, pairs = [], [], [], []
        labels = sets.get(f"labels_unlabelled_seed{seed}", sets.get("labels_unlabelled"))
        assert labels is not None
        for table in labels.tables(["id", "hypothesis", "topk_ids", "topk_logprobs", "tail_logmass"]):
            ids, logprobs, tail = (np.concatenate(rows_of(table[name])) for name in TOPK_COLUMNS)
            label = topk.unflatten(ids, logprobs, tail, len(ids) // len(tail))
            entropies.append(topk.entropy(label))
            best.append(label.ids[:, 0])
            unsure.append(label.logprobs[:, 0] < np.log(0.9))
            heard = zip(table["id"].to_pylist(), table["hypothesis"].to_pylist(), strict=True)
            pairs += [(spoken.get(key), text or "") for key, text in heard]
        entropy, letters, doubts = (np.concatenate(parts) for parts in (entropies, best, unsure))
        known = [(text, heard) for text, heard in pairs if text]
        rows.append(
            {
                "entropy": float(entropy.mean()),
                "entropy_letters": float(entropy[letters != 0].mean()),
                "unsure_letters": float(doubts[letters != 0].mean()),
                "letters": float((letters != 0).mean()),
                "teacher_wer_unlabelled": 100 * score([text for text, _ in known], [heard for _, heard in known]).wer
                if known
                else np.nan,
            }
        )
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def _texts_of_unlabelled(sets: Mapping[str, SealedSet]) -> dict[str, str]:
    """Return the texts that generated or joined utterances have, although the recipe does not see them."""
    if "requests_unlabelled" in sets:
        table = pa.concat_tables(sets["requests_unlabelled"].tables(["id", "text"]))
        return dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
    if "strings_unlabelled" in sets:
        digits = pa.concat_tables(sets["probed_digits"].tables(["id", "text"]))
        words = dict(zip(digits["id"].to_pylist(), digits["text"].to_pylist(), strict=True))
        table = pa.concat_tables(sets["strings_unlabelled"].tables(["id", "source_ids"]))
        return {row["id"]: " ".join(words[key] for key in row["source_ids"]) for row in table.to_pylist()}
    return {}


def compared(transcripts: SealedSet, seeds: list[int], systems: list[str], half: str) -> dict[str, Any]:
    """Return the error rates (%) on a half of the speakers, and relative changes to the baseline with intervals."""
    table = pa.concat_tables(transcripts.tables()).sort_by("id")
    speakers = table["speaker"].to_pylist()
    place = {name: number % 2 for number, name in enumerate(sorted(set(speakers)))}
    wanted = {"all": (0, 1), "dev": (0,), "test": (1,)}[half]
    table = table.filter(pa.array([place[name] in wanted for name in speakers]))
    texts, who = table["text"].to_pylist(), table["speaker"].to_pylist()

    def scored(system: str) -> dict[int, WerResult]:
        columns = {seed: table[f"hypothesis_{system}_{seed}"].to_pylist() for seed in seeds}
        return {seed: score(texts, [text or "" for text in column], who) for seed, column in columns.items()}

    base = scored(BASELINE)
    out: dict[str, Any] = {"words": int(base[seeds[0]].words.sum())}
    for system in ("teacher", BASELINE, *systems):
        runs = scored(system)
        out[system] = round(100 * float(np.mean([run.wer for run in runs.values()])), 2)
        if system in systems:
            found = relative_interval(runs, base)
            out[f"{system} to {BASELINE}"] = [round(100 * v, 1) for v in (found.value, found.low, found.high)]
            out[f"{system} by seed"] = [round(100 * (runs[seed].wer / base[seed].wer - 1), 1) for seed in seeds]
    return out


if __name__ == "__main__":
    main()
