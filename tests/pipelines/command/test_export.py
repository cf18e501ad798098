"""Exports, read back by each format's library and by our ingest; laws 1, 3 and 4 at the destination."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from gristmill.actors.audio import encode
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.ingest import Load, LoadSettings, Probe, ProbeSettings, read_audio
from gristmill.pipelines.command.export import BOOKS, export_set
from gristmill.shards import store
from gristmill.shards.dataset import SealedSet, seal_tables
from gristmill.shards.errors import UserError
from gristmill.shards.schema import SPEECH, TOPK_FIELDS
from gristmill.shards.walking import walk

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no requests: the files are local

FORMATS = ("huggingface", "nemo", "lhotse", "webdataset")
LAST = {"huggingface": "README.md", "nemo": "manifest.jsonl", "lhotse": "cuts.jsonl.gz", "webdataset": "index.json"}
HERE = ["runner=inprocess"]
SHARDS, ROWS = 3, 4

Heard = dict[str, tuple[list[int], int, str]]  # id -> samples, rate, text


def record(shard: int, row: int) -> dict:
    rate = (8000, 16000)[row % 2]
    samples = np.random.default_rng([shard, row]).uniform(-0.5, 0.5, rate // 4 + row).astype(np.float32)
    return {
        "id": f"talk/../ä {shard}/{row}.v1.wav",
        "audio": {"bytes": encode(samples, rate), "path": None},
        "sampling_rate": rate,
        "duration": len(samples) / rate,
        "text": f'söme "text" {shard} {row}',
        "lang": "en",
        "speaker": f"speaker {row}",
        "label_source": "gold",
        "confidence": 0.5,
        "topk_ids": [shard, row],
        "topk_logprobs": [np.float16(-0.5), np.float16(-1)],
        "tail_logmass": [np.float16(-2)],
        "topk_frames": 1,
    }


SCHEMA = pa.schema([*SPEECH, *TOPK_FIELDS], metadata={"gristmill.topk": '{"k": 2}'})


def corpus(url: Path, name: str = "speech") -> SealedSet:
    shards = ([record(shard, row) for row in range(ROWS)] for shard in range(SHARDS))
    return seal_tables(str(url), name, (pa.Table.from_pylist(rows, schema=SCHEMA) for rows in shards))


@pytest.fixture
def speech(tmp_path: Path) -> SealedSet:
    return corpus(tmp_path / "set")


def sound(data: bytes | str | Path) -> tuple[list[int], int]:
    samples, rate = soundfile.read(io.BytesIO(data) if isinstance(data, bytes) else data, dtype="int16")
    return samples.tolist(), rate


def expected(sealed: SealedSet) -> Heard:
    rows = [row for table in sealed.tables() for row in table.to_pylist()]
    return {row["id"]: (*sound(row["audio"]["bytes"]), row["text"]) for row in rows}


def tree(dest: Path | str) -> dict[str, str]:
    """Return a reader's view: digests of the files by path; Lhotse's have whole places, taken as below ``dest``."""

    def content(url: str) -> bytes:
        data = store.read_bytes(url)
        if not url.endswith(".jsonl.gz"):
            return data
        return gzip.decompress(data).replace(f"{dest}/".encode(), b"").replace(b'"type": "url"', b'"type": "file"')

    return {
        name: hashlib.sha256(content(info.url)).hexdigest()
        for info in walk(str(dest))
        if not (name := info.url.removeprefix(str(dest)).lstrip("/")).startswith(BOOKS)
    }


def cut(path: Path) -> None:
    os.truncate(path, 100)


# --- each format, by its own library


def test_huggingface_by_datasets(speech: SealedSet, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    yaml = pytest.importorskip("yaml")
    export_set(speech.url, "huggingface", str(tmp_path / "hf"), settings=HERE)
    read = datasets.load_dataset(str(tmp_path / "hf"), split="train", cache_dir=str(tmp_path / "cache"))
    assert read.features["audio"] == datasets.Audio()
    assert read.features["topk_ids"] == datasets.LargeList(datasets.Value("uint16"))
    rows = list(read.cast_column("audio", datasets.Audio(decode=False)))
    assert {row["id"]: (*sound(row["audio"]["bytes"]), row["text"]) for row in rows} == expected(speech)
    assert [row["id"] for row in rows] == list(expected(speech)), "the order is that of the set"
    assert (rows[1]["topk_ids"], rows[1]["topk_logprobs"], rows[1]["speaker"]) == ([0, 1], [-0.5, -1.0], "speaker 1")

    card = (tmp_path / "hf/README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["license"], front["gristmill"]["digest"]) == ("unknown", speech.digest)
    assert front["dataset_info"]["features"] == read.features._to_yaml_list()
    assert front["dataset_info"]["splits"][0]["num_examples"] == SHARDS * ROWS
    assert speech.digest in card.split("---\n")[2]
    assert '{"k": 2}' in card, "what the labels mean goes along"


def test_features_of_every_type_are_spelled_as_datasets_does(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from gristmill.pipelines.command.export_manifests import feature

    inner = pa.struct([("x", pa.int64()), ("y", pa.list_(pa.float32()))])
    types = [pa.string(), pa.float64(), pa.float16(), pa.bool_(), pa.binary(), pa.timestamp("us"), inner]
    types += [kind(value) for kind in (pa.list_, pa.large_list) for value in (pa.int8(), inner, pa.list_(pa.string()))]
    schema = pa.schema([(str(place), kind) for place, kind in enumerate([*types, pa.list_(pa.float32(), 3)])])
    wanted = datasets.Features.from_arrow_schema(schema)._to_yaml_list()
    assert [{"name": f.name, **feature(f.type)} for f in schema] == wanted


def test_nemo_by_the_rules_of_its_collections(speech: SealedSet, tmp_path: Path) -> None:
    """NeMo is too heavy for tests: its ``manifest.item_iter`` and ``__parse_item`` are reproduced here, line by
    line."""
    export_set(speech.url, "nemo", str(tmp_path / "nemo"), settings=HERE)
    manifest = tmp_path / "nemo/manifest.jsonl"
    heard = {}
    for line in manifest.read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        path = item.pop("audio_filepath")
        assert not os.path.isabs(path)
        assert len(path) < 255  # NeMo does not search longer ones beside the manifest
        samples, rate = sound(manifest.parent / path)
        assert item["duration"] == len(samples) / rate
        assert item.get("offset") is None, "each file is one whole record"
        assert item["speaker"].startswith("speaker")
        heard[item["id"]] = (samples, rate, item["text"])
    assert heard == expected(speech)


def test_lhotse_by_lhotse(speech: SealedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lhotse = pytest.importorskip("lhotse")
    dest = tmp_path / "lhotse"
    export_set(speech.url, "lhotse", str(dest), settings=HERE)
    monkeypatch.chdir(tmp_path)  # it is opened from anywhere
    cuts = lhotse.CutSet.from_file(dest / "cuts.jsonl.gz")
    heard = {}
    for cut in cuts:
        lhotse.validate(cut, read_data=True)
        samples = np.rint(cut.load_audio()[0] * 32768).astype(int).tolist()
        heard[cut.id] = (samples, cut.sampling_rate, cut.supervisions[0].text)
        assert cut.supervisions[0].custom["label_source"] == "gold"
        assert (cut.supervisions[0].language, cut.num_samples) == ("en", len(samples))
    assert heard == expected(speech)
    recordings = lhotse.RecordingSet.from_file(dest / "recordings.jsonl.gz")
    supervisions = lhotse.SupervisionSet.from_file(dest / "supervisions.jsonl.gz")
    lhotse.validate_recordings_and_supervisions(recordings, supervisions)
    assert lhotse.CutSet.from_manifests(recordings.to_eager(), supervisions.to_eager())[0].id.startswith(
        "talk/../ä 0/0"
    )


def test_webdataset_by_webdataset(speech: SealedSet, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    dest = tmp_path / "web"
    export_set(speech.url, "webdataset", str(dest), settings=HERE)
    shards = json.loads((dest / "index.json").read_text())["shardlist"]
    assert [shard["nsamples"] for shard in shards] == [ROWS] * SHARDS
    read = webdataset.WebDataset([str(dest / shard["url"]) for shard in shards], shardshuffle=False, empty_check=False)
    heard = {}
    for sample in read:
        values = json.loads(sample["json"])
        assert values["text"] == sample["txt"].decode()
        heard[values["id"]] = (*sound(sample["flac"]), sample["txt"].decode())
    assert heard == expected(speech)
    assert list(heard) == list(expected(speech)), "the order is that of the set"


# --- and by our own ingest


def ingested(dest: Path | str) -> list[tuple[list[float], int, str]]:
    """Return the output of our ingest, as decoded for the loader; the loader takes every record."""
    heard = []
    for table in list_sources(str(dest)):
        probed = Probe(ProbeSettings())(table)
        loaded = Load(LoadSettings(sampling_rate=8000))(probed)
        assert loaded["reject_reason"].null_count == len(loaded), loaded["reject_reason"].to_pylist()
        for found, row in zip(read_audio(probed.to_pylist()), loaded.to_pylist(), strict=True):
            assert not isinstance(found, str)
            heard.append((found[0].tolist(), found[1], row["text"]))
    return sorted(heard, key=lambda one: one[2])


@pytest.mark.parametrize("form", FORMATS)
def test_our_own_ingest_reads_an_export_back(form: str, speech: SealedSet, tmp_path: Path) -> None:
    export_set(speech.url, form, str(tmp_path / form), settings=HERE)
    wanted = [([sample / 32768 for sample in samples], rate, text) for samples, rate, text in expected(speech).values()]
    assert ingested(tmp_path / form) == sorted(wanted, key=lambda one: one[2])


@pytest.mark.parametrize("form", FORMATS)
def test_on_object_storage_it_has_the_same_bytes(
    form: str, speech: SealedSet, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    dest = f"{request.getfixturevalue('bucket')}/export-{tmp_path.name}/{form}"
    export_set(speech.url, form, str(tmp_path / form), settings=HERE)
    assert export_set(speech.url, form, dest, settings=HERE).fresh
    assert not export_set(speech.url, form, dest, settings=HERE).fresh
    assert tree(dest) == tree(tmp_path / form)
    assert ingested(dest) == ingested(tmp_path / form)


# --- the laws


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_ray_gives_the_same_bytes(speech: SealedSet, tmp_path: Path, form: str) -> None:
    pytest.importorskip("ray")
    export_set(speech.url, form, str(tmp_path / "here"), settings=HERE)
    export_set(speech.url, form, str(tmp_path / "there"), settings=["runner=ray", "workers=2"])
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


# --- exported and left-out columns


def test_columns_are_chosen(speech: SealedSet, tmp_path: Path) -> None:
    export_set(speech.url, "huggingface", str(tmp_path / "hf"), ["text", "topk_ids"], HERE)
    (first, *_) = (tmp_path / "hf/data").iterdir()
    assert pq.read_schema(first).names == ["id", "text", "topk_ids"]
    export_set(speech.url, "nemo", str(tmp_path / "nemo"), ["text", "topk_ids"], HERE)
    line = json.loads((tmp_path / "nemo/manifest.jsonl").read_text().splitlines()[1])
    assert set(line) == {"audio_filepath", "duration", "text", "sampling_rate", "id", "topk_ids"}
    assert line["topk_ids"] == [0, 1]


def test_a_set_without_audio_goes_to_huggingface_alone(tmp_path: Path) -> None:
    labels = pa.schema([pa.field("id", pa.string()), *TOPK_FIELDS, pa.field("where", pa.struct([("x", pa.int32())]))])
    rows = [{"id": str(n), "topk_ids": [n], "topk_frames": 1, "where": {"x": n}} for n in range(3)]
    sealed = seal_tables(str(tmp_path / "set"), "labels", [pa.Table.from_pylist(rows, schema=labels)])
    export_set(sealed.url, "huggingface", str(tmp_path / "hf"), settings=HERE)
    for form in FORMATS[1:]:
        with pytest.raises(UserError, match=f"{form}: the set has no audio"):
            export_set(sealed.url, form, str(tmp_path / form), settings=HERE)
        assert not (tmp_path / form).exists()
    datasets = pytest.importorskip("datasets")
    read = datasets.load_dataset(str(tmp_path / "hf"), split="train", cache_dir=str(tmp_path / "cache"))
    assert read[2]["topk_ids"] == [2]
    assert read[2]["where"] == {"x": 2}


@pytest.mark.parametrize("form", FORMATS[1:])
def test_records_without_audio_are_left_out_and_reported(form: str, tmp_path: Path) -> None:
    rows = [record(0, row) for row in range(4)]
    rows[0]["audio"] = {"bytes": None, "path": "elsewhere.flac"}
    rows[1]["audio"] = {"bytes": b"no audio", "path": None}
    stereo = io.BytesIO()
    soundfile.write(stereo, np.array([[0.25, 0.75], [-0.25, -0.75]] * 2000), 8000, format="WAV")
    rows[2] |= {"audio": {"bytes": stereo.getvalue(), "path": None}, "text": None, "confidence": float("nan")}
    sealed = seal_tables(str(tmp_path / "set"), "speech", [pa.Table.from_pylist(rows, schema=SCHEMA)])
    made = export_set(sealed.url, form, str(tmp_path / form), settings=HERE)
    assert (made.records, made.left_out) == (2, {"write: empty": 1, "write: unreadable": 1})
    pointers = pa.concat_tables(list_sources(str(tmp_path / form)))
    assert len(pointers) == 2
    loaded = Load(LoadSettings(sampling_rate=8000, annotated=False))(Probe(ProbeSettings())(pointers)).to_pylist()
    half = next(row for row in loaded if row["duration"] == 0.5)
    assert set(np.abs(sound(half["audio"]["bytes"])[0])) <= {16383, 16384}, "channels are averaged"


# --- the command


def test_a_set_is_found_by_its_name_in_a_run(gristmill, recipe: Path, tmp_path: Path) -> None:
    assert gristmill("run", recipe, "-q").exit_code == 0
    assert gristmill("run", recipe, "-q", "shape.width=2").exit_code == 0  # another upper and copies beside the first
    out = tmp_path / "out"
    made = gristmill("export", out / "upper", "huggingface", tmp_path / "hf", *HERE, "--quiet")
    assert made.exit_code == 0, made.stderr
    assert "exported 18 records" in made.stdout
    again = gristmill("export", out / "upper", "huggingface", tmp_path / "hf", *HERE, "-q", "--columns", "id,upper")
    assert again.exit_code == 2
    assert "with other columns" in again.stderr
    many = gristmill("export", out, "huggingface", tmp_path / "many", *HERE)
    assert many.exit_code == 2
    assert "contains several sets" in many.stderr
    same = ("export", out / "upper", "huggingface", tmp_path / "hf", *HERE, "-q")
    assert "nothing to do" in gristmill(*same).stdout
    cut(next(tmp_path.glob("hf/data/*")))
    mended = gristmill(*same)
    assert mended.exit_code == 0
    assert "1 file was damaged or missing, and written again" in mended.stdout
    for verb in ("audit", "repair"):
        told = gristmill(verb, tmp_path / "hf")
        assert told.exit_code == 2
        assert "is an export; the same `gristmill export` compares its files" in told.stderr
    assert "nothing to do" in gristmill(*same).stdout


def test_errors_are_reported_in_a_sentence(gristmill, speech: SealedSet, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    free = tmp_path / "free"
    for arguments, sentence in [
        ((speech.url, "nemo", taken), "contains something else (notes.txt)"),
        ((speech.url, "kaldi", free), "kaldi: there is no such format; expected one of huggingface, nemo"),
        ((tmp_path, "nemo", free, "runner=slurm"), "runner: 'slurm' is not right; expected 'ray' or 'inprocess'"),
        ((speech.url, "nemo", free, "seed=1"), "'seed=1': expected runner=ray, runner=inprocess or workers=N"),
        ((speech.url, "nemo", free, "--columns", "txt"), "--columns txt: there is no such column; expected some of id"),
        ((speech.url, "nemo", free, "--columns", "parent_id,audio,topk_ids,nope"), "nope"),
        ((taken, "nemo", free), "no sealed set is here or below"),
    ]:
        result = gristmill("export", *arguments, *([] if "=" in str(arguments[-1]) else HERE))
        assert result.exit_code == 2
        assert sentence in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert not free.exists()
    assert sorted(path.name for path in taken.iterdir()) == ["notes.txt"]
