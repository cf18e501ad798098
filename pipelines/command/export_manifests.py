"""The last files of an export: manifests, cuts, the index or the dataset card, from streamed rows."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from gristmill.actors.export import PLACE_FIELDS, SOUND_FIELDS, json_values
from gristmill.shards import store
from gristmill.shards.dataset import SealedSet
from gristmill.shards.schema import AUDIO

Part = Iterator[bytes]
_LISTED = 1000  # maximum number of files that a card lists, in the order of the records
_OWN = {f.name for f in (*PLACE_FIELDS, *SOUND_FIELDS)}
# Columns with a standard field of their own in each format, left out of the custom ones.
_STANDARD = ("id", "text", "lang", "speaker", "duration", "sampling_rate")


@dataclass
class File:
    """A file that holds several records."""

    path: str
    bytes: int
    sha256: str
    records: int = 0


@dataclass
class Export:
    """A finished step of an export: the exported set, and the set of its rows."""

    source: SealedSet
    made: SealedSet
    dest: str  # URL
    columns: Sequence[str] = ()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows in the order of the set, with one shard at a time in memory."""
        for table in self.made.tables():
            yield from table.to_pylist()

    def files(self) -> list[File]:
        """Return the files that hold the records, in the order of the set."""
        found: dict[str, File] = {}
        for row in self.rows():
            path = row["file_path"]
            found.setdefault(path, File(path, row["file_bytes"], row["file_sha256"])).records += 1
        return list(found.values())


def manifests(form: str, export: Export) -> dict[str, Callable[[], Part]]:
    """Return a generator of the bytes of each closing file of an export, by name, in the order of writing."""
    if form == "nemo":
        return {"manifest.jsonl": lambda: (_line(nemo_line(row)) for row in export.rows())}
    if form == "lhotse":
        kinds: dict[str, Callable[[Mapping[str, Any]], Any]] = {
            "recordings": partial(lhotse_recording, dest=export.dest),
            "supervisions": lhotse_supervision,
            "cuts": partial(lhotse_cut, dest=export.dest),
        }
        return {f"{name}.jsonl.gz": _packed(export, make) for name, make in kinds.items()}
    if form == "webdataset":
        return {"index.json": lambda: iter([index(export)])}
    return {"README.md": lambda: iter([card(export)])}


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _packed(export: Export, make: Callable[[Mapping[str, Any]], Any]) -> Callable[[], Part]:
    def parts() -> Part:
        out = io.BytesIO()
        # Without gzip's time stamp and file name, so that equal lines give equal bytes.
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=out, mtime=0) as packed:
            for row in export.rows():
                value = make(row)
                if value is not None:
                    packed.write(_line(value))
                if out.tell() > 1 << 20:
                    yield out.getvalue()
                    out.seek(0)
                    out.truncate()
        yield out.getvalue()

    return parts


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    return json_values({key: value for key, value in row.items() if key not in _OWN})


# --- NeMo


def nemo_line(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as a line of a NeMo manifest; the path is relative to the manifest's folder."""
    values = _values(row)
    own = {"audio_filepath": row["file_path"], "duration": row["file_samples"] / row["file_rate"]}
    own |= {key: values[key] for key in ("text", "lang", "speaker") if key in values}
    rest = {key: value for key, value in values.items() if key not in _STANDARD}
    return {**own, "sampling_rate": row["file_rate"], "id": row["id"], **rest}


# --- Lhotse


def lhotse_recording(row: Mapping[str, Any], dest: str) -> dict[str, Any]:
    """Return a record's audio below ``dest`` as a Lhotse ``Recording``.

    The place is whole, as Lhotse takes a relative one to be below the folder in which a program runs.
    """
    kind = "file" if store.is_local(dest) else "url"
    return {
        "id": row["id"],
        "sources": [{"type": kind, "channels": [0], "source": store.join(dest, row["file_path"])}],
        "sampling_rate": row["file_rate"],
        "num_samples": row["file_samples"],
        "duration": row["file_samples"] / row["file_rate"],
        "channel_ids": [0],
    }


def lhotse_supervision(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a record's labels as a Lhotse ``SupervisionSegment``; ``None`` if it has none."""
    values = _values(row)
    labels = {
        key: values[name]
        for key, name in (("text", "text"), ("language", "lang"), ("speaker", "speaker"))
        if name in values
    }
    custom = {key: value for key, value in values.items() if key not in _STANDARD}
    if not labels and not custom:
        return None
    length = row["file_samples"] / row["file_rate"]
    place = {"id": row["id"], "recording_id": row["id"], "start": 0.0, "duration": length, "channel": 0}
    return {**place, **labels, **({"custom": custom} if custom else {})}


def lhotse_cut(row: Mapping[str, Any], dest: str) -> dict[str, Any]:
    """Return a record as a Lhotse ``MonoCut`` of its whole recording."""
    supervision = lhotse_supervision(row)
    return {
        "id": row["id"],
        "start": 0.0,
        "duration": row["file_samples"] / row["file_rate"],
        "channel": 0,
        "supervisions": [] if supervision is None else [supervision],
        "recording": lhotse_recording(row, dest),
        "type": "MonoCut",
    }


# --- WebDataset


def index(export: Export) -> bytes:
    """Return the index of the tars, in the form of WebDataset's own shard index."""
    shards = [
        {"url": file.path, "nsamples": file.records, "filesize": file.bytes, "sha256": file.sha256}
        for file in export.files()
    ]
    whole = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "name": export.source.name,
        "gristmill": provenance(export),
        "shardlist": shards,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False).encode()


# --- Hugging Face


def provenance(export: Export) -> dict[str, Any]:
    """Return the digests of a set and its inputs; no URLs, which could name a machine or carry a credential."""
    source = export.source
    whole = {
        "set": source.name,
        "digest": source.digest,
        "fingerprint": source.seal.get("fingerprint"),
        "inputs": source.seal.get("input_digests"),
        "artifacts": source.seal.get("artifacts"),
    }
    return {key: value for key, value in whole.items() if value}


def card(export: Export) -> bytes:
    """Return the dataset card: front matter for ``datasets`` and the Hub, then the same as readable text."""
    import yaml

    source, files = export.source, export.files()
    split = source.name if source.name in ("test", "validation") else "train"
    size = sum(file.bytes for file in files)
    listed = [file.path for file in files] if len(files) <= _LISTED else "data/*.parquet"
    schema = source.schema
    front = {
        "license": "unknown",
        "pretty_name": source.name,
        "dataset_info": {
            "features": [
                {"name": name, **feature(schema.field(name).type)} for name in schema.names if name in export.columns
            ],
            "splits": [{"name": split, "num_bytes": size, "num_examples": export.made.records}],
            "download_size": size,
            "dataset_size": size,
        },
        "configs": [{"config_name": "default", "data_files": [{"split": split, "path": listed}]}],
        "gristmill": provenance(export),
    }
    seal = source.seal
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {source.name}",
        "",
        "The licence is unknown: it is that of the source recordings and texts.",
        "",
        "| | |",
        "| --- | --- |",
        f"| records | {export.made.records} |",
        f"| hours of audio | {source.total('duration') / 3600:.3f} |",
        f"| rejected records | {seal['rejected']} |",
        f"| quarantined records | {seal['quarantined']} |",
        f"| digest of the set | `{source.digest}` |",
    ]
    lines += [f"| made from | `{digest}` |" for digest in seal.get("input_digests") or []]
    lines += [f"| with {name} | `{digest}` |" for name, digest in sorted((seal.get("artifacts") or {}).items())]
    for key, value in sorted((schema.metadata or {}).items()):
        if key != b"huggingface":
            lines += ["", f"`{key.decode()}`:", "", "```", value.decode(), "```"]
    return "\n".join([*lines, ""]).encode()


def feature(kind: pa.DataType) -> dict[str, Any]:
    """Return a column's type in the notation of a card's front matter."""
    if kind == AUDIO:
        return {"dtype": "audio"}
    if pa.types.is_struct(kind):
        return {"struct": [{"name": inner.name, **feature(inner.type)} for inner in kind]}
    for test, name in ((pa.types.is_large_list, "large_list"), (pa.types.is_list, "list")):
        if test(kind):
            inner = feature(kind.value_type)
            return {name: inner.get("dtype", inner.get("struct", inner))}
    if pa.types.is_fixed_size_list(kind):
        return {**feature(pa.list_(kind.value_type)), "length": kind.list_size}
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return {"dtype": names.get(str(kind), str(kind))}
