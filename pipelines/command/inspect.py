"""Prints records in readable form: audio as its length and rate, long lists shortened."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.pipelines.progress import plural
from gristmill.shards import disk, store
from gristmill.shards.artifact import get_artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.finding import find_below
from gristmill.shards.interrupts import held
from gristmill.shards.parquet import read_table
from gristmill.shards.safe_text import escaped
from gristmill.shards.tombstone import again, refuse_cleaned

_NONE_OF = {"data": "records", "rejects": "rejects", "quarantine": "records in quarantine"}
_LIST = 6  # values shown of a list
_TEXT = 200  # characters shown of a text


def show_records(url: str, n: int, where: Sequence[str], side: str = "data", save_audio: str | None = None) -> None:
    """Print the first ``n`` matching records of each sealed set at or below a URL; of artifacts alone, their files.

    ``where`` holds ``column=value`` conditions. ``side`` is data, rejects or quarantine.
    """
    if save_audio is not None and store.is_local(save_audio):
        disk.try_folder(store.filesystem(save_audio)[1])
    below = find_below(url)
    for place, fault in below.unreadable.items():
        print(escaped(f"{place}: {fault}"), file=sys.stderr)
    found = below.sealed
    for one in below.cleaned.values() if found or below.artifacts else ():
        print(f"gristmill: {escaped(one.url)}: {one.tombstone.said}; {again(one.tombstone)}", file=sys.stderr)
    if not found and below.artifacts:
        for place in below.artifacts:
            print(f"{below.names[place]}  {place}  this is an artifact and has no records; its files:")
            artifact = get_artifact(place)
            print("".join(f"  {name}\n" for name in sorted(artifact.files if artifact else ())))
        return
    if not found:
        for place in below.cleaned:
            refuse_cleaned(place)
        raise UserError(
            f"{url}: no sealed set is here or below; expected the output of `gristmill run` or one of its sets"
        )
    conditions = [_condition(text) for text in where]
    columns = {name for sealed in found for name in _columns(sealed, side)}
    for name, _ in conditions:
        if name not in columns:
            raise UserError(f"--where {name}: no such column; expected one of {', '.join(sorted(columns))}")
    shown = 0
    for sealed in found:
        if any(name not in _columns(sealed, side) for name, _ in conditions):
            continue
        held = f"{plural(sealed.records, 'record')} in {plural(len(sealed.shards), 'shard')}"
        if side != "data":
            held = f"{sum(entry['rows'] for entry in sealed.seal[side])} in {side}; {held}"
        head = f"{escaped(f'{sealed.name}  {sealed.url}')}  {held}\n"
        for row in _rows(sealed, side, conditions, n):
            print(head, end="")
            head = ""
            shown += 1
            print("\n".join(f"  {escaped(line)}" for line in _lines(row)), end="\n\n")
            if save_audio is not None and isinstance(row.get("audio"), Mapping):
                _save(save_audio, row)
    if not shown:
        print("no record matches" if conditions else f"there are no {_NONE_OF[side]}")


def _columns(sealed: SealedSet, side: str) -> list[str]:
    return (
        sealed.schema.names if side == "data" else ["id", "origin", "stage", "reason" if side == "rejects" else "error"]
    )


def _condition(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise UserError(f"--where {text}: expected column=value")
    return name, value


def _rows(sealed: SealedSet, side: str, conditions: Sequence[tuple[str, str]], n: int) -> Iterator[dict[str, Any]]:
    left = n
    for file in sealed.shards if side == "data" else sealed.side(side):
        table = _fitting(read_table(sealed.url, file), conditions).slice(0, left)
        left -= table.num_rows
        yield from table.to_pylist()
        if left <= 0:
            return


def _fitting(table: pa.Table, conditions: Sequence[tuple[str, str]]) -> pa.Table:
    for name, value in conditions:
        column = table[name]
        try:
            wanted = pa.scalar(value).cast(column.type)
            table = table.filter(pc.equal(column, wanted))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # not a value of that type, or a type without equality
            raise UserError(f"--where {name}={value}: the column holds {column.type}; expected such a value") from None
    return table


def _lines(row: Mapping[str, Any]) -> Iterator[str]:
    width = max(map(len, row))
    for name, value in row.items():
        if value is not None:
            yield f"{name:<{width}}  {readable(value)}"


def readable(value: Any) -> str:
    """Return a value as one short line."""
    if isinstance(value, Mapping) and set(value) == {"bytes", "path"}:
        return _audio(value)
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, list):
        inner = ", ".join(readable(item) for item in value[:_LIST])
        return f"[{inner}]" if len(value) <= _LIST else f"[{inner}, ... {len(value)} in all]"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return value if len(value) <= _TEXT else f"{value[:_TEXT]}... {len(value)} characters"
    return json.dumps(value, default=str, ensure_ascii=False)


def _audio(value: Mapping[str, Any]) -> str:
    if value["bytes"] is None:
        return f"audio at {value['path']}"
    import soundfile

    try:
        with held():
            info = soundfile.info(io.BytesIO(value["bytes"]))
    except soundfile.LibsndfileError as error:
        return f"{len(value['bytes'])} bytes that are not audio ({error})"
    kind = "mono" if info.channels == 1 else f"{info.channels} channels"
    return f"{info.format} {info.duration:.2f} s, {info.samplerate} Hz, {kind}, {len(value['bytes'])} bytes"


def _save(folder: str, row: Mapping[str, Any]) -> None:
    data = row["audio"]["bytes"]
    if data is None:
        return
    # An id contains slashes and may contain "..": neither may lead out of the folder.
    name = "".join(c if c.isalnum() or c in "-_~" else "_" for c in row["id"])
    target = store.join(folder, f"{name}.flac")
    if data[:4] != b"fLaC":
        import soundfile

        out = io.BytesIO()
        try:
            with held(), soundfile.SoundFile(io.BytesIO(data)) as sound:
                given = sound.samplerate, sound.channels
                with soundfile.SoundFile(out, "w", *given, format="FLAC") as copy:
                    for block in sound.blocks(1 << 16, dtype="int16"):
                        copy.write(block)
        except soundfile.LibsndfileError as error:
            print(f"  not written: {len(data)} bytes that cannot be saved as FLAC ({error})\n")
            return
        data = out.getvalue()
    store.write_bytes(target, data)
    print(f"  audio written to {target}\n")
