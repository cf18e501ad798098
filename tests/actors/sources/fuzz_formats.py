"""The formats that are read, each as small real files and how they are listed and parsed: what the fuzzer damages."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from gristmill.actors.nlu.parsing import ParseRequest, RequestParsingSettings
from gristmill.actors.nlu.rerank import Rerank, RerankSettings
from gristmill.actors.sources.lists import ListFile
from gristmill.actors.sources.requests import list_requests
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.sources.text import PAIR_SIDES, TEXT_SIDES, Wanted, list_texts
from gristmill.actors.sources.unlisted import FILES, NothingListed
from gristmill.actors.speech.ingest import Load, LoadSettings, Probe, ProbeSettings
from gristmill.actors.text.parsing import ParseText, TextParsingSettings
from gristmill.shards.errors import UserError
from tests.actors.sources.encode import encoded

PARTS = ("damaged", "whole")
LINES = Wanted(TEXT_SIDES, ("en",), (None,))
_SUFFIXES = {"asf": "wma", "adts": "aac", "matroska": "mka"}
_PIPED = ("mp3", "w64", "flac")  # written without going back: their headers have no length
WANTED = Wanted(PAIR_SIDES, ("en", "hi"), (None, None))
ROWS = [("turn on the light", "बत्ती चालू करो"), ("stop the music", "संगीत बंद करो"), ('say "hello, you"', "नमस्ते कहो")]


@dataclass(frozen=True)
class Format:
    """Files of a kind: those of one corpus, of which the first is damaged, by name; and the listing of a folder."""

    files: dict[str, bytes]
    listing: Callable[[str], Iterator[pa.Table]]
    pattern: str
    parse: Callable[[pa.Table], pa.Table]
    is_audio: bool = False
    """What is damaged is audio, of which a listing sees nothing."""


def _apart(one: Callable[[str, str], Iterator[pa.Table]]) -> Callable[[str], Iterator[pa.Table]]:
    """Return the listing of corpora that are a folder each: the damaged one may be refused, in a sentence."""

    def listing(url: str) -> Iterator[pa.Table]:
        for part in PARTS:
            try:
                yield from one(f"{url}/{part}", part)
            except NothingListed as nothing:
                yield nothing.files
            except UserError as error:
                yield pa.table([[part], ["refused"], [str(error)]], schema=FILES)

    return listing


def _lists(name: str) -> Callable[[str, str], Iterator[pa.Table]]:
    def tables(folder: str, part: str) -> Iterator[pa.Table]:
        for table in ListFile(f"{folder}/{name}").tables():
            ids = pa.array([f"{part}/{key}" for key in table["id"].to_pylist()])
            yield table.set_column(table.column_names.index("id"), "id", ids).append_column(
                "format", pa.nulls(len(table), "str")
            )

    return tables


def _ranked(table: pa.Table) -> pa.Table:
    """Score lists one by one: one that cannot be scored would be quarantined."""
    if "problem" in table.column_names:
        table = table.filter(table["problem"].is_null())
    rerank = Rerank(RerankSettings())
    for place in range(len(table)):
        with contextlib.suppress(Exception):
            rerank(table.slice(place, 1))
    return table


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


def _tar_of(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _parquet(table: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=2, **options)
    return out.getvalue()


def _arrow(table: pa.Table, make: Callable[..., Any] = pa.ipc.new_stream) -> bytes:
    out = io.BytesIO()
    with make(out, table.schema) as stream:
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

    def decode(table: pa.Table) -> pa.Table:
        probed = probe(table)
        return load(probed.filter(probed["reject_reason"].is_null()).drop_columns(["reject_reason"]))

    def speech(files: dict[str, bytes], pattern: str = "", is_audio: bool = False) -> Format:
        return Format(files, lambda url: list_sources(url, corpus="c"), pattern, decode, is_audio)

    def audio(suffix: str, data: bytes) -> Format:
        return speech({f"a.{suffix}": data}, is_audio=True)

    def folder(files: dict[str, bytes]) -> Format:
        return Format(files, _apart(lambda url, part: list_sources(url, corpus=part)), "", decode)

    def lists(name: str, data: bytes) -> Format:
        return Format({name: data}, _apart(_lists(name)), "", _ranked)

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
    voices = b"client_id\tpath\tsentence\tlocale\n" + b"x\ta.mp3\tone\ten\nx\tb.mp3\ttwo\ten\n"
    kaldi = {
        "wav.scp": b"a a.wav\nb sph2pipe x |\n",
        "segments": b"a-0 a 0.0 0.2\na-1 a 0.1 -1 0\n",
        "text": "a-0 one\na-1 zwö\n".encode(),
        "utt2spk": b"a-0 ann\na-1 bob\n",
    }
    shar_cut = {
        **_cut(0),
        "duration": 0.5,
        "supervisions": [],
        "recording": {
            **_cut(0)["recording"],
            "sources": [{"type": "shar", "channels": [0], "source": ""}],
            "sampling_rate": 8000,
            "duration": 0.5,
        },
    }
    shar = {
        "cuts.000000.jsonl.gz": gzip.compress(_lines(shar_cut), mtime=0),
        "recording.000000.tar": _tar_of(c0_flac=_audio("flac"), c0_json=b"{}"),
    }
    tarred = {
        "tarred_audio_manifest.json": _lines(
            *({"audio_filepath": f"{n}.wav", "duration": 0.5, "text": "x", "shard_id": 0} for n in "ab")
        ),
        "audio_0.tar": _tar_of(a_wav=_audio("wav"), b_wav=_audio("wav")),
    }
    classes = pa.table({"audio": sound["audio"], "text": sound["text"], "speaker": pa.array([0, 1] * 3)})
    info = {
        "features": {
            "speaker": {"names": ["ann", "bob"], "_type": "ClassLabel"},
            "text": {"dtype": "string", "_type": "Value"},
        }
    }
    hypothesis = {
        "domain": "video",
        "intent": "play",
        "domain_logprob": -0.1,
        "intent_logprob": -0.2,
        "slots_logprob": -0.3,
    }
    hypotheses = _lines(*({"id": f"u{n}", "hypotheses": [hypothesis] * 2, "text": "play"} for n in range(3)))
    line = TextParsingSettings(signature=False, sides=TEXT_SIDES, langs=("en",), names=(("text",),))
    tsv = "".join(f"{en}\t{hi}\n" for en, hi in ROWS).encode()
    csv = ("en,hi\n" + "".join('"{}",{}\n'.format(en.replace('"', '""'), hi) for en, hi in ROWS)).encode()
    jsonl = _lines(*({"en": en, "hi": hi} for en, hi in ROWS))
    return {
        **{kind: audio(kind, _audio(kind)) for kind in ("wav", "flac", "ogg", "mp3", "aiff", "au", "rf64", "nist")},
        "ogg-chained": audio("ogg", _audio("ogg") + _audio("ogg")),
        **{
            f"audio-{kind}": audio(_SUFFIXES.get(kind, kind), encoded(kind, codec, 0.5, rate, pipe=kind in _PIPED))
            for kind, codec, rate in (
                ("adts", "aac", 16000),
                ("matroska", "flac", 16000),
                ("3gp", "aac", 16000),
                ("mov", "pcm_s16le", 16000),
                ("flac", "flac", 16000),
                ("wav", "libmp3lame", 16000),
                ("opus", "libopus", 48000),
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
        "text-beside": speech({"a.txt": "eins ½".encode(), "a.wav": _audio("wav")}),
        "lab-beside": speech({"a.lab": b"0 12345 one two", "a.wav": _audio("wav")}),
        "transcripts": speech({"1-1.trans.txt": b"1-1-0 ONE\n1-1-1 TWO\n", "1-1-0.wav": _audio("wav")}),
        "manifest": speech({"a.jsonl": manifest}, "*.jsonl"),
        "lhotse": speech({"cuts.jsonl": cuts}, "cuts*.jsonl"),
        "lhotse-gz": speech({"a.jsonl.gz": gzip.compress(cuts, mtime=0)}, "*.jsonl.gz"),
        "audio-parquet": speech({"a.parquet": _parquet(sound)}),
        "audio-arrow": speech({"a.arrow": _arrow(sound)}, "*.arrow"),
        "table": speech(
            {"a.tsv": b"path\tsentence\tclient_id\n" + b"".join(b"%d.wav\tone\tann\n" % n for n in range(4))}, "*.tsv"
        ),
        "common-voice": folder({"train.tsv": voices, "clips/a.mp3": _audio("mp3")}),
        "metadata-csv": folder(
            {"metadata.csv": b'file_name,text\na.wav,"one, two"\na.wav,three\n', "a.wav": _audio("wav")}
        ),
        "metadata-jsonl": folder(
            {"train/metadata.jsonl": _lines({"file_name": "a.wav", "text": "one"}), "train/a.wav": _audio("wav")}
        ),
        "ljspeech": folder({"metadata.csv": b"a|Dr. A|doctor a\nb|two|two\n", "wavs/a.wav": _audio("wav")}),
        **{
            f"kaldi-{first}": folder({first: kaldi[first], **kaldi, "a.wav": _audio("wav")})
            for first in ("wav.scp", "segments", "text", "utt2spk")
        },
        **{f"shar-{first[:4]}": folder({first: shar[first], **shar}) for first in shar},
        **{f"nemo-tarred-{first[:5]}": folder({first: tarred[first], **tarred}) for first in tarred},
        "arrow-file": speech({"a.arrow": _arrow(sound, pa.ipc.new_file)}, "*.arrow"),
        "saved": folder({"data.arrow": _arrow(classes), "dataset_info.json": json.dumps(info).encode()}),
        "saved-info": folder({"dataset_info.json": json.dumps(info).encode(), "data.arrow": _arrow(classes)}),
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
        "lines": Format({"a.txt": tsv}, lambda url: list_texts(url, "c", LINES), "", ParseText(line)),
        "lists-jsonl": lists("a.jsonl", hypotheses),
        "lists-parquet": lists(
            "a.parquet", _parquet(pa.Table.from_pylist([json.loads(one) for one in hypotheses.splitlines()]))
        ),
        "moses": texts({"a.en": tsv, "a.hi": tsv}),
        "hwu64": requests({"a.csv": hwu}),
        "top": requests({"a.tsv": top}),
        "topv2": requests({"a.tsv": b"domain\tutterance\tsemantic_parse\n" + b"timer\tstop\t[IN:STOP stop ]\n" * 3}),
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
