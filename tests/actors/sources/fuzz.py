"""Listing of a damaged file beside a whole one of its kind: ``python -m tests.actors.sources.fuzz FORMAT NUMBER SEED``.

Each mutation damages one file in a way of its own. The listing must end without any error but a :class:`UserError`
where there is no other file, must have all records of the whole file, and those of the damaged file must be storable.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import resource
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from gristmill.actors.requests.parsing import ParseRequest, RequestParsingSettings
from gristmill.actors.sources.requests import list_requests
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.sources.text import PAIR_SIDES, Wanted, list_texts
from gristmill.actors.sources.unlisted import divided
from gristmill.actors.speech.ingest import Load, LoadSettings, Probe, ProbeSettings
from gristmill.actors.text.parsing import ParseText, TextParsingSettings
from tests.actors.sources.encode import encoded

WANTED = Wanted(PAIR_SIDES, ("en", "hi"), (None, None))
ROWS = [("turn on the light", "बत्ती चालू करो"), ("stop the music", "संगीत बंद करो"), ('say "hello, you"', "नमस्ते कहो")]
TOKENS = [
    *(
        b"\0",
        b"\r",
        b"\n",
        b'"',
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\\ud800",
        b"9" * 400,
        b"9" * 5000,
        b"-1",
        b"1e999",
        b"NaN",
    ),
    *(b"null", b"[", b"{" * 2000, b"[" * 3000, b"<x>" * 2000, b"&bomb;", b'encoding="utf-99"', b'encoding="shift_jis"'),
    *(b"77777777777\0", b"\x80" + b"\0" * 7 + b"\x04\0\0\0", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"charset=zip"),
    *(b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff\x0f", b'"audio_filepath": "a\\u0000b"', b"../" * 50),
]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes with one to three faults."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place, kind = rng.randrange(len(data) + 1), rng.randrange(8)
        length = min(len(data) - place, rng.choice((1, 1, 2, 4, 16, 100, 600)))
        if kind == 0:
            data = data[:place]
        elif kind == 1:
            data = data[:place] + data[place + length :]
        elif kind == 2:
            data = data[:place] + data[place : place + length] * rng.choice((2, 3, 50)) + data[place + length :]
        elif kind == 3:
            data = data[:place] + rng.randbytes(length) + data[place + length :]
        elif kind == 4:
            data = data[:place] + rng.choice(TOKENS) + data[place:]
        elif kind == 5:
            token = rng.choice(TOKENS)
            data = data[:place] + token + data[place + len(token) :]
        elif length:
            changed = data[place] ^ (1 << rng.randrange(8)) if kind == 6 else rng.choice((0, 0x7F, 0x80, 0xFF))
            data = data[:place] + bytes([changed]) + data[place + 1 :]
    return data


PARTS = ("damaged", "whole")
PARSED = 8  # each so many-th listing is parsed as well


@dataclass(frozen=True)
class Format:
    """Files of a kind: those of one corpus, of which the first is damaged, by name; and the listing of a folder."""

    files: dict[str, bytes]
    listing: Callable[[str], Iterator[pa.Table]]
    pattern: str
    parse: Callable[[pa.Table], pa.Table]


def _audio(kind: str) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, 0.3 * np.sin(np.arange(4000) * 0.1), 8000, format=kind)
    return out.getvalue()


def _lines(*records: dict[str, Any]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def _tar(format: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, data in (
            ("a.flac", b"fLaC" * 200),
            ("a.txt", b"one"),
            ("é" * 80 + ".flac", b"x" * 10),
            ("b.json", b"{}"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _parquet(table: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=2, **options)
    return out.getvalue()


def _arrow(table: pa.Table) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table, max_chunksize=2)
    return out.getvalue()


def _cut(number: int) -> dict[str, Any]:
    source = {"type": "file", "channels": [0], "source": "a.wav"}
    recording = {"id": "r", "sources": [source], "sampling_rate": 16000, "num_samples": 32000, "duration": 2.0}
    supervision = {"id": "s", "start": 0.0, "duration": 2.0, "text": "one", "speaker": "ann", "custom": {"snr": 3}}
    cut = {"id": f"c{number}", "start": 0, "duration": 2.0, "channel": 0, "supervisions": [supervision]}
    return {**cut, "recording": recording, "type": "MonoCut"}


def _po() -> bytes:
    head = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\nLanguage: hi_IN\\n"\n\n'
    body = "".join(f'#, fuzzy\nmsgctxt "m"\nmsgid "{i} on"\nmsgstr "{i} चालू"\n\n' for i in range(4))
    return (head + body + 'msgid "day"\nmsgid_plural "%d days"\nmsgstr[0] "दिन"\nmsgstr[1] "%d दिन"\n').encode()


def _mo() -> bytes:
    import polib

    return polib.pofile(_po().decode().replace("#, fuzzy\n", "") + "\n\n").to_binary()


def _tmx() -> bytes:
    units = "".join(
        f'<tu><tuv xml:lang="en"><seg>{en} <hi>x</hi></seg></tuv><tuv xml:lang="hi"><seg>{hi}</seg></tuv></tu>\n'
        for en, hi in ROWS
    )
    head = '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE tmx [<!ENTITY e "x">]>'.replace(' [<!ENTITY e "x">]', "")
    return f'{head}<tmx version="1.4"><header/><body>{units}</body></tmx>'.encode()


def _formats() -> dict[str, Format]:
    text = TextParsingSettings(
        signature=False, sides=PAIR_SIDES, langs=("en", "hi"), names=(("source", "en"), ("target", "hi"))
    )
    load = Load(LoadSettings(sampling_rate=8000, annotated=False))
    probe = Probe(ProbeSettings())

    def speech(files: dict[str, bytes], pattern: str = "") -> Format:
        def parse(table: pa.Table) -> pa.Table:
            probed = probe(table)
            return load(probed.filter(probed["reject_reason"].is_null()).drop_columns(["reject_reason"]))

        return Format(files, lambda url: list_sources(url, corpus="c"), pattern, parse)

    def texts(files: dict[str, bytes], pattern: str = "") -> Format:
        return Format(files, lambda url: list_texts(url, "c", WANTED), pattern, ParseText(text))

    def requests(files: dict[str, bytes]) -> Format:
        return Format(files, lambda url: list_requests(url, "c"), "", ParseRequest(RequestParsingSettings()))

    pairs = pa.table({"en": [en for en, _ in ROWS], "hi": [hi for _, hi in ROWS]})
    sound = pa.table({"audio": [{"bytes": _audio("flac"), "path": "x"}] * 6, "text": ["one"] * 6})
    translation = pa.table({"translation": [{"en": en, "hi": hi} for en, hi in ROWS]})
    manifest = _lines(
        *({"audio_filepath": f"{n}.wav", "duration": 1.5, "text": "one", "offset": 0.5} for n in range(5))
    )
    cuts = _lines(*map(_cut, range(4)))
    hwu = b'answerid;scenario;intent;answer_annotation\n7;alarm;set;"wake me at [time : nine]"\n8;alarm;set;"stop"\n'
    top = b"en_query\tcs_query\ten_parse\tcs_parse\tdomain\nstop\truko\t[IN:STOP stop ]\t[IN:STOP ruko ]\ttimer\n" * 2
    slurp = {"sentence_annotation": "stop [time : now]", "scenario": "alarm", "action": "remove"}
    massive = {"locale": "hi-IN", "annot_utt": "रुको", "scenario": "alarm", "intent": "alarm_remove"}
    own = {"text": "stop now", "domain": "timer", "intent": "stop", "slots": [{"name": "t", "start": 1, "end": 2}]}
    clinc = {"val": [["stop", "cancel"], ["hm", "oos"]], "train": [["go", "start"]] * 3}
    tsv = "".join(f"{en}\t{hi}\n" for en, hi in ROWS).encode()
    csv = ("en,hi\n" + "".join('"{}",{}\n'.format(en.replace('"', '""'), hi) for en, hi in ROWS)).encode()
    jsonl = _lines(*({"en": en, "hi": hi} for en, hi in ROWS))
    return {
        "wav": speech({"a.wav": _audio("wav"), "a.txt": b"one"}),
        "flac": speech({"a.flac": _audio("flac")}),
        "ogg": speech({"a.ogg": _audio("ogg")}),
        "mp3": speech({"a.mp3": _audio("mp3")}),
        **{
            f"audio-{kind}": speech(
                {f"a.{'wma' if kind == 'asf' else kind}": encoded(kind, codec, 0.5, rate, pipe=kind in ("mp3", "w64"))}
            )
            for kind, codec, rate in (
                ("mp3", "libmp3lame", 16000),
                ("mp4", "aac", 16000),
                ("webm", "libopus", 48000),
                ("asf", "wmav2", 16000),
                ("amr", "libopencore_amrnb", 8000),
                ("avi", "libmp3lame", 16000),
                ("w64", "pcm_s16le", 16000),
                ("caf", "pcm_s16le", 16000),
            )
        },
        "transcripts": speech({"1-1.trans.txt": b"1-1-0 ONE\n1-1-1 TWO\n", "1-1-0.wav": _audio("wav")}),
        "manifest": speech({"a.jsonl": manifest}, "*.jsonl"),
        "lhotse": speech({"cuts.jsonl": cuts}, "cuts*.jsonl"),
        "lhotse-gz": speech({"a.jsonl.gz": gzip.compress(cuts, mtime=0)}, "*.jsonl.gz"),
        "audio-parquet": speech({"a.parquet": _parquet(sound)}),
        "audio-arrow": speech({"a.arrow": _arrow(sound)}, "*.arrow"),
        "table": speech(
            {"a.tsv": b"path\tsentence\tclient_id\n" + b"".join(b"%d.wav\tone\tann\n" % n for n in range(4))}, "*.tsv"
        ),
        "tar": speech({"a.tar": _tar(tarfile.GNU_FORMAT)}),
        "tar-pax": speech({"a.tar": _tar(tarfile.PAX_FORMAT)}),
        "tsv": texts({"a.tsv": tsv}),
        "tsv-gz": texts({"a.tsv.gz": gzip.compress(tsv, mtime=0)}),
        "csv": texts({"a.csv": csv}),
        "jsonl": texts({"a.jsonl": jsonl}),
        "text-parquet": texts({"a.parquet": _parquet(pairs)}),
        "text-parquet-plain": texts({"a.parquet": _parquet(pairs, use_dictionary=False, compression="none")}),
        "translation-parquet": texts({"a.parquet": _parquet(translation, compression="zstd", data_page_version="2.0")}),
        "tmx": texts({"a.tmx": _tmx()}),
        "tmx-16": texts({"a.tmx": _tmx().decode().replace("utf-8", "utf-16").encode("utf-16")}),
        "po": texts({"a.po": _po()}),
        "mo": texts({"a.mo": _mo()}),
        "moses": texts({"a.en": tsv, "a.hi": tsv}),
        "hwu64": requests({"a.csv": hwu}),
        "top": requests({"a.tsv": top}),
        "snips": requests({"seq.in": b"stop now\ngo\n", "seq.out": b"O B-time\nO\n", "label": b"stop\ngo\n"}),
        "clinc150": requests({"a.json": json.dumps(clinc).encode(), "domains.json": b'{"m": ["cancel", "start"]}'}),
        "clinc150-domains": requests(
            {"domains.json": b'{"m": ["cancel", "start"]}', "a.json": json.dumps(clinc).encode()}
        ),
        "slurp": requests({"a.jsonl": _lines(*({**slurp, "slurp_id": n} for n in range(3)))}),
        "massive": requests({"a.jsonl": _lines(*({**massive, "id": str(n)} for n in range(3)))}),
        "requests": requests({"a.jsonl": _lines(*({**own, "id": n} for n in range(3)))}),
    }


FORMATS = _formats()


def _ids(format: Format, url: str, parsed: bool = True) -> tuple[set[str], int]:
    """List a folder, and parse what is listed; return the ids of all records, and the number of files not listed."""
    ids: set[str] = set()
    away = 0
    for table in format.listing(url):
        kept, files = divided(table)
        away += files.num_rows
        assert not ids.intersection(kept["id"].to_pylist())
        ids.update(kept["id"].to_pylist())
        if parsed and kept.num_rows:
            format.parse(kept)
    return ids, away


def fuzz(name: str, number: int, seed: int) -> dict[str, int]:
    """Damage a file of a format many times; return the counts of mutations, and the growth of memory in MB."""
    format, rng = FORMATS[name], random.Random(f"{seed}/{name}")
    with tempfile.TemporaryDirectory() as folder:
        names = list(format.files)
        paths = {
            part: [Path(folder, part, format.pattern.replace("*", f"{part}-") or file) for file in names]
            for part in PARTS
        }
        for part in PARTS:
            Path(folder, part).mkdir()
            for path, data in zip(paths[part], format.files.values(), strict=True):
                path.write_bytes(data)
        url = f"{folder}/*/{format.pattern}" if format.pattern else folder
        whole, away = _ids(format, url)
        assert whole
        assert not away
        # Records that have ids of their own are the same in both files: the second is a duplicate, or it is not.
        wanted = {key for key in whole if PARTS[0] not in key and not key.endswith("~again") and "#line" not in key}
        assert wanted
        first = paths[PARTS[0]][0]
        good, before, unlisted = first.read_bytes(), _peak(), 0
        for attempt in range(number):
            data = mutated(good, rng)
            first.write_bytes(data)
            try:
                found, away = _ids(format, url, parsed=attempt % PARSED == 0)
                missing = wanted - found
                assert not missing, f"lost {missing}"
            except BaseException:
                print(f"{name}: mutation {attempt} of seed {seed}: {data[:300]!r}", file=sys.stderr)
                Path(tempfile.gettempdir(), f"fuzz-{name}").write_bytes(data)
                raise
            unlisted += away
    return {"mutations": number, "unlisted": unlisted, "grown_mb": _peak() - before}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    print(json.dumps(fuzz(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
