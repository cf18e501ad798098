"""The fingerprints of a recipe's steps and trainings, without its work; ``python -m tests.fingerprints`` keeps them.

A recipe is run on stand-ins: a set has a few rows of its schema, an artifact the files that recipes look into. A
fingerprint is taken with the names of inputs in place of their digests: it covers what the recipe itself says.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import importlib
import json
import os
import pkgutil
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gristmill  # before what it pins

# isort: split
import numpy as np
import pyarrow as pa
import soundfile
import torch
from pydantic_core import PydanticUndefined, to_jsonable_python

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.speech.acoustic import AcousticModel, AcousticSettings
from gristmill.models.speech.checkpoint import save_acoustic
from gristmill.models.speech.features import FeatureSettings
from gristmill.models.speech.units import characters
from gristmill.models.text.translator_units import TranslatorUnitSettings, fit_units
from gristmill.pipelines.config import load
from gristmill.pipelines.results import SourceWork
from gristmill.pipelines.run import Run
from gristmill.shards import canonical, store
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet, ShardEntry
from gristmill.shards.job import BuildJob, TrainJob
from gristmill.shards.plan import PlanNode
from gristmill.shards.settings import Settings
from gristmill.shards.step import Step

ROOT = Path(__file__).resolve().parent.parent
_NUMBERED = re.compile(r"(_(1-)?\d+)+$")  # the size, seed or round at the end of a name
ROWS = 60  # of a set that stands in
KEPT = Path(__file__).with_suffix(".json")
# Files of artifacts that recipes look into while they run.
FEW = "few"  # a domain of one request
FILES: dict[str, Any] = {
    "units.json": {"kind": "characters", "tokens": ["<blank>", *" abcdefghijklmnopqrstuvwxyz'"]},
    "domains.json": [FEW, "lights", "music"],
    "choice.json": {way: {"weight": 0.5, "least": -9.5} for way in ("rescoring", "filtering", "together")},
    "training.json": {"curves": []},
}
_TURN = {"dialogue": "d", "turn": "0", "text": "wake me", "service": "a", "services_that_take_these_slots": "a b"}
SESSION_FILES = {
    "nlu/slurp/devel.jsonl": json.dumps(
        {"slurp_id": 1, "sentence_annotation": "wake me", "scenario": "alarm", "action": "set"}
    ),
    "overview/rephrase/slurp_recordings.jsonl.gz": json.dumps({"sentence": "wake me", "asr_text": "wake me"}),
    "overview/rephrase/snips_same_meaning_groups.jsonl.gz": json.dumps({"wordings": ["wake me", "set an alarm"]}),
    "overview/rephrase/disfl_qa_dev.tsv.gz": "squad_id\toriginal\tdisfluent\n1\twhen?\twho no when?\n",
    "overview/rephrase/hwu64_typed_vs_normalised.jsonl.gz": json.dumps(
        {"annotation": "wake me", "typed": "wake me", "changed": []}
    ),
    "overview/skills/sgd_new_intent_turns.tsv.gz": "\t".join([*_TURN, "state"])
    + "\n"
    + "\t".join([*_TURN.values(), "{}"])
    + "\n",
    "overview/sessions/sgd_sessions.jsonl.gz": json.dumps({"id": "d", "services": [], "events": []}),
}


@dataclass(frozen=True)
class Stand(SealedSet):
    """A sealed set of a few rows that stands for a real one."""

    kind: pa.Schema = field(default_factory=lambda: pa.schema([]))

    @property
    def schema(self) -> pa.Schema:  # type: ignore[override]
        """The schema that the real set would have."""
        return self.kind

    @property
    def shards(self) -> list[ShardEntry]:  # type: ignore[override]
        """One shard."""
        return [ShardEntry("data/000000.parquet", "", ROWS, 1, "", name="000000")]

    def read(self, shard: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows."""
        rows = [{f.name: _value(f.type, f.name, row) for f in self.kind} for row in range(ROWS)]
        table = pa.Table.from_pylist(rows, schema=self.kind)
        return table if columns is None else table.select(list(columns))


def _value(kind: pa.DataType, name: str, row: int) -> Any:
    if name == "part":
        return ("train", "dev", "test")[row % 3]
    if name == "domain":
        return FEW if row == 0 else FILES["domains.json"][1 + row % 2]
    if name == "fold":
        return row // 2 % 3 - 1  # -1 is the test part
    if pa.types.is_string(kind):
        return f"x{row}"
    if pa.types.is_boolean(kind):
        return True
    if pa.types.is_floating(kind):
        return 1.0
    if pa.types.is_integer(kind):
        return -1
    if pa.types.is_struct(kind):
        return {f.name: _value(f.type, f.name, row) for f in kind}
    return None if not pa.types.is_list(kind) else []


@dataclass(frozen=True)
class StandArtifact(Artifact):
    """An artifact that stands for a real one."""

    def read(self, name: str) -> bytes:
        """Return a file as recipes look into it."""
        return json.dumps(FILES[name]).encode() if name in FILES else b""


@dataclass
class Paper(Run):
    """A run on paper: notes the fingerprint of what a recipe asks for."""

    noted: dict[str, list[str]] = field(default_factory=dict)

    def _set(self, name: str, schema: pa.Schema) -> Stand:
        seal = {"name": name, "digest": name, "quarantined": 0, "rejected": 0, "reasons": {}, "errors": {}}
        seal["shards"] = [{"rows": ROWS, "totals": {}}]
        return Stand(store.join(self.out, name), seal, schema)

    def _note_identity(self, name: str, identity: Any) -> None:
        self.noted.setdefault(name, []).append(canonical.digest(identity)[:12])

    def make_source(self, node: PlanNode, source: SourceWork) -> None:
        """Look at the first table for its schema."""
        self.plan.finish(node, self._set(source.name, next(iter(source.tables())).schema))

    def make_step(self, node: PlanNode, step: Step) -> None:
        """Note a step."""
        self._note_identity(step.name, step.identity(self.seed))
        self.plan.finish(node, self._set(step.name, step.schema))

    def make_built(self, node: PlanNode, job: BuildJob) -> None:
        """Stand in for an artifact."""
        place = store.join(self.out, job.name)
        self.plan.finish(node, StandArtifact(place, job.name, {"model.safetensors": ""}, {}))

    def make_trainings(self, nodes: Sequence[PlanNode], jobs: Sequence[TrainJob]) -> None:
        """Note the trainings; equal ones are one."""
        for node, job in zip(nodes, jobs, strict=True):
            self._note_identity(job.name, job.identity())
            digest = f"{job.name}/{self.noted[job.name][-1]}"
            made = StandArtifact(store.join(self.out, digest), digest, {"model.safetensors": ""}, {})
            files = translator_files() if "translator" in job.name else {}
            files = acoustic_files() if job.name == "teacher" else files
            for file, data in files.items():  # stages that use the model look into them
                store.write_bytes(store.join(made.url, file), data)
            self.plan.finish(node, made)


@functools.cache
def acoustic_files() -> dict[str, bytes]:
    """Return a small acoustic model, as files."""
    torch.manual_seed(0)
    units = characters(["abc"])
    model = AcousticModel(AcousticSettings(dim=16, layers=1, heads=2, channels=4), 64, len(units))
    features = FeatureSettings(sampling_rate=16000, n_mels=64)
    return {"model.safetensors": save_acoustic(model, units, features)}


@functools.cache
def translator_files() -> dict[str, bytes]:
    """Return the units of a small translator, as files."""
    letters = [chr(code) for code in range(0x905, 0x940)]
    hindi = ["".join(letters[n % 50 : n % 50 + 4]) for n in range(400)]
    english = ["".join(chr(97 + (n * k) % 26) for k in (1, 3, 5, 7)) for n in range(400)]
    return fit_units(english, hindi, "en", "hi", TranslatorUnitSettings(units=150)).to_files()


def make_data(folder: Path) -> None:
    """Make files of the kinds that the configs of real data name."""
    for name in ("digits", "kathleen", "librispeech-unlabelled", "coffee-orders", "librispeech-dev"):
        place = folder / "speech" / name
        place.mkdir(parents=True)
        rows = []
        for number in range(4):
            soundfile.write(place / f"{number}.wav", np.zeros(8000, np.int16), 8000)
            rows.append({"audio_filepath": f"{number}.wav", "duration": 1.0, "speaker": str(number), "text": "one"})
        (place / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lists = "".join(f'{number}\tone\t["one"]\t["one", "two"]\n' for number in range(4))
    (folder / "speech" / "librispeech-dev" / "biasing_100.tsv").write_text(lists)
    (folder / "bias").mkdir()
    for name in ("all_rare_words", "common_words_5k"):
        (folder / "bias" / f"{name}.txt").write_text("one\ntwo\n")
    for name, key in (("bold/bold", "wikipedia"), ("rc/squadshifts_new_wiki", "context")):
        place = folder / "overview" / f"{name}.jsonl.gz"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(gzip.compress(json.dumps({key: "one two"}).encode()))
    for name, text in SESSION_FILES.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    place = folder / "nlu" / "hwu64" / "train"
    place.mkdir(parents=True)
    header = "answerid;scenario;intent;answer_annotation;notes"
    (place / "alarm_set.csv").write_text(f"{header}\n1;alarm;set;wake me at [time : nine];\n")
    place = folder / "nlu" / "snips" / "train"
    place.mkdir(parents=True)
    for name, line in (("seq.in", "wake me at nine"), ("seq.out", "O O O B-time"), ("label", "set")):
        (place / name).write_text(f"{line}\n")
    (folder / "pool.txt").write_text("wake me at ten\n")
    place = folder / "parallel"
    place.mkdir()
    for name in ("debian_mo", "android", "lohelp", "tatoeba"):
        (place / f"{name}_en_hi.tsv").write_text("turn it on\tचालू करो\n")


def of_config(path: Path, out: str, overrides: Sequence[str] = ()) -> dict[str, str]:
    """Return a digest of the fingerprints of each step and training, by name; those of all seeds and sizes are one."""
    loaded = load(str(path), [*overrides, f"out={out}"])
    paper = Paper(out, InProcessRunner(), loaded.common.seed, seeds=list(loaded.common.seeds))
    try:
        loaded.run(loaded.config, paper)
    except Exception as error:
        # Rows that stand in may carry no evaluation; what is missing of the plan is seen beside what is kept.
        print(f"{path.stem}: on paper up to {list(paper.noted)[-1:]} ({type(error).__name__}: {error})")
    paper.finish()
    alike: dict[str, set[str]] = {}
    for name, noted in paper.noted.items():
        alike.setdefault(_NUMBERED.sub("", name), set()).update(f"{name} {one}" for one in noted)
    return {name: canonical.digest(sorted(noted))[:12] for name, noted in alike.items()}


def settings_classes() -> list[type[Settings]]:
    """Return all settings classes of the package."""
    for module in pkgutil.walk_packages(gristmill.__path__, "gristmill."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # of an extra that is not installed
                importlib.import_module(module.name)
    found: dict[str, type[Settings]] = {}
    waiting = list(Settings.__subclasses__())
    while waiting:
        one = waiting.pop()
        waiting += one.__subclasses__()
        if one.__module__.startswith("gristmill.") and "." not in one.__qualname__:  # not those of examples
            found[f"{one.__module__.removeprefix('gristmill.')}:{one.__qualname__}"] = one
    return [found[name] for name in sorted(found)]


def defaults() -> dict[str, dict[str, Any]]:
    """Return the defaults of all settings by class and field."""
    found = {}
    for one in settings_classes():
        values = {}
        for name, about in one.model_fields.items():
            default = about.get_default(call_default_factory=True)
            if default is not PydanticUndefined:
                values[name] = to_jsonable_python(default)
        found[f"{one.__module__.removeprefix('gristmill.')}:{one.__qualname__}"] = values
    return found


def fingerprints() -> dict[str, dict[str, str]]:
    """Return those of all recipes in ``configs/``."""
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder, "data"))
        os.environ["GRISTMILL_DATA"] = str(Path(folder, "data"))
        # Sources are in no fingerprint: a few requests do.
        few = [f"in_domain.{part}_records={n}" for part, n in (("reference", 2), ("target", 20), ("source", 10))]
        more = {"bootstrap-lm": [*few, "pairs.records=20"], "bootstrap-lm-hi": few}
        said = ["sessions.bank.meanings=20", "skill_requests.generated.records=20"]
        more |= dict.fromkeys(("sessions", "sessions-slurp"), said)
        more["distill-debian-noise"] = [f"noise.folder={folder}/data/speech/digits"]
        # All functions and draws are alike: one does.
        one = ["seeds=[0]", "functions=[{name: alarm, intents: [set]}]"]
        more |= dict.fromkeys(("expand", "expand-hwu64", "expand-snips"), one)
        place = Path(folder, "data", "nlu", "hwu64", "train")
        apart = shutil.copytree(place, Path(folder, "data", "held_out"))
        own = f"own=[{{name: alarm, seeds: {place}, test: {apart}}}]"
        more["expand-own"] = [f"corpus.places={place}", f"pool={folder}/data/pool.txt", own]
        configs = [path for path in sorted((ROOT / "configs").glob("*.yaml")) if path.stem != "fleet"]
        return {path.stem: of_config(path, f"{folder}/{path.stem}", more.get(path.stem, ())) for path in configs}


def as_text(kept: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return what is kept, a line each name: a change is seen where it is."""
    parts = []
    for part, groups in kept.items():
        lines = [f"  {json.dumps(key)}: {json.dumps(values)}" for key, values in groups.items()]
        if part == "fingerprints":
            lines = []
            for key, values in groups.items():
                inner = ",\n".join(f"   {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items())
                lines.append(f"  {json.dumps(key)}: {{\n{inner}\n  }}")
        parts.append(f" {json.dumps(part)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    KEPT.write_text(as_text({"fingerprints": fingerprints(), "defaults": defaults()}))
