from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gristmill.shards import store
from gristmill.shards.errors import UserError
from gristmill.shards.walking import walk


def test_bytes_go_in_and_come_out(root: str) -> None:
    url = store.join(root, "folder", "file")
    assert store.read_if_present(url) is None
    assert not store.exists(url)
    store.write_bytes(url, b"one")
    store.write_bytes(url, b"two")
    assert store.read_bytes(url) == b"two"
    assert store.exists(url)
    with store.open_read(url) as source:
        source.seek(1)
        assert source.read() == b"wo"


def test_a_missing_file_is_a_file_not_found_error(root: str) -> None:
    with pytest.raises(FileNotFoundError):
        store.read_bytes(store.join(root, "absent"))


def test_put_if_absent_keeps_the_first(root: str) -> None:
    url = store.join(root, "deep", "er", "file")
    assert store.put_if_absent(url, b"first")
    assert not store.put_if_absent(url, b"second")
    assert store.read_bytes(url) == b"first"


def test_of_many_writers_exactly_one_wins(root: str) -> None:
    writers = 16
    for attempt in range(3):
        url = store.join(root, "race", str(attempt))
        start = threading.Barrier(writers)

        def put(number: int, url: str = url, start: threading.Barrier = start) -> bool:
            start.wait()
            return store.put_if_absent(url, f"{number}".encode() * 1000)

        with ThreadPoolExecutor(writers) as pool:
            won = list(pool.map(put, range(writers)))
        assert sum(won) == 1
        assert store.read_bytes(url) == f"{won.index(True)}".encode() * 1000


def test_local_writes_leave_no_parts_behind(tmp_path) -> None:
    store.put_if_absent(str(tmp_path / "a"), b"1")
    store.put_if_absent(str(tmp_path / "a"), b"2")
    store.write_bytes(str(tmp_path / "a"), b"3")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_listing_and_walking_are_sorted(root: str) -> None:
    for name in ("b/2", "b/1", "a/1", "c"):
        store.write_bytes(store.join(root, name), b"x" * len(name))
    assert store.list_names(root) == ["a", "b", "c"]
    found = list(walk(root))
    assert sorted(f.url.removeprefix(root).lstrip("/") for f in found) == ["a/1", "b/1", "b/2", "c"]
    assert [f.url for f in found] == [f.url for f in walk(root)]
    assert {f.size for f in found} == {3, 1}
    assert [store.read_bytes(f.url) for f in walk(store.join(root, "c"))] == [b"x"]
    assert store.list_names(store.join(root, "absent")) == []


def test_walking_tells_a_version_that_follows_each_writing(root: str) -> None:
    for name in ("a/1", "b"):
        store.write_bytes(store.join(root, name), b"old")
    first = {f.url: f.version for f in walk(root)}
    assert all(first.values())
    assert {f.url: f.version for f in walk(root)} == first
    time.sleep(0.02)  # a file system's clock may go in steps
    store.write_bytes(store.join(root, "b"), b"new")
    store.filesystem(root)[0].invalidate_cache()
    second = {f.url: f.version for f in walk(root)}
    (changed,) = [url for url in first if first[url] != second[url]]
    assert changed.endswith("/b")
    assert [f.version for f in walk(store.join(root, "b"))] == [second[changed]]  # alone as in its folder


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_bytes(f"{tmp_path}/a/1", b"1")
    store.write_bytes(f"{tmp_path}/b/2", b"2")
    fs = store.filesystem(str(tmp_path))[0]
    whole = fs.ls

    def refuses(path: str, **options: object) -> list[object]:
        if path.endswith("/a"):
            raise PermissionError(13, "Permission denied", path)
        return whole(path, **options)

    monkeypatch.setattr(fs, "ls", refuses)
    with pytest.raises(UserError, match="access refused"):
        list(walk(str(tmp_path)))


def test_remove_takes_a_folder_and_minds_no_absence(root: str) -> None:
    store.write_bytes(store.join(root, "gone", "file"), b"1")
    store.remove(store.join(root, "gone"))
    store.remove(store.join(root, "gone"))
    assert store.read_if_present(store.join(root, "gone", "file")) is None


@pytest.mark.parametrize("url", ["nothing://x/y", "notaprotocol://"])
def test_an_unknown_protocol_is_reported(url: str) -> None:
    with pytest.raises(UserError, match=url.split(":")[0]):
        store.exists(url)


def test_a_file_put_after_a_listing_is_there(root: str) -> None:
    folder = store.join(root, "listed")
    store.write_bytes(store.join(folder, "first"), b"1")
    assert store.list_names(folder) == ["first"]
    code = "import sys; from gristmill.shards import store; store.write_bytes(sys.argv[1], b'2')"
    subprocess.run([sys.executable, "-c", code, store.join(folder, "second")], check=True)
    assert store.read_if_present(store.join(folder, "second")) == b"2"
    assert store.exists(store.join(folder, "second"))


def test_a_file_larger_than_any_of_its_kind_is_not_read(root: str) -> None:
    for data in (b"", b"1234"):
        store.write_bytes(store.join(root, "file"), data)
        assert store.read_limited(store.join(root, "file"), 4) == data
    store.write_bytes(store.join(root, "file"), b"12345")
    with pytest.raises(store.FileTooLarge, match="has more than 4 bytes; expected at most that"):
        store.read_limited(store.join(root, "file"), 4)
    with pytest.raises(FileNotFoundError):
        store.read_limited(store.join(root, "absent"), 4)


def test_pieces_are_those_of_the_whole(root: str) -> None:
    for data in (b"", b"12345678"):
        store.write_bytes(store.join(root, "file"), data)
        pieces = list(store.read_pieces(store.join(root, "file"), 3))
        assert (b"".join(pieces), max(map(len, pieces), default=0) <= 3) == (data, True)
