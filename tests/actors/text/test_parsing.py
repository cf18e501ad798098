"""Parsing of text: cleaned records, and the reason for each rejected one."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from gristmill.actors.sources.sides import MALFORMED
from gristmill.actors.sources.text import PAIR_SIDES, TEXT_SIDES, listed
from gristmill.actors.text import parsing
from gristmill.shards.schema import PAIRS, TEXTS

NAMES = [["source", "en"], ["target", "hi"]]


def parse(*records: dict, sides: tuple = PAIR_SIDES, langs: tuple = ("en", "hi"), **settings: object) -> list[dict]:
    given = parsing.TextParsingSettings(sides=sides, langs=langs, names=NAMES[-len(sides) :], **settings)
    stage = parsing.ParseText.stage(given)
    rows = [{"id": f"c/{n}", "format": "parquet"} | record for n, record in enumerate(records)]
    out = stage.build(0)(pa.Table.from_pylist(rows, schema=listed(sides)))
    expected = stage.output_schema(listed(sides))
    assert out.select(expected.names).schema.equals(expected)
    return out.to_pylist()


def pair(source: str | None, target: str | None, **more: object) -> dict:
    return {"source": source, "target": target, **more}


def reason(source: str | None, target: str | None, **settings: object) -> str | None:
    return parse(pair(source, target), **settings)[0]["reject_reason"]


def sides(row: dict) -> tuple:
    assert row["reject_reason"] is None
    return row["source"], row["target"]


def test_a_pair() -> None:
    row = parse(pair(" Turn\u00a0it on. ", "\ufeffइसे  चालू करो।"))[0]
    assert sides(row) == ("Turn it on.", "इसे चालू करो।")
    assert (row["source_lang"], row["target_lang"], row["label_source"]) == ("en", "hi", "gold")
    assert {field.name for field in PAIRS} | {"key", "signature", "reject_reason"} == set(row)
    same = parse(pair("turn it on", "इसे चालू करो"))[0]
    assert (same["key"], same["signature"]) == (row["key"], row["signature"])


def test_text_of_one_language() -> None:
    row = parse({"text": "इसे चालू करो।"}, sides=TEXT_SIDES, langs=("hi",), signature=False)[0]
    assert {field.name for field in TEXTS} | {"key", "reject_reason"} == set(row)
    assert (row["text"], row["lang"]) == ("इसे चालू करो।", "hi")


def test_lines_of_tables_and_json() -> None:
    def line(kind: str, raw: str, places: list | None = None) -> dict:
        return {"format": kind, "raw": raw, "places": places}

    found = parse(
        line("tsv", 'say "hi\tx\tकहो "हाय', [0, 2]),
        line("csv", '"a, b",क', [0, 1]),
        line("jsonl", json.dumps({"en": "one", "target": "एक"})),
        line("jsonl", json.dumps({"translation": {"en": "two", "hi": "दो"}})),
        line("tsv", "alone", [0, 1]),
        line("csv", '"open,क', [0, 1]),
        line("csv", 'closed",क', [0, 1]),
        line("jsonl", "[1]"),
        line("jsonl", "{"),
        line("jsonl", json.dumps({"en": 1, "hi": "एक"})),
        pair(None, None, problem="fuzzy"),
        line("jsonl", json.dumps({"english": "one", "hi": "एक"})),
    )
    assert [sides(row) for row in found[:4]] == [('say "hi', 'कहो "हाय'), ("a, b", "क"), ("one", "एक"), ("two", "दो")]
    assert [row["reject_reason"] for row in found[4:]] == [MALFORMED] * 6 + [
        "fuzzy",
        "source: no field source or en",
    ]


def test_reasons() -> None:
    assert reason("", "एक") == "source: empty"
    assert reason("one", "।") == "target: empty"
    assert reason("one " * 101, "एक") == "source: too long"
    assert reason("one", "ए" * 1201) == "target: too long"
    assert reason("HTML", "html.") == parsing.EQUAL_SIDES
    assert reason("यह", "एक") == "source: wrong language"
    assert reason("one", "ein Wort") == "target: wrong language"
    assert reason("Open HTML", "HTML को खोलें") is None
    assert reason("Open it", "html खो", least_script=0.6) == "target: wrong language"
    assert reason("one two three four five six", "एक") == parsing.LENGTH_RATIO
    assert reason("one two three four five", "एक") is None
    assert parse(pair("ein", "zwei"), langs=("xx", "yy"))[0]["reject_reason"] is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("&Open File...", "फ़ाइल खोलें (&O)..."), ("Open File...", "फ़ाइल खोलें...")),
        (("_Close", "बंद करें (_C)"), ("Close", "बंद करें")),
        (("~Table", "सारणी"), ("Table", "सारणी")),
        (("R&D &amp; <b>more</b>&nbsp;%1$s", "और भी <br/>%s"), ("R&D & more", "और भी")),
        (
            ("Say \\'hi\\'\\nto %(name)s, {count} times, 100%", "%1 को कहो 100%"),
            ("Say 'hi' to , times, 100%", "को कहो 100%"),
        ),
        (("E_xit: 5 < 6_", "निकास: ५ < ६"), ("Exit: 5 < 6_", "निकास: ५ < ६")),
    ],
)
def test_text_of_windows_is_cleaned(given: tuple, expected: tuple) -> None:
    assert sides(parse(pair(*given, format="gettext"))[0]) == expected
    assert sides(parse(pair(*given), interface=True)[0]) == expected
    assert sides(parse(pair(*given))[0]) == given


def test_formats() -> None:
    given = pair("%d files", "%d फ़ाइलें", format="gettext")
    assert sides(parse(given, formats="keep")[0]) == ("%d files", "%d फ़ाइलें")
    assert sides(parse(given)[0]) == ("files", "फ़ाइलें")
    assert parse(given, formats="reject")[0]["reject_reason"] == parsing.HAS_FORMATS


@pytest.mark.parametrize(
    ("lang", "source", "target"),
    [
        ("zh", "how long does it take to drive to the airport", "开车去机场要多久"),
        ("zh", "turn on the light", "打开灯"),
        ("zh", "open YouTube please", "请打开 YouTube"),
        ("ja", "set an alarm for seven in the morning", "朝七時に目覚ましをかけて"),
        ("th", "turn off the lights in the living room", "ปิดไฟในห้องนั่งเล่น"),
        ("km", "close the door", "បិទ\u200bទ្វារ"),
        ("fa", "I want it now", "می\u200cخواهم آن را"),
        ("de", "open the browser", "Öffne den Browser"),
        ("hi", "open YouTube", "YouTube खोलो"),
        ("hi", "open Google Chrome", "Google Chrome खोलें"),
        ("hi", "7:30", "७:३०"),
    ],
)
def test_good_pairs_of_many_languages_stay(lang: str, source: str, target: str) -> None:
    row = parse(pair(source, target), langs=("en", lang))[0]
    assert sides(row) == (source, target.replace("\u200b", " "))


@pytest.mark.parametrize(
    ("lang", "source", "target", "reason"),
    [
        ("zh", "turn on", "我们今天晚上要去机场接从北京来的朋友和他的家人", parsing.LENGTH_RATIO),
        ("zh", "remind me to buy milk on the way home from work this evening", "买", parsing.LENGTH_RATIO),
        ("zh", "one", "灯" * 400, "target: too long"),
        ("zh", "turn on the light in the kitchen", "台所の電気をつけてください", "target: wrong language"),
        ("de", "Close the old window now", "Please close that old window immediately", "target: wrong language"),
        ("de", "This is a test of it", "Ceci est un essai de cela", "target: wrong language"),
        ("hi", "turn on the light in the kitchen", "स्वयंपाकघरातील दिवा लाव आणि दार बंद कर", "target: wrong language"),
        ("hi", "Mach das Licht in der Küche an", "रसोई की बत्ती जलाओ", "source: wrong language"),
    ],
)
def test_bad_pairs_of_many_languages_go(lang: str, source: str, target: str, reason: str) -> None:
    assert parse(pair(source, target), langs=("en", lang))[0]["reject_reason"] == reason


def test_languages_of_one_script_are_not_told_apart_on_request() -> None:
    given = pair("Close the old window now", "Please close that old window immediately")
    assert parse(given, langs=("en", "de"), language_odds=None)[0]["reject_reason"] is None


def test_lines_of_moses_are_joined_again_and_others_are_not() -> None:
    given = pair("I don &apos;t know", "मैं नहीं जानता &quot;")
    assert sides(parse({"format": "moses", **given})[0]) == ("I don't know", 'मैं नहीं जानता "')
    assert sides(parse(given)[0]) == ("I don &apos;t know", "मैं नहीं जानता &quot;")


def test_a_record_of_csv_over_lines_is_one_text() -> None:
    row = {"format": "csv", "raw": '"Open the door,\r\nthen close it","दरवाज़ा खोलो,\nफिर बंद करो"', "places": [0, 1]}
    assert sides(parse(row)[0]) == ("Open the door, then close it", "दरवाज़ा खोलो, फिर बंद करो")
