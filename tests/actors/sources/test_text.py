"""Listing of text: every kind of file, with all of its records, malformed ones included."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.actors.sources.columns import Parquet
from gristmill.actors.sources.reading import opened
from gristmill.actors.sources.text import PAIR_SIDES, TEXT_SIDES, Wanted, list_texts
from gristmill.shards.errors import UserError
from tests.actors.sources.made import write

TMX = """<?xml version="1.0" encoding="utf-16"?><!DOCTYPE tmx SYSTEM "tmx14.dtd"><tmx version="1.4"><header/><body>
<tu><tuv xml:lang="en-US"><seg>Press <bpt i="1">&lt;b></bpt>OK<ept i="1">&lt;/b></ept> <hi>now</hi>!</seg></tuv>
<tuv xml:lang="hi"><seg>अभी OK दबाएँ</seg></tuv><tuv xml:lang="hi"><seg>दूसरा</seg></tuv></tu>
<tu><tuv lang="EN"><seg>One</seg></tuv><tuv lang="mr"><seg>एक</seg></tuv></tu></body></tmx>"""
PO = """msgid ""
msgstr "Content-Type: text/plain; charset=UTF-8\\nLanguage: hi_IN\\n"

msgctxt "menu"
msgid "&File"
msgstr "फ़ाइल (&F)"

msgid "one day"
msgid_plural "%d days"
msgstr[0] "एक दिन"
msgstr[1] "%d दिन"

#, fuzzy
msgid "Maybe"
msgstr "शायद"

msgid "Open"
msgstr ""

#~ msgid "Old"
#~ msgstr ""
#~ "पुराना"
"""


def parquet(damage: int) -> bytes:
    """A file of two columns with some bytes of its pages overwritten."""
    out = io.BytesIO()
    texts = pa.table({"source": ["one two three"] * 99, "target": [f"एक {n}" for n in range(99)]})
    pq.write_table(texts, out, compression="snappy")
    data = bytearray(out.getvalue())
    data[4 + 20 : 4 + 20 + damage] = b"\xff" * damage
    return bytes(data)


SNAPPY = parquet(damage=40)
CRC = bytearray(gzip.compress(b"x\ty\n" * 9, mtime=0))
CRC[-8] ^= 1


def pairs(url: object, source: str | int | None = None, target: str | int | None = None) -> list[dict]:
    return rows(url, Wanted(PAIR_SIDES, ("en", "hi"), (source, target)))


def texts(url: object, text: str | int | None = None) -> list[dict]:
    return rows(url, Wanted(TEXT_SIDES, ("hi",), (text,)))


def rows(url: object, wanted: Wanted) -> list[dict]:
    return pa.concat_tables(list_texts(str(url), "c", wanted, rows=2)).to_pylist()


def sides(found: list[dict]) -> list[tuple]:
    return [(row["source"], row["target"]) for row in found]


def test_tables(tmp_path: Path) -> None:
    plain = pairs(write(tmp_path / "a.tsv", 'x "\tक\tmore\n\ny\tख\n'))
    assert [(row["id"], row["raw"], row["places"]) for row in plain] == [
        ("c/a.tsv#1", 'x "\tक\tmore', [0, 1]),
        ("c/a.tsv#3", "y\tख", [0, 1]),
    ]
    assert [row["places"] for row in pairs(tmp_path / "a.tsv", 3, 1)] == [[2, 0]] * 2
    named = write(tmp_path / "b.csv", "\ufeffid,HI,en\n1,क,x\n")
    assert [(row["raw"], row["places"]) for row in pairs(named)] == [("1,क,x", [2, 1])]
    assert [row["places"] for row in pairs(named, "id", "hi")] == [[0, 1]]
    assert [row["places"] for row in texts(named)] == [[1]]
    assert pairs(write(tmp_path / "bytes.tsv", b"x\t\xe9\ny\tz\n"))[0]["problem"] == "not UTF-8"


def test_quoted_records_of_csv_run_over_lines(tmp_path: Path) -> None:
    text = (
        'source,target\r\n"one,\r\n\r\nthen ""two""","एक,\r\nदो"\r\n5" lamp,दीपक\n"open,क\n\nx,ख\n3" lamp,ग\n"a\nb",घ\n'
    )
    found = pairs(write(tmp_path / "a.csv", text))
    assert [(int(row["id"].partition("#")[2]), row["raw"]) for row in found] == [
        (2, '"one,\r\n\r\nthen ""two""","एक,\r\nदो"'),
        (6, '5" lamp,दीपक'),  # quotes that are not closed cost their own lines
        (7, '"open,क'),
        (9, "x,ख"),
        (10, '3" lamp,ग'),
        (11, '"a\nb",घ'),
    ]
    # In TSV quotes are letters.
    assert [row["raw"] for row in pairs(write(tmp_path / "a.tsv", '"x\tक\ny"\tख\n'))] == ['"x\tक', 'y"\tख']


def test_an_open_quote_is_looked_for_in_few_lines(tmp_path: Path) -> None:
    far = 'en,hi\n"never closed,क\n' + "x,ख\n" * 1500 + '"a\nb",ग\n'
    found = pairs(write(tmp_path / "a.csv", far))
    assert len(found) == 1502
    assert [found[0]["raw"], found[-1]["raw"]] == ['"never closed,क', '"a\nb",ग']


def test_pairs_of_files(tmp_path: Path) -> None:
    write(tmp_path / "d/train.en", "one\n\nthree\u2028still three\n")
    packed = gzip.compress("एक\nदो\nतीन".encode())
    write(tmp_path / "d/train.hi.gz", packed)
    expected = [("one", "एक"), ("", "दो"), ("three\u2028still three", "तीन")]
    for place in ("d", "d/train", "d/train.en", "d/*.en"):
        found = pairs(tmp_path / place)
        assert sides(found) == expected
        assert [row["id"] for row in found] == [f"c/train.en#{n}" for n in (1, 2, 3)]
    assert [row["text"] for row in texts(tmp_path / "d")] == ["एक", "दो", "तीन"]


def test_unequal_files_are_refused_with_both_counts(tmp_path: Path) -> None:
    write(tmp_path / "train.en", "one\ntwo\nthree\nfour\n")
    write(tmp_path / "train.hi", "एक\nदो\n")
    with pytest.raises(UserError, match=r"train\.en has 4 lines and .*train\.hi has 2; expected line-aligned files"):
        pairs(tmp_path / "train")


def test_jsonl_and_parquet(tmp_path: Path) -> None:
    found = pairs(write(tmp_path / "a.jsonl", '{"en": "x"}\n[broken\n'))
    assert [(row["raw"], row["problem"]) for row in found] == [('{"en": "x"}', None), ("[broken", None)]
    table = pa.table({"n": [1, 2], "translation": [{"en": "x", "hi": "क"}, None]})
    pq.write_table(table, tmp_path / "b.parquet")
    assert sides(pairs(tmp_path / "b.parquet")) == [("x", "क"), (None, None)]
    assert [row["text"] for row in texts(tmp_path / "b.parquet")] == ["क", None]
    assert [row["problem"] for row in texts(tmp_path / "b.parquet", "n")] == ["malformed record"] * 2


def test_translation_memories(tmp_path: Path) -> None:
    found = pairs(write(tmp_path / "a.tmx", TMX.encode("utf-16")))
    assert sides(found) == [("Press OK now!", "अभी OK दबाएँ"), (None, None)]
    assert [row["problem"] for row in found] == [None, "no text of the language"]
    assert texts(tmp_path / "a.tmx")[0]["text"] == "अभी OK दबाएँ"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("Turn on<ph x='1'>&lt;br/&gt;</ph>the light", "Turn on the light"),
        ("Stop<it pos='begin'>\\n</it>play<ut>x</ut>it", "Stop play it"),
        ("one<bpt i='1'>&lt;p&gt;</bpt>two<ept i='1'>&lt;/p&gt;</ept>three", "one two three"),
        ("<bpt i='1'>&lt;u&gt;</bpt>F<ept i='1'>&lt;/u&gt;</ept>ile <hi>o<hi>p</hi></hi>en", "File open"),
        ("<bpt i='1'>{\\b </bpt>B<ept i='1'>}</ept>old<bpt i='2'/>er<ept i='2'/>", "Bolder"),
        ("Go <ph>&lt;img alt='<sub>the <ph>x</ph> map</sub>'/&gt;</ph>home<ph/>.", "Go home."),
        ("打开<ph/>灯", "打开灯"),
        ("बत्ती<ph/>जलाओ", "बत्ती जलाओ"),
    ],
)
def test_inline_codes_part_words(tmp_path: Path, code: str, text: str) -> None:
    tuv = "".join(f"<tuv xml:lang='{lang}'><seg>{code}</seg></tuv>" for lang in ("en", "hi"))
    found = pairs(write(tmp_path / "a.tmx", f"<tmx><body><tu>{tuv}</tu></body></tmx>"))
    assert sides(found) == [(text, text)]


def norwegian(url: object, lang: str) -> list[dict]:
    return rows(url, Wanted(PAIR_SIDES, ("en", lang), (None, None)))


def test_languages_by_name_and_by_old_tags(tmp_path: Path) -> None:
    pytest.importorskip("polib")
    po = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\nLanguage: {}\\n"\n\nmsgid "Open"\nmsgstr "x"\n'
    for name in ("Hindi", "hindi", "Marathi", "Klingon"):
        write(tmp_path / f"po/{name}.po", po.format(name))
    found = {row["id"]: (row["problem"], row["raw"]) for row in pairs(tmp_path / "po")}
    assert found.keys() == {"c/Hindi.po#1", "c/hindi.po#1", "c/Klingon.po"}, "Marathi is another language"
    problem, said = found["c/Klingon.po"]
    assert problem == "other language"
    assert said.endswith("a catalogue of 'Klingon'; expected 'hi', or the tag of another language")
    write(tmp_path / "nb.po", po.format("nb"))
    write(
        tmp_path / "no.tmx",
        "<tmx><body><tu><tuv lang='en'><seg>a</seg></tuv><tuv lang='no'><seg>b</seg></tuv></tu></body></tmx>",
    )
    write(tmp_path / "m.en", "a\n")
    write(tmp_path / "m.nb", "b\n")
    write(tmp_path / "t.csv", "nb,en\nb,a\n")
    for lang in ("nb", "no"):
        assert sides(norwegian(tmp_path / "nb.po", lang)) == [("Open", "x")]
        assert sides(norwegian(tmp_path / "no.tmx", lang)) == [("a", "b")]
        assert sides(norwegian(tmp_path / "m", lang)) == [("a", "b")]
        assert sides(norwegian(tmp_path / "m.en", lang)) == [("a", "b")]
        assert norwegian(tmp_path / "t.csv", lang)[0]["places"] == [1, 0]
    with pytest.raises(UserError, match="a catalogue of 'nb'; expected 'nn'"):
        norwegian(tmp_path / "nb.po", "nn")


def test_catalogues(tmp_path: Path) -> None:
    polib = pytest.importorskip("polib")
    found = pairs(write(tmp_path / "hi.po", PO))
    assert sides(found)[:3] == [("&File", "फ़ाइल (&F)"), ("one day", "एक दिन"), ("%d days", "%d दिन")]
    assert [row["problem"] for row in found] == [None, None, None, "fuzzy", "untranslated", "obsolete"]
    polib.pofile(str(tmp_path / "hi.po")).save_as_mofile(str(tmp_path / "m/hi.mo"[2:]))
    assert sorted(sides(pairs(tmp_path / "hi.mo"))) == sorted(sides(found)[:3])
    assert [row["text"] for row in texts(tmp_path / "hi.po")][:2] == ["फ़ाइल (&F)", "एक दिन"]
    write(tmp_path / "mr.po", PO.replace("hi_IN", "mr"))
    with pytest.raises(UserError, match="a catalogue of 'mr'; expected 'hi'"):
        pairs(tmp_path / "mr.po")
    assert len(pairs(tmp_path)) == len(found) + 3  # in a folder other languages are passed over


@pytest.mark.parametrize("fault", ["&#x3;", "byte", "&nbsp;", "</seg></tuv></tuv>", "<", "<ph>", "]]>"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_bad_unit_of_a_memory_costs_itself(tmp_path: Path, fault: str, encoding: str) -> None:
    own = encoding.replace("16", "16-le")
    wrong = {"utf-8": b"\xff", "utf-16": b"\x00\xd8"}[encoding] if fault == "byte" else fault.encode(own)

    def unit(number: int, more: str = "") -> str:
        sides = "".join(f'<tuv xml:lang="{lang}"><seg>{lang} {number}{more}</seg></tuv>' for lang in ("en", "hi"))
        return f"<tu>{sides}</tu>\n"

    head = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE tmx SYSTEM "tmx14.dtd"><tmx version="1.4"><body>\n'
    for bad in (0, 3, 6):
        units = [unit(number, "FAULT" if number == bad else "") for number in range(7)]
        data = (head + "".join(units) + "</body></tmx>").encode(encoding)
        data = data.replace("FAULT".encode(own), wrong)
        found = pairs(write(tmp_path / "a.tmx", data))
        assert [row["problem"] for row in found] == ["malformed unit" if n == bad else None for n in range(7)]
        assert sides(found)[6 - bad] == ((f"en {6 - bad}", f"hi {6 - bad}") if bad != 3 else (None, None))


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ('msgid "Open the "big" door"\nmsgstr "x"', "malformed message"),
        ('msgid "a" "b"\nmsgstr "x"', "malformed message"),
        ('msgid "open\nmsgstr "x"', "malformed message"),
        ('msgid "caf\udce9"\nmsgstr "x"', "not of its encoding"),
    ],
)
@pytest.mark.parametrize("gap", ["\n\n", "\n"])
def test_a_bad_message_of_a_catalogue_costs_itself(tmp_path: Path, message: str, problem: str, gap: str) -> None:
    pytest.importorskip("polib")
    head = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\nLanguage: hi_IN\\n"\n'
    good = ['#: a.c\nmsgid "one"\nmsgstr "एक"', 'msgctxt "m"\nmsgid "two"\nmsgstr ""\n"दो"']
    text = gap.join([head.rstrip(), good[0], message, good[1]])
    found = pairs(write(tmp_path / "hi.po", text.encode("utf-8", "surrogateescape")))
    assert sides(found) == [("one", "एक"), ("two", "दो"), (None, None)]
    line = text[: text.index(message)].count("\n") + 1
    assert (found[-1]["id"], found[-1]["problem"]) == (f"c/hi.po#line{line}", problem)


def test_a_folder_of_many_kinds(tmp_path: Path) -> None:
    write(tmp_path / "notes.md", "no corpus")
    write(tmp_path / ".hidden/a.tsv", "x\tक\n")
    write(tmp_path / "lines.txt", "एक\n")
    write(tmp_path / "a/one.tsv", "x\tक\n")
    write(tmp_path / "b/one.jsonl", "{}\n")
    assert [row["id"] for row in pairs(tmp_path)] == ["c/a/one.tsv#1", "c/b/one.jsonl#1"]
    assert [row["id"] for row in texts(tmp_path)] == ["c/lines.txt#1", "c/a/one.tsv#1", "c/b/one.jsonl#1"]


def test_a_catalogue_may_hold_any_sign(tmp_path: Path) -> None:
    pytest.importorskip("polib")
    head = '\ufeffmsgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n'
    text = 'msgid "a\u2028b \\"q\\" "\n"more"\nmsgstr "क"\n#~ msgid "old"\n#~ msgstr "पुराना"\n'
    found = pairs(write(tmp_path / "a.po", head + text))
    assert [(row["source"], row["target"]) for row in found] == [('a b "q" more', "क"), ("old", "पुराना")]


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        (None, b"", (), r"gone: no such file or folder; expected \.tsv"),
        ("a.md", b"x", (), r"a\.md: unknown kind of file"),
        ("a.txt", b"x", (), r"a\.txt: unknown kind of file; expected \.tsv"),
        ("a.en", b"x", (), r"a\.hi: missing; expected it beside .*a\.en"),
        ("a.tsv", "x\tक\n".encode("utf-16"), (), r"a\.tsv: its text is UTF-16; expected UTF-8"),
        ("a.tsv", "x\tक\n".encode("utf-32"), (), r"a\.tsv: its text is UTF-32; expected UTF-8"),
        ("a.tsv.gz", b"no gzip", (), r"a\.tsv\.gz: cannot be decompressed \(Not a gzipped file"),
        ("a.tsv.gz", CRC, (), r"a\.tsv\.gz: cannot be decompressed \(CRC check failed"),
        ("a.parquet", SNAPPY, (), r"a\.parquet: damaged at byte 37; expected the header of a page"),
        ("a.tsv", b"x\ty\n", (1, 3), r"target is set to column 3; expected 1 to 2"),
        ("a.tsv", b"x\ty\n", ("en", "hi"), r"no column 'en' among x, y; expected the one of source"),
        ("a.tsv", b"x\n", (), r"its first line has 1 column; expected source and target"),
        ("a.parquet", b"x", (), r"a\.parquet: damaged or not Parquet; expected a Parquet file"),
        ("a.tmx", b"<tmx><body><tu>", (), r"a\.tmx: not a readable TMX file"),
        ("a.po", b"nonsense here\n", (), r"a\.po: not a readable gettext catalogue"),
        ("a.po", b'msgid "ab\nmsgstr "\xe0\xa4\x95"\n', (), r"a\.po: .*line 1 is 'msgid \"ab'; expected a comment"),
        ("a.po", b'msgid "ab"\nmsgstr "\xe2\x80\xa8', (), r"a\.po: .*line 2 is"),
        ("a.mo", b"\xde\x12\x04\x95\x00", (), r"a\.mo: not a readable gettext catalogue"),
        ("sub/a.md", b"x", (), "no text found"),
    ],
)
def test_files_that_cannot_be_listed_are_reported(
    tmp_path: Path, name: str | None, content: bytes, columns: tuple, message: str
) -> None:
    if name and name.endswith("o"):
        pytest.importorskip("polib")
    place = tmp_path / "gone" if name is None else write(tmp_path / name, content)
    with pytest.raises(UserError, match=message):
        pairs(place.parent if name and "/" in name else place, *columns)


def test_what_a_truncated_file_holds_is_listed(tmp_path: Path) -> None:
    text = "".join(f"{'x' * n}\tक\n" for n in range(1, 200)).encode()
    found = pairs(write(tmp_path / "a.tsv.gz", gzip.compress(text)[:-20]))
    assert (found[-1]["id"], found[-1]["format"], found[-1]["problem"]) == ("c/a.tsv.gz#rest", "unlisted", "truncated")
    assert "Compressed file ended" in found[-1]["raw"]
    assert all(row["raw"].endswith("\tक") for row in found[:-1]), "no line is cut"
    found = pairs(write(tmp_path / "a.tmx", TMX.replace("utf-16", "utf-8")[:-60]))
    assert sides(found)[0] == ("Press OK now!", "अभी OK दबाएँ")
    assert (found[-1]["id"], found[-1]["problem"]) == ("c/a.tmx#rest", "unreadable")


def test_a_file_that_cannot_be_listed_costs_no_other(tmp_path: Path) -> None:
    damaged = {
        "lone.csv": b"a\rb,c\r",
        "open.csv": b'"en,hi\n1,2\n',
        "wide.tsv": "x\tक\n".encode("utf-16"),
        "other.tsv.gz": CRC,
        "one.tsv": b"x\n",
        "snappy.parquet": SNAPPY,
        "encoding.tmx": b'<?xml version="1.0" encoding="utf-99"?><tmx/>',
        "bytes.tmx": b'<?xml version="1.0" encoding="shift_jis"?><tmx/>',
        "entity.tmx": b'<!DOCTYPE tmx [<!ENTITY a "aaaa">]><tmx><body>&a;</body></tmx>',
        "unequal.en": b"one\ntwo\n",
        "unequal.hi": b"\xe0\xa4\x95\n",
        "catalogue.mo": b"\xde\x12\x04\x95" + b"\0" * 4 + b"\xff\xff\xff\x7f" + b"\0" * 40,
    }
    for name, data in damaged.items():
        write(tmp_path / name, data)
    write(tmp_path / "zz.tsv", "x\tक\n")
    found = pairs(tmp_path)
    away = {row["id"]: row["problem"] for row in found if row["format"] == "unlisted"}
    assert away.keys() == {f"c/{name}" for name in damaged if name != "unequal.hi"}
    assert (away["c/wide.tsv"], away["c/one.tsv"]) == ("other encoding", "other columns")
    assert (away["c/unequal.en"], away["c/catalogue.mo"]) == ("not line-aligned", "truncated")
    assert [row["raw"] for row in found if row["format"] != "unlisted"] == ["x\tक"]


def test_tags_may_be_nested_to_any_depth(tmp_path: Path) -> None:
    seg = "<hi>" * 2000 + "deep" + "</hi>" * 2000
    tuv = f"<tuv xml:lang='en'><seg>{seg}</seg></tuv><tuv xml:lang='hi'><seg>{seg}</seg></tuv>"
    found = pairs(write(tmp_path / "a.tmx", f"<tmx><body><tu>{tuv}</tu></body></tmx>"))
    assert sides(found) == [("deep", "deep")]


def test_text_that_is_no_lines_of_utf8_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its text is UTF-16 without a mark; expected UTF-8"):
        pairs(write(tmp_path / "a.tsv", "turn on\tचालू\n".encode("utf-16-le")))
    with pytest.raises(UserError, match="its lines end in CR alone; expected LF"):
        pairs(write(tmp_path / "b.tsv", "one\tएक\rtwo\tदो\r"))
    assert len(pairs(write(tmp_path / "c.TSV.GZ", gzip.compress("one\tएक\n".encode() * 3)))) == 3


def test_a_long_line_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("reading", "text"):
        monkeypatch.setattr(f"gristmill.actors.sources.{module}.LINE_BYTES", 1000)
    long = "y" * 5000
    write(tmp_path / "a.tsv", f"x\tक\n{long}\tख\nz\tग\n")
    assert [row["problem"] for row in pairs(tmp_path / "a.tsv")] == [None, "line too long", None]
    pq.write_table(pa.table({"en": ["x", long], "hi": ["क", "ख"]}), tmp_path / "a.parquet")
    assert [row["problem"] for row in pairs(tmp_path / "a.parquet")] == [None, "line too long"]


def test_a_file_that_expands_without_end_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tsv.gz", gzip.compress(b"\n" * (65 << 20), 1))
    with pytest.raises(UserError, match=r"expands more than 200 times; expected text"):
        pairs(tmp_path / "a.tsv.gz")


def test_batches_of_parquet_follow_the_size_of_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gristmill.actors.sources.columns._BATCH_BYTES", 10_000)
    table = pa.table({"en": [f"{n} " * 500 for n in range(200)], "hi": ["क"] * 200})
    for options in ({}, {"use_dictionary": False, "compression": "none"}, {"data_page_version": "2.0"}):
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=150, **options)
        assert [row["source"] for row in pairs(tmp_path / "a.parquet")] == table["en"].to_pylist()
        with opened(str(tmp_path / "a.parquet")) as file:
            parquet = Parquet(file)
            assert parquet.rows == [150, 50]
            assert max(batch.num_rows for batch in parquet.batches(0, ["en"])) < 10
            assert sum(batch.num_rows for batch in parquet.batches(0, ["hi"])) == 150
    monkeypatch.setattr("gristmill.actors.sources.columns.PAGE_BYTES", 100)
    with pytest.raises(UserError, match=r"a page of \d+ bytes at byte \d+; expected at most 100"):
        pairs(tmp_path / "a.parquet")
