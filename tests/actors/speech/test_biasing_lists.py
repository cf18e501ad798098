from pathlib import Path

import pytest

from gristmill.actors.speech.biasing_lists import LISTS, lists_of, parse_lists, read_lists
from gristmill.actors.speech.word_lists import WordLists, WordListSettings
from gristmill.shards.errors import UserError

LINE = '1-2\tcall ann o\'neil\t["ann", "o\'neil"]\t["ann", "bob", "o\'neil"]'


def test_a_file_is_read_by_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "lists.tsv"
    path.write_bytes(f'\ufeff{LINE}\r\n\n1-3\tcall\t[]\t["bob"]'.encode())
    table = read_lists(str(path))
    assert table.schema == LISTS
    assert table.to_pylist() == [
        {"id": "1-2", "text": "call ann o'neil", "names": ["ann", "o'neil"], "listed": ["ann", "bob", "o'neil"]},
        {"id": "1-3", "text": "call", "names": [], "listed": ["bob"]},
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{LINE}\n1-3\tcall", "lists.tsv: line 2 has 2 fields; expected an id, a text"),
        ("1-2 call ann", "line 1 has 1 field; expected"),
        ('\tcall\t[]\t["bob"]', "line 1 has no id"),
        ('1-2\tcall ann\tann\t["ann"]', r"""line 1: rare words are 'ann'; expected single words as JSON"""),
        ('1-2\tcall ann\t["ann"]\t{"ann": 1}', "line 1: list of words are"),
        ('1-2\tcall ann\t["ann"]\t["ann", 2]', "line 1: list of words have 2; expected"),
        ('1-2\tcall ann\t["ann"]\t["ann", "bob dylan"]', "have 'bob dylan'"),
        ('1-2\tcall\t["ann"]\t["ann"]', "line 1: the text lacks 'ann'; expected the rare words of the text"),
        ('1-2\tcall ann\t["ann"]\t["bob"]', "line 1: the list lacks 'ann'; expected a list with all"),
        (f"{LINE}\n\n{LINE}", "line 3 is of 1-2 again"),
        ("\n", "has no line; expected"),
    ],
)
def test_a_wrong_line_is_told(text: str, expected: str) -> None:
    with pytest.raises(UserError) as told:
        parse_lists(text.encode(), "lists.tsv")
    assert expected in str(told.value)


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.tsv: no such file; expected lists of words"):
        read_lists(str(tmp_path / "gone.tsv"))
    with pytest.raises(UserError, match="not UTF-8"):
        parse_lists(b"\xff\xfe", "lists.tsv")


def test_records_are_found_by_id_or_by_the_name_of_their_file() -> None:
    lists = parse_lists(f'{LINE}\n1.3\tcall\t[]\t["bob"]'.encode(), "lists.tsv")
    found = lists_of(lists, ["corpus/1.3.flac", "1.3", "a/b/1-2.wav"])
    assert found.schema == LISTS
    assert found["id"].to_pylist() == ["corpus/1.3.flac", "1.3", "a/b/1-2.wav"]
    assert found["names"].to_pylist() == [[], [], ["ann", "o'neil"]]
    with pytest.raises(UserError, match=r"none for c/2\.flac; expected one for each of 2 records"):
        lists_of(lists, ["c/1-2.flac", "c/2.flac"])


def test_the_published_lists_of_librispeech(data_dir: Path) -> None:
    table = read_lists(str(data_dir / "speech" / "librispeech-dev" / "biasing_100.tsv"))
    assert len(table) == 40
    given, absent = (WordLists([], WordListSettings(size=None, present=present)) for present in (True, False))
    for row, listed, others in zip(table.to_pylist(), given.of_batch(table), absent.of_batch(table), strict=True):
        assert listed == sorted(set(row["listed"]))
        assert len(listed) >= 100
        assert set(listed) - set(others) == set(row["names"])
