"""Parsing of annotated requests: spans point at their values, and each malformed record is rejected with its reason."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.actors.nlu.parsing import ParseRequest, RequestParsingSettings
from gristmill.actors.sources.requests import LISTED, list_requests
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.normalise import joined
from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import seal_tables
from gristmill.shards.engine import run_step
from gristmill.shards.errors import SettingsError
from gristmill.shards.index import Cut
from gristmill.shards.schema import REQUEST_FIELDS
from gristmill.shards.step import Step

HWU_HEADER = "answerid;scenario;intent;answer_annotation;device"
TOP_HEADER = "en_query\tcs_query\ten_parse\tcs_parse\tdomain"


def parse(*records: dict, **settings: object) -> list[dict]:
    rows = [{"id": f"c/{n}", **record} for n, record in enumerate(records)]
    stage = ParseRequest.stage(RequestParsingSettings(**settings))
    out = stage.build(0)(pa.Table.from_pylist(rows, schema=LISTED))
    assert set(stage.output_schema(LISTED).names) <= set(out.schema.names)
    for row in out.to_pylist():
        assert [slot["start"] for slot in row["slots"] or []] == sorted(slot["start"] for slot in row["slots"] or [])
        for slot in row["slots"] or []:
            assert slot["value"] == joined(row["tokens"][slot["start"] : slot["end"]])
    return out.to_pylist()


def snips(text: str, tags: str, label: str) -> dict:
    return {"format": "snips", "raw": f"{text}\n{tags}\n{label}"}


def hwu(annotation: str, scenario: str = "alarm", intent: str = "set") -> dict:
    return {"format": "hwu64", "header": HWU_HEADER, "raw": f'7;{scenario};{intent};"{annotation}";tv'}


def top(en: str, cs: str = "", domain: str = "alarm") -> dict:
    return {"format": "top", "header": TOP_HEADER, "raw": f'"\t"\t{en}\t{cs}\t{domain}'}


def own(**values: object) -> dict:
    whole = {"text": "call mom at home", "domain": "calls", "intent": "call"} | values
    return {"format": "jsonl", "raw": json.dumps({key: value for key, value in whole.items() if value is not None})}


def spans(row: dict) -> list[tuple]:
    assert row["reject_reason"] is None
    return [(slot["name"], slot["value"], slot["start"], slot["end"]) for slot in row["slots"]]


def test_snips() -> None:
    record = snips(" add step to the 50 clásicos ", "O B-name O O B-list I-list", "AddToPlaylist")
    row = parse(record)[0]
    assert spans(row) == [("name", "step", 1, 2), ("list", "50 clásicos", 4, 6)]
    assert (row["text"], row["lang"], row["label_source"]) == ("add step to the 50 clásicos", "en", "gold")
    assert (row["domain"], row["intent"]) == ("AddToPlaylist", "AddToPlaylist")
    assert parse(record, domains={"AddToPlaylist": "music"})[0]["domain"] == "music"
    assert spans(parse(snips("a b", "B-x B-x", "i"))[0]) == [("x", "a", 0, 1), ("x", "b", 1, 2)]


def test_hwu64() -> None:
    row = parse(hwu("wake [who : me]up at [time : nine : 30 am]"), context={"device": "string"})[0]
    assert spans(row) == [("who", "me", 1, 2), ("time", "nine : 30 am", 4, 8)]
    assert (row["text"], row["domain"], row["intent"]) == ("wake me up at nine : 30 am", "alarm", "alarm_set")
    assert row["device"] == "tv"
    assert parse(hwu('say ""hi"" twice'))[0]["tokens"] == ["say", '"hi"', "twice"]


def test_slurp_and_massive() -> None:
    slurp = {"sentence_annotation": "play [song : ice ice]", "scenario": "play", "action": "music", "intent": "x"}
    massive = {"annot_utt": "[date : आज] बताओ", "locale": "hi-IN", "scenario": "weather", "intent": "weather_query"}
    first, second = parse(
        {"format": "slurp", "raw": json.dumps(slurp)}, {"format": "massive", "raw": json.dumps(massive)}
    )
    assert spans(first) == [("song", "ice ice", 1, 3)]
    assert (first["domain"], first["intent"], first["lang"]) == ("play", "play_music", "en")
    assert spans(second) == [("date", "आज", 0, 1)]
    assert (second["domain"], second["intent"], second["lang"]) == ("weather", "weather_query", "hi")


def test_top_keeps_the_slots_at_the_top() -> None:
    en = "[IN:GET_ETA from [SL:SOURCE [IN:GET_LOCATION [SL:WHO my ] home ] ] at [SL:TIME 9 pm ] ]"
    record = top(en, '[IN:GET_ETA [SL:TIME "9 baje ] ]')
    row = parse(record)[0]
    assert spans(row) == [("SOURCE", "my home", 1, 3), ("TIME", "9 pm", 4, 6)]
    assert (row["text"], row["domain"], row["intent"]) == ("from my home at 9 pm", "alarm", "GET_ETA")
    switched = parse(record, parse="cs_parse", lang="hi")[0]
    assert spans(switched) == [("TIME", '"9 baje', 0, 2)]
    assert switched["lang"] == "hi"


def test_clinc150() -> None:
    row = parse({"format": "clinc150", "raw": '["freeze my card", "freeze"]', "told_domain": "banking"})[0]
    assert (row["domain"], row["intent"], row["tokens"], spans(row)) == (
        "banking",
        "freeze",
        ["freeze", "my", "card"],
        [],
    )


def test_own_schema() -> None:
    slots = [{"name": "place", "value": "home"}, {"name": "who", "value": "mom", "start": 1, "end": 2}]
    rows = parse(
        own(slots=slots, lang="hi", volume=3, device=True),
        own(tokens=["call", "mom", "at", "home"], slots=[{"name": "where", "start": 2, "end": 4}]),
        own(text="from rome to rome", slots=[{"name": name, "value": "rome"} for name in ("a", "b")]),
        context={"volume": "number", "device": "string"},
    )
    assert spans(rows[0]) == [("who", "mom", 1, 2), ("place", "home", 3, 4)]
    assert (rows[0]["lang"], rows[0]["volume"], rows[0]["device"]) == ("hi", 3.0, "true")
    assert spans(rows[1]) == [("where", "at home", 2, 4)]
    assert (rows[1]["volume"], rows[1]["device"]) == (None, None)
    assert spans(rows[2]) == [("a", "rome", 1, 2), ("b", "rome", 3, 4)]


@pytest.mark.parametrize(
    ("text", "value", "tokens"),
    [
        ("play blue river.", "blue river", ["play", "[blue", "river]", "."]),
        ('play "blue river", please', "blue river", ["play", '"', "[blue", "river]", '",', "please"]),
        ("play 'blue river'", "blue river", ["play", "'", "[blue", "river]", "'"]),
        ("blue river's cover", "blue river", ["[blue", "river]", "'s", "cover"]),
        ("at 6 a.m. now", "6 a.m.", ["at", "[6", "a.m.]", "now"]),
        ("rivers of river", "river", ["rivers", "of", "[river]"]),
        ("play (river) river", "river", ["play", "(river)", "[river]"]),  # a word of its own comes first
        ("Play Blue River", "blue river", ["Play", "[Blue", "River]"]),
        ("River river", "river", ["River", "[river]"]),  # the same letters come first
        ("İ River", "river", None),  # "İ" has two small letters
        ("  play   blue\u00a0 river ", "blue  river", ["play", "[blue", "river]"]),
        ("play cafe\u0301", "caf\u00e9", ["play", "[café]"]),
        ("play caf\u00e9", "cafe\u0301", ["play", "[café]"]),
        ("क्\u200dष चलाओ", "क्ष", ["[क्ष]", "चलाओ"]),
        ("关闭客厅的灯", "客厅", ["关", "闭", "[客", "厅]", "的", "灯"]),
        ("เปิดไฟในห้อง", "ไฟ", ["เ", "ปิ", "ด", "[ไ", "ฟ]", "ใ", "น", "ห้", "อ", "ง"]),
    ],
)
def test_slots_are_found_in_texts_as_people_write_them(text: str, value: str, tokens: list[str] | None) -> None:
    row = parse(own(text=text, slots=[{"name": "title", "value": value}]))[0]
    if tokens is None:
        assert row["reject_reason"] == A + "slot value is not in the text"
        return
    ((_, found, start, end),) = spans(row)
    marked = list(row["tokens"])
    marked[start] = f"[{marked[start]}"
    marked[end - 1] += "]"
    assert marked == tokens
    assert found in row["text"]


@pytest.mark.parametrize(
    ("text", "value"), [("playing rivers", "river"), ("caf\u0301es", "caf"), ("می\u200cخواهم", "می")]
)
def test_a_part_of_a_word_is_no_value(text: str, value: str) -> None:
    row = parse(own(text=text, slots=[{"name": "title", "value": value}]))[0]
    assert row["reject_reason"] == A + "slot value is not in the text"


def test_values_that_share_words_overlap() -> None:
    slots = [{"name": "a", "value": "blue river"}, {"name": "b", "value": "river"}]
    (row,) = parse(own(text="play blue river", slots=slots))
    assert row["reject_reason"] == A + "slots overlap"


def test_entities_stand_for_slots() -> None:
    rows = parse(
        own(entities=[{"name": "who", "value": "mom"}]),
        own(
            entities=[{"entity": "who", "value": "mom", "start": 5, "end": 8}]
        ),  # in letters, as Rasa and spaCy have it
        own(entities=[{"label": "who", "start": 5, "end": 8}]),
        own(text="call  mom", entities=[{"label": "who", "start": 6, "end": 9, "value": "mom"}]),
        own(slots=[], entities=[{"name": "who", "value": "mom", "start": 1, "end": 2}]),
        own(
            slots=[{"name": "place", "value": "home", "start": 3, "end": 4}], entities=[{"name": "who", "value": "mom"}]
        ),
        own(slots=[{"name": "place", "value": "home", "start": 12, "end": 16}]),
        own(tokens=["call", "mom"], text="call mom", entities=[{"name": "who", "value": "mom"}]),
    )
    assert [spans(row) for row in rows] == [[("who", "mom", 1, 2)]] * 5 + [[("place", "home", 3, 4)]] * 2 + [
        [("who", "mom", 1, 2)]
    ]
    wrong = parse(own(entities=[{"label": "who", "start": 6, "end": 9}]))[0]
    assert wrong["reject_reason"] == A + "slot value is not in the text"


def test_a_corpus_of_chinese() -> None:
    massive = {"annot_utt": "打开[room : 客厅]的灯", "locale": "zh-CN", "scenario": "iot", "intent": "iot_hue_lighton"}
    row = parse({"format": "massive", "raw": json.dumps(massive)})[0]
    assert (row["text"], row["tokens"]) == ("打开客厅的灯", list("打开客厅的灯"))
    assert spans(row) == [("room", "客厅", 2, 4)]


def test_hwu64_as_published() -> None:
    header = "userid;answerid;scenario;intent;status;answer_annotation;notes"
    rows = parse(
        *(
            {"format": "hwu64", "header": header, "raw": f"1;2;alarm;set;{status};{annotation};null"}
            for status, annotation in (
                ("null", "wake me at [time : nine]"),
                ("MOD", '"wake me,\nplease"'),
                ("IRR_XL", "this is not about alarms"),
                ("IRR_XR", "null"),
                ("IRR", "x"),
                ("null", "null"),
            )
        )
    )
    assert [row["reject_reason"] for row in rows] == [None, None, *["marked as irrelevant"] * 3, A + "no text"]
    assert spans(rows[0]) == [("time", "nine", 3, 4)]
    assert rows[1]["text"] == "wake me, please"


def test_topv2() -> None:
    raw = "alarm\twake me at nine\t[IN:CREATE_ALARM wake me [SL:DATE_TIME at nine ] ]"
    row = parse({"format": "top", "header": "domain\tutterance\tsemantic_parse", "raw": raw})[0]
    assert spans(row) == [("DATE_TIME", "at nine", 2, 4)]
    assert (row["domain"], row["intent"], row["text"]) == ("alarm", "CREATE_ALARM", "wake me at nine")


def test_a_context_that_is_not_a_number_is_missing() -> None:
    rows = parse(
        *(
            {"format": "jsonl", "raw": own()["raw"][:-1] + f', "hour": {hour}, "tv": {hour}}}'}
            for hour in ("NaN", "null", '""', "9")
        ),
        context={"hour": "number", "tv": "string"},
    )
    assert [(row["hour"], row["tv"]) for row in rows] == [(None, None)] * 3 + [(9.0, "9")]


A = "annotation: "
MALFORMED = [
    (snips("a b", "O", "i"), A + "tags and tokens differ in number"),
    (snips("a", "", "i"), A + "tags and tokens differ in number"),
    (snips("", "", "i"), A + "no text"),
    (snips("a", "O", ""), A + "no intent"),
    (snips("a", "X-y", "i"), A + "tag is neither O nor B- or I- with a name"),
    (snips("a", "B-", "i"), A + "tag is neither O nor B- or I- with a name"),
    (snips("a b", "B-x I-y", "i"), A + "I- follows no B- of its name"),
    (snips("a b c", "B-x O I-x", "i"), A + "I- follows no B- of its name"),
    (hwu("at [time : nine"), A + "bracket is not closed"),
    (hwu("at [time : nine] or [time : ten"), A + "bracket is not closed"),
    (hwu("at nine] please"), A + "bracket is not opened"),
    (hwu("at [time : [hour : nine] am]"), A + "brackets are nested"),
    (hwu("at [nine]"), A + "slot has no name"),
    (hwu("at [ : nine]"), A + "slot has no name"),
    (hwu("at [time : ]"), A + "slot has no value"),
    (hwu(""), A + "no text"),
    (hwu("stop", intent=""), A + "no intent"),
    (hwu("stop", scenario=""), A + "no domain"),
    (hwu('stop" it'), "malformed record"),
    ({"format": "hwu64", "header": HWU_HEADER, "raw": '7;alarm;set;"stop;tv'}, "malformed record"),
    ({"format": "hwu64", "header": HWU_HEADER, "raw": "7;alarm;set"}, "malformed record"),
    (top("[IN:STOP stop"), A + "bracket is not closed"),
    (top("[IN:STOP stop ] ]"), A + "bracket is not opened"),
    (top("[IN:STOP stop ] now"), A + "words outside the parse"),
    (top("[IN:STOP stop ] [IN:GO go ]"), A + "words outside the parse"),
    (top("stop"), A + "no intent"),
    (top("[SL:TIME nine ]"), A + "no intent"),
    (top("[IN: stop ]"), A + "no intent"),
    (top(""), A + "no intent"),
    (top("[IN:STOP [SL: nine ] ]"), A + "slot has no name"),
    (top("[IN:STOP at [SL:TIME ] ]"), A + "slot has no value"),
    (top("[IN:STOP ]"), A + "no text"),
    (top("[IN:STOP stop ]", domain=""), A + "no domain"),
    ({"format": "clinc150", "raw": '["hm", "oos"]'}, "out of scope"),
    ({"format": "clinc150", "raw": '["hm"]'}, "malformed record"),
    ({"format": "clinc150", "raw": '["hm", "unsorted"]'}, A + "no domain"),
    ({"format": "slurp", "raw": "{broken"}, "malformed record"),
    ({"format": "massive", "raw": "[1]"}, "malformed record"),
    (own(intent=None), A + "no intent"),
    (own(domain=None), A + "no domain"),
    (own(text=" "), A + "no text"),
    (own(text=5), "malformed record"),
    (own(tokens=["a", 1]), "malformed record"),
    (own(slots="who"), A + "slots are no list of names and values"),
    (own(slots=["who"]), A + "slots are no list of names and values"),
    (own(slots=[{"value": "mom"}]), A + "slot has no name"),
    (own(slots=[{"name": "who"}]), A + "slot has no value"),
    (own(slots=[{"name": "who", "value": "dad"}]), A + "slot value is not in the text"),
    (own(slots=[{"name": "who", "value": "dad", "start": 1, "end": 2}]), A + "slot value is not at its span"),
    (own(slots=[{"name": "who", "start": 1, "end": 9}]), A + "span is not in the tokens"),
    (own(slots=[{"name": "who", "start": 1}]), A + "span is not in the tokens"),
    (own(slots=[{"name": n, "start": 0, "end": 2} for n in "ab"]), A + "slots overlap"),
    (own(volume="loud"), "context: no number"),
    (own(volume=[1]), "context: no number"),
    ({"format": "jsonl", "problem": "not UTF-8"}, "not UTF-8"),
]


@pytest.mark.parametrize(("record", "reason"), MALFORMED)
def test_a_malformed_record_is_rejected_with_its_reason(record: dict, reason: str) -> None:
    rows = parse(own(), record, own(), context={"volume": "number"})
    assert [row["reject_reason"] for row in rows] == [None, reason, None]


def test_an_intent_missing_from_the_mapping_is_rejected() -> None:
    assert parse(snips("a", "O", "i"), domains={"j": "d"})[0]["reject_reason"] == A + "no domain"


def test_no_record_is_lost(tmp_path: Path) -> None:
    rows = [{"id": f"c/{n}", **record} for n, (record, _) in enumerate(MALFORMED)]
    rows += [{"id": "c/good", **own()}]
    listed = seal_tables(f"{tmp_path}/listed", "listed", [pa.Table.from_pylist(rows, schema=LISTED)])
    stage = ParseRequest.stage(RequestParsingSettings(context={"volume": "number"}))
    made = run_step(Step("requests", (stage,), listed, cut=Cut(rows=7)), str(tmp_path), InProcessRunner(), 0)
    assert made.schema.names == ["id", "part", *(f.name for f in REQUEST_FIELDS[1:]), "volume"]
    assert made.seal["reasons"] == dict(sorted(Counter(f"parse: {reason}" for _, reason in MALFORMED).items()))
    assert (made.records, made.seal["rejected"], made.seal["quarantined"]) == (1, len(MALFORMED), 0)
    assert all(not result.gaps for result in audit_below(str(tmp_path)))


def test_wrong_settings_are_errors() -> None:
    with pytest.raises(SettingsError, match="'fold' is a column of every request"):
        RequestParsingSettings(context={"fold": "number"})


def test_a_file_without_the_column_costs_no_other() -> None:
    record = {"format": "top", "header": "en_parse\tdomain", "raw": "[IN:STOP stop ]\ttimer"}
    assert parse(record, parse="cs_parse")[0]["reject_reason"] == "no column cs_parse"


def test_half_of_a_surrogate_pair_is_malformed() -> None:
    record = {"format": "jsonl", "raw": '{"text": "\\ud800", "domain": "a", "intent": "b"}'}
    assert parse(record)[0]["reject_reason"] == "malformed record"


def test_the_code_switched_half_of_a_real_corpus(data_dir: Path) -> None:
    stage = ParseRequest.stage(RequestParsingSettings(parse="cs_parse"))
    actor, kept, slots = stage.build(0), 0, 0
    for table in list_requests(f"{data_dir}/nlu/hinglish-top", "top"):
        for row in actor(table).to_pylist():
            kept += row["reject_reason"] is None
            for slot in row["slots"] or []:
                slots += slot["value"] == " ".join(row["tokens"][slot["start"] : slot["end"]])
    assert (kept, slots) == (4383, 7046)
