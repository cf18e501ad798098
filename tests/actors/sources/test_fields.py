"""A corpus's own names of columns, in lists of speech and of requests; and ids that do not tell where it lies."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.actors.nlu.parsing import ParseRequest, RequestParsingSettings
from gristmill.actors.sources.requests import list_requests
from gristmill.actors.sources.speech import columns_of, list_sources
from gristmill.actors.speech.ingest import FieldSettings, Probe, ProbeSettings
from gristmill.shards.errors import UserError
from tests.actors.sources.made import tone

FIELDS = {"audio": "clip", "text": "said", "speaker": "who", "lang": "tongue", "id": "nr"}
ROWS = [
    {"clip": "a.wav", "said": "lights on", "who": "ann", "tongue": "en", "nr": "n1"},
    {"clip": "b.wav", "said": "stop", "who": "bob", "tongue": "de", "nr": "n2"},
    {"clip": "b.wav", "said": "again", "who": "bob", "tongue": "de", "nr": "n2"},
]


def manifest(folder: Path) -> Path:
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return folder / "list.jsonl"


def table(folder: Path) -> Path:
    lines = [",".join(name.title() for name in ROWS[0]), *(",".join(row.values()) for row in ROWS)]
    (folder / "list.csv").write_text("\n".join(lines))
    return folder / "list.csv"


def parquet(folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "list.parquet")
    return folder / "list.parquet"


@pytest.mark.parametrize("write", [manifest, table, parquet])
def test_speech_has_the_columns_that_the_user_names(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    for name in ("a.wav", "b.wav"):
        tone(tmp_path / name)
    url = str(write(tmp_path))
    listed = pa.concat_tables(list_sources(url, corpus="own", fields=FIELDS))
    made = Probe(ProbeSettings(fields=FIELDS))(listed).to_pylist()
    wanted = [(f"own/{row['nr']}", row["said"], row["who"], row["tongue"]) for row in ROWS[:2]]
    assert [(row["id"], row["text"], row["speaker"], row["lang"]) for row in made[:2]] == wanted
    assert [row["reject_reason"] for row in made] == [None, None, "duplicate"]
    with pytest.raises(UserError, match=r"expected 'clips', as corpus\.fields names it, did you mean '[Cc]lip'"):
        list_sources(url, fields=FIELDS | {"audio": "clips"})
    assert set(columns_of(url, FIELDS) or []) == set(ROWS[0])
    with pytest.raises(UserError, match=r"expected audio_filepath or .*corpus\.fields=\{audio: NAME\}"):
        list_sources(url)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"txt": "a"}, "'txt' is no part of a record, did you mean 'text'"),
        ({"text": " "}, "text has no name"),
        ({"text": "a", "speaker": "a"}, "are both 'a'; expected a column for each"),
        ({"domain": "a"}, "'domain' is no part of a record"),
    ],
)
def test_names_that_cannot_be_are_refused(fields: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        FieldSettings(fields=fields)


REQUESTS = [
    {"nr": "r1", "utterance": "lights on", "skill": "light", "what": "on", "tongue": "en"},
    {"nr": "r2", "utterance": 'say "play", then blue river', "skill": "music", "what": "play", "tongue": "en"},
]
REQUEST_FIELDS = {"id": "nr", "text": "utterance", "domain": "skill", "intent": "what", "lang": "tongue"}
SLOTS = [{"name": "title", "value": "blue river"}]


def requests(url: Path, fields: dict[str, str]) -> list[dict[str, Any]]:
    listed = pa.concat_tables(list_requests(str(url), "own", fields=fields))
    made = ParseRequest(RequestParsingSettings(fields=fields))(listed).to_pylist()
    assert not any(row["reject_reason"] for row in made)
    return [{key: row[key] for key in ("id", "text", "domain", "intent", "lang", "slots")} for row in made]


def test_requests_have_the_columns_that_the_user_names(tmp_path: Path) -> None:
    whole = [REQUESTS[0] | {"slots": None}, REQUESTS[1] | {"slots": SLOTS}]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, whole)))
    plain = [[json.dumps(cell) if isinstance(cell, list) else cell or "" for cell in row.values()] for row in whole]
    (tmp_path / "own.tsv").write_text("\n".join("\t".join(cells) for cells in (whole[0], *plain)))
    with (tmp_path / "own.csv").open("w", newline="") as file:
        csv.writer(file).writerows([whole[0], *plain])
    found = requests(tmp_path / "own.jsonl", REQUEST_FIELDS)
    assert [(row["id"], row["domain"], row["intent"]) for row in found] == [
        ("own/r1", "light", "on"),
        ("own/r2", "music", "play"),
    ]
    assert [slot["value"] for slot in found[1]["slots"]] == ["blue river"]
    assert requests(tmp_path / "own.csv", REQUEST_FIELDS) == found
    assert requests(tmp_path / "own.tsv", REQUEST_FIELDS) == found
    for name in ("own.jsonl", "own.csv", "own.tsv"):
        with pytest.raises(UserError, match=r"expected 'utterence', .*, did you mean 'utterance'"):
            list_requests(str(tmp_path / name), "own", fields=REQUEST_FIELDS | {"text": "utterence"})
        with pytest.raises(UserError, match=r"expected 'skil', as corpus\.fields names it, did you mean 'skill'"):
            list_requests(str(tmp_path / name), "own", fields=REQUEST_FIELDS | {"domain": "skil"})
        with pytest.raises(UserError, match=r"corpus\.fields=\{text: NAME\}"):
            list_requests(str(tmp_path / name), "own")


@pytest.mark.parametrize("lists", ["", "lists"])
def test_ids_do_not_tell_where_a_corpus_lies(tmp_path: Path, lists: str) -> None:
    found = []
    for place in ("here", "there/below"):
        root = tmp_path / place / "corpus"
        (root / lists).mkdir(parents=True)
        tone(root / "wav/1/a.wav")
        tone(root / "wav/2/a.wav")
        places = [f"{root}/wav/1/a.wav", f"file://{root}/wav/2/a.wav"]
        rows = [json.dumps({"audio_filepath": one}) for one in places]
        again = json.dumps({"audio_filepath": f"{root}/x/../wav/1/a.wav"})
        (root / lists / "m.jsonl").write_text("\n".join([*rows, again]))
        (root / lists / "t.csv").write_text("\n".join(["path;text", *(f"{one};x" for one in places)]))
        ids = [
            [row["id"] for row in pa.concat_tables(list_sources(f"{root / lists}/{name}")).to_pylist()]
            for name in ("m.jsonl", "t.csv")
        ]
        found.append(ids)
    below = ["1/a.wav", "2/a.wav"] if lists else ["wav/1/a.wav", "wav/2/a.wav"]
    assert found[0] == [[*(f"m/{key}" for key in below), "m/m.jsonl#line3"], [f"t.csv/{key}" for key in below]]
    assert found[1] == found[0]
