"""An export is opened by its library from another working folder than it was written in: audio, texts, counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.pipelines.command.export import export_set
from tests.pipelines.command.test_export import FORMATS, HERE, corpus, expected

READERS = {
    "lhotse": """
import lhotse
for cut in lhotse.CutSet.from_file(dest + "/cuts.jsonl.gz"):
    said = cut.supervisions[0]
    add(cut.id, cut.load_audio()[0], cut.sampling_rate, said.text, cut.duration, said.speaker)
""",
    "webdataset": """
import glob, io, json, soundfile, webdataset
shards = [dest + "/" + one["url"] for one in json.load(open(dest + "/index.json"))["shardlist"]]
for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False):
    values = json.loads(sample["json"])
    sound = soundfile.read(io.BytesIO(sample["flac"]))
    add(values["id"], *sound, sample["txt"].decode(), values["duration"], values["speaker"])
""",
    "huggingface": """
import io, datasets, soundfile
read = datasets.load_dataset(dest, split="train", cache_dir=cache).cast_column("audio", datasets.Audio(decode=False))
for row in read:
    add(row["id"], *soundfile.read(io.BytesIO(row["audio"]["bytes"])), row["text"], row["duration"], row["speaker"])
""",
    # NeMo's manifests have paths beside the manifest: `get_full_path` of its collections.
    "nemo": """
import json, os, soundfile
for line in open(dest + "/manifest.jsonl"):
    row = json.loads(line)
    path = os.path.join(dest, row["audio_filepath"])
    add(row["id"], *soundfile.read(path), row["text"], row["duration"], row["speaker"])
""",
}
LIBRARIES = ("lhotse", "webdataset", "datasets")
PROGRAM = """
import json, sys
cache, found = sys.argv[1], []
for form, dest in json.loads(sys.argv[2]):
    def add(name, samples, rate, text, duration, speaker):
        pcm = [round(float(sample) * 32768) for sample in samples]
        found.append([form, dest, name, pcm, rate, text, duration, speaker])
    exec(json.loads(sys.argv[3])[form], dict(dest=dest, cache=cache, add=add))
print(json.dumps(found))
"""


@pytest.mark.slow
def test_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in LIBRARIES:
        pytest.importorskip(library)
    speech = corpus(tmp_path / "set")
    there = tmp_path / "here/elsewhere"
    there.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    places = []
    for form in FORMATS:
        export_set(speech.url, form, f"relative/{form}", settings=HERE)
        export_set(speech.url, form, f"{tmp_path}/absolute/{form}", settings=HERE)
        places += [(form, f"../relative/{form}"), (form, f"{tmp_path}/absolute/{form}")]
    done = subprocess.run(  # one for all, as each library takes seconds to import
        [sys.executable, "-c", PROGRAM, str(tmp_path / "cache"), json.dumps(places), json.dumps(READERS)],
        cwd=there,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for place in places:
        rows = [row[2:] for row in found if tuple(row[:2]) == place]
        assert len(rows) == speech.records, place
        assert {name: (samples, rate, text) for name, samples, rate, text, _, _ in rows} == expected(speech), place
        for _, samples, rate, _, duration, speaker in rows:
            assert duration == pytest.approx(len(samples) / rate, abs=0.5 / rate)
            assert speaker.startswith("speaker ")
