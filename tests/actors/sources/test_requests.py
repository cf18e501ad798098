"""Listing of annotated requests: every format is detected from its content, and each record is verbatim."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.actors.sources.pointers import DUPLICATE
from gristmill.actors.sources.requests import LISTED, NOT_UTF8, list_requests
from gristmill.shards.errors import UserError

HWU = 'answerid;scenario;intent;answer_annotation\n7;alarm;set;"wake me at [time : nine]"\n8;alarm;set;"stop"\n'
TOP = "en_query\tcs_query\ten_parse\tcs_parse\tdomain\nstop\truko\t[IN:STOP stop ]\t[IN:STOP ruko ]\ttimer\n"
SLURP = {"slurp_id": 5, "sentence_annotation": "stop", "scenario": "alarm", "action": "remove"}
MASSIVE = {"id": "0", "locale": "hi-IN", "annot_utt": "रुको", "scenario": "alarm", "intent": "alarm_remove"}
OWN = {"id": "x", "text": "stop", "domain": "timer", "intent": "stop", "slots": []}


def listed(place: object, **options: object) -> list[dict]:
    tables = list(list_requests(str(place), "c", **options))
    assert all(table.schema.equals(LISTED) for table in tables)
    return pa.concat_tables(tables).to_pylist()


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)
    return folder


def lines(*records: dict) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def snips(folder: Path, texts: str, tags: str, labels: str) -> Path:
    return write(folder, seq_in=texts, seq_out=tags, label=labels)


def test_each_format_is_detected_from_its_content(tmp_path: Path) -> None:
    snips(tmp_path / "snips", "stop it\n\ngo\n", "O O\n\nO\n", "stop\n\ngo\n")
    write(tmp_path / "hwu", alarm_csv=HWU)
    write(tmp_path / "top", train_tsv=TOP)
    write(tmp_path / "json", slurp_jsonl=lines(SLURP), massive_jsonl=lines(MASSIVE), own_jsonl=lines(OWN))
    write(
        tmp_path / "clinc", data_json='{"val": [["stop", "cancel"], ["hm", "oos"]]}', domains_json='{"m": ["cancel"]}'
    )
    write(tmp_path, README_md="nothing", other_json="{}")
    found = [(row["id"], row["format"], row["told_domain"], row["raw"]) for row in listed(tmp_path)]
    assert found == [
        ("c/clinc/data.json#val/0", "clinc150", "m", '["stop", "cancel"]'),
        ("c/clinc/data.json#val/1", "clinc150", None, '["hm", "oos"]'),
        ("c/hwu/alarm.csv#2", "hwu64", None, '7;alarm;set;"wake me at [time : nine]"'),
        ("c/hwu/alarm.csv#3", "hwu64", None, '8;alarm;set;"stop"'),
        ("c/hi-IN/0", "massive", None, json.dumps(MASSIVE, ensure_ascii=False)),
        ("c/x", "jsonl", None, json.dumps(OWN)),
        ("c/5", "slurp", None, json.dumps(SLURP)),
        ("c/snips#1", "snips", None, "stop it\nO O\nstop"),
        ("c/snips#3", "snips", None, "go\nO\ngo"),
        ("c/top/train.tsv#2", "top", None, "stop\truko\t[IN:STOP stop ]\t[IN:STOP ruko ]\ttimer"),
    ]
    assert listed(tmp_path / "hwu/alarm.csv")[0]["header"] == "answerid;scenario;intent;answer_annotation"
    assert [row["id"] for row in listed(f"{tmp_path}/*/*.csv")] == ["c/hwu/alarm.csv#2", "c/hwu/alarm.csv#3"]


def test_published_tables(tmp_path: Path) -> None:
    write(tmp_path, alarm_tsv="domain\tutterance\tsemantic_parse\nalarm\tstop\t[IN:STOP stop ]\n")
    write(tmp_path, nlu_csv='scenario;answer_annotation;notes\nalarm;"stop;\nplease";"x\n"\n"y;stop;z\n')
    assert [(row["id"], row["format"], row["raw"]) for row in listed(tmp_path)] == [
        ("c/alarm.tsv#2", "top", "alarm\tstop\t[IN:STOP stop ]"),
        ("c/nlu.csv#2", "hwu64", 'alarm;"stop;\nplease";"x\n"'),
        ("c/nlu.csv#5", "hwu64", '"y;stop;z'),
    ]


def test_rows_come_in_tables_and_have_their_part(tmp_path: Path) -> None:
    write(tmp_path, a_jsonl=lines(*(OWN | {"id": n} for n in range(5))))
    tables = list(list_requests(str(tmp_path), "c", part="test", rows=2))
    assert [table.num_rows for table in tables] == [2, 2, 1]
    assert pa.concat_tables(tables)["part"].to_pylist() == ["test"] * 5


def test_records_that_cannot_be_read_stay_as_problems(tmp_path: Path) -> None:
    data = lines(OWN, OWN).encode() + b'{"text": "\xff"}\n\n{broken\n'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(data))
    found = [(row["id"], row["problem"]) for row in listed(tmp_path)]
    assert found == [
        ("c/x", None),
        ("c/a.jsonl.gz#2~again", DUPLICATE),
        ("c/a.jsonl.gz#3", NOT_UTF8),
        ("c/a.jsonl.gz#5", None),  # an error of the parser
    ]


def test_a_byte_order_mark_and_line_ends_of_another_system(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + HWU.replace("\n", "\r\n").encode())
    first = listed(tmp_path)[0]
    assert (first["header"], first["raw"]) == (HWU.splitlines()[0], HWU.splitlines()[1])


def test_files_of_snips_that_differ_in_length_lose_no_line(tmp_path: Path) -> None:
    snips(tmp_path, "a b\nc\n", "O O\n", "x\ny\nz\n")
    assert [row["raw"] for row in listed(tmp_path)] == ["a b\nO O\nx", "c\n\ny", "\n\nz"]


@pytest.mark.parametrize(
    ("files", "place", "message"),
    [
        ({}, "gone", "gone: no such file or folder; expected folders"),
        ({"notes_txt": "x"}, "", "no requests found; expected folders"),
        ({"notes_txt": "x"}, "notes.txt", r"notes\.txt: not a corpus of requests"),
        ({"a_csv": "text,category\nx,y\n"}, "", r"a\.csv: its columns are not those of a known corpus"),
        ({"a_jsonl": '{"sentence": "x"}\n'}, "", r"a\.jsonl: its columns"),
        ({"a_jsonl": ""}, "a.jsonl", r"a\.jsonl: is empty"),
        ({"seq_in": "a\n", "label": "x\n"}, "", r"seq\.out: missing; expected it beside seq\.in"),
        ({"data_json": "{}"}, "data.json", r"data\.json: there is no domains\.json beside it"),
    ],
)
def test_places_that_cannot_be_listed_are_refused_at_once(
    tmp_path: Path, files: dict, place: str, message: str
) -> None:
    write(tmp_path, **files)
    with pytest.raises(UserError, match=message):
        list_requests(f"{tmp_path}/{place}".rstrip("/"), "c")


@pytest.mark.parametrize(
    ("data", "domains", "message"),
    [
        ("[1]", "{}", r"data\.json: not a JSON object"),
        ('{"val": 1}', "{}", r"data\.json: val is not a list"),
        ('{"val": []}', '{"bank": "x"}', r"domains\.json: bank is not a list"),
        ('{"val": []}', "{", r"domains\.json: not a JSON object"),
    ],
)
def test_clinc150_documents_of_another_shape_are_refused(tmp_path: Path, data: str, domains: str, message: str) -> None:
    write(tmp_path, data_json=data, domains_json=domains)
    with pytest.raises(UserError, match=message):
        listed(tmp_path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty; expected"),
        ('{"text": "süß"}\n'.encode("utf-16"), "its text is UTF-16; expected UTF-8"),
        ('{"sätze": "süß"}\n'.encode("latin-1"), "its text is not UTF-8"),
        (b'{"satz": "on"}\n', "its columns are not those of a known corpus"),
    ],
)
def test_what_is_wrong_with_a_whole_file_is_told(tmp_path: Path, data: bytes, said: str) -> None:
    place = tmp_path / "a.jsonl"
    place.write_bytes(data)
    with pytest.raises(UserError, match=said):
        listed(place)


def test_files_may_each_number_their_own_requests(tmp_path: Path) -> None:
    def line(number: int, text: str) -> str:
        return json.dumps({"id": number, "text": text, "domain": "music", "intent": "play"}) + "\n"

    (tmp_path / "c").mkdir()
    (tmp_path / "c/a.jsonl").write_text(line(1, "one") + line(2, "two") + line(2, "another two"))
    (tmp_path / "c/b.jsonl").write_text(line(1, "three") + line(2, "two"))
    found = pa.concat_tables(list_requests(str(tmp_path / "c"), "c")).select(["id", "problem"]).to_pylist()
    assert [tuple(row.values()) for row in found] == [
        ("c/1", None),
        ("c/2", None),
        ("c/a.jsonl#3~again", "duplicate"),  # twice in one file
        ("c/b.jsonl#1", None),
        ("c/b.jsonl#2~again", "duplicate"),  # the same record in two
    ]
