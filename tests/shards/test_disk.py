"""Files on disks: put by one of many, whole or not at all, lasting, on file systems with hard links and without."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.shards import disk, owner, store
from gristmill.shards.audit import audit_below
from gristmill.shards.engine import run_step
from gristmill.shards.errors import UserError
from gristmill.shards.walking import walk
from tests.fault.law_actors import corpus, law_step


@pytest.fixture
def exfat(tmp_path: Path) -> Iterator[Path]:
    """A real file system without hard links."""
    mount = shutil.which("mount.exfat-fuse", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    if os.geteuid() != 0 or mount is None or shutil.which("mkfs.exfat", path="/sbin:/usr/sbin") is None:
        pytest.skip("a disk of its own needs root, and `apt-get install exfat-fuse exfatprogs`")
    image, folder = tmp_path / "image", tmp_path / "exfat"
    folder.mkdir()
    with image.open("wb") as out:
        out.truncate(32 << 20)
    subprocess.run(["mkfs.exfat", str(image)], check=True, capture_output=True)
    loop = subprocess.run(["losetup", "-f", "--show", str(image)], capture_output=True, text=True).stdout.strip()
    try:
        if subprocess.run([mount, loop, str(folder)], capture_output=True).returncode:
            pytest.skip("this container lets no test mount a disk")
        yield folder
        subprocess.run(["umount", str(folder)], check=True)
    finally:
        subprocess.run(["losetup", "-d", loop], capture_output=True)


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hard links are refused as exFAT refuses them."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)


def race(folder: Path, writers: int = 6, names: int = 12) -> None:
    """Let writers put the same names at the same time; of each name one of them must have won."""
    start = threading.Barrier(writers)

    def put(number: int) -> list[int]:
        start.wait()
        return [name for name in range(names) if disk.put(str(folder / str(name)), lambda: [b"%d" % number] * 2000)]

    with ThreadPoolExecutor(writers) as pool:
        won = list(pool.map(put, range(writers)))
    assert sorted(name for one in won for name in one) == list(range(names))
    for number, mine in enumerate(won):
        assert all((folder / str(name)).read_text() == str(number) * 2000 for name in mine)
    assert sorted(os.listdir(folder)) == sorted(map(str, range(names))), "something was left"


def test_of_many_writers_one_puts_a_file_without_hard_links(tmp_path: Path, no_links: None) -> None:
    race(tmp_path / "race")


def test_of_many_writers_one_puts_a_file_on_exfat(exfat: Path) -> None:
    (exfat / "file").touch()
    with pytest.raises(PermissionError):
        os.link(exfat / "file", exfat / "link")
    race(exfat / "race")


def test_a_run_on_exfat(exfat: Path, tmp_path: Path) -> None:
    source = corpus(str(tmp_path / "corpus"), 4)
    made = [run_step(law_step(source), str(out), InProcessRunner(), 1) for out in (exfat / "out", tmp_path / "out")]
    assert made[0].digest == made[1].digest
    assert [gap for one in audit_below(str(exfat / "out")) for gap in one.gaps] == []
    with pytest.raises(UserError, match=r"a:b: cannot be written: .*does not take"):
        store.write_bytes(str(exfat / "a:b"), b"1")


DIE = """
import errno, os, signal, sys
from gristmill.shards import disk
def refuse(*_):
    raise PermissionError(errno.EPERM, "")
os.link, rename = refuse, os.rename
def dying(source, target):
    if os.path.basename(target) == "file":
        if sys.argv[2] == "moved":
            rename(source, target)
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
    if ".claim-" in str(target) and sys.argv[2] == "claimed":
        os.kill(os.getpid(), signal.SIGKILL)
os.rename = dying
disk.put(sys.argv[1], lambda: [b"of the dead"])
"""


@pytest.mark.parametrize("point", ["claimed", "moving", "moved"])
def test_a_writer_without_hard_links_that_dies_blocks_no_one(tmp_path: Path, no_links: None, point: str) -> None:
    path = str(tmp_path / "file")
    assert subprocess.run([sys.executable, "-c", DIE, path, point]).returncode == -signal.SIGKILL
    assert os.path.exists(path) == (point == "moved"), "a reader sees the whole file or none"
    assert not disk.put(path, lambda: [b"of the living"]), "what the dead one claimed is committed"
    assert Path(path).read_bytes() == b"of the dead"
    disk.sweep(str(tmp_path))
    assert os.listdir(tmp_path) == ["file"]


def test_a_late_writer_without_hard_links_takes_its_file_back(
    tmp_path: Path, no_links: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It saw no file, and claims the name when another has put it and is gone."""
    path, claim = str(tmp_path / "file"), disk._claim

    def late(own: Path, place: Path) -> bool:
        monkeypatch.setattr(disk, "_claim", claim)
        assert disk.put(path, lambda: [b"first"])
        return claim(own, place)

    disk._keeps_full_folders(tmp_path)
    monkeypatch.setattr(disk, "_claim", late)
    assert not disk.put(path, lambda: [b"second"])
    assert Path(path).read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


def test_without_hard_links_a_writer_helped_by_another_has_won(
    tmp_path: Path, no_links: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, settle = str(tmp_path / "file"), disk._settle

    def slow(*given: object) -> bool:
        monkeypatch.setattr(disk, "_settle", settle)
        assert not disk.put(path, lambda: [b"second"])
        assert Path(path).read_bytes() == b"first"
        return settle(*given)

    monkeypatch.setattr(disk, "_settle", slow)
    assert disk.put(path, lambda: [b"first"])
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_system_that_keeps_no_writers_apart_is_refused(
    tmp_path: Path, no_links: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def merges(source: str, target: str) -> None:  # as some mounts of object storages do
        shutil.copytree(source, target, dirs_exist_ok=True)
        shutil.rmtree(source)

    monkeypatch.setattr(os, "rename", merges)
    monkeypatch.setattr(disk, "_KEEPING", {})
    with pytest.raises(UserError, match="has no hard links, and renaming replaces full folders"):
        disk.put(str(tmp_path / "file"), lambda: [b"1"])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("how", ["put", "write"])
def test_names_last_before_a_write_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The file's data, then its name, then nothing more is done to it; the names of new folders before it."""
    done: list[str] = []
    fsync, link, replace = os.fsync, os.link, os.replace

    def synced(handle: int) -> None:
        done.append(f"sync {os.readlink(f'/proc/self/fd/{handle}')}")
        fsync(handle)

    def noted(act: Callable[..., None]) -> Callable[..., None]:
        def named(source: str, target: str) -> None:
            done.append(f"name {target}")
            act(source, target)

        return named

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", noted(link))
    monkeypatch.setattr(os, "replace", noted(replace))
    path = tmp_path / "new" / "deep" / "file"
    for again in (False, True):
        done.clear()
        (disk.put if how == "put" else disk.write)(str(path), lambda: [b"1"])
        assert done[-1] == f"sync {path.parent}"
        assert done[-2] == f"name {path}"
        assert disk.PART in done[-3]
        if not again:
            assert {f"sync {folder}" for folder in (tmp_path, tmp_path / "new")} <= set(done[:-3])
    if how == "write":
        shutil.rmtree(tmp_path / "new")
        done.clear()
        disk.write(str(path), lambda: [b"1"])
        assert {f"sync {folder}" for folder in (tmp_path, tmp_path / "new")} <= set(done[:-3]), "made again"


def test_what_dead_writers_left_is_taken_away(tmp_path: Path) -> None:
    dead, alive, elsewhere = f"{owner._short(owner.machine())}-1-1", owner.tag(), "0badcafe-1-1"
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    for tag in (dead, alive, elsewhere, "old1234"):
        (inner / f"{disk.PART}{tag}-x").touch()
    (tmp_path / f"{disk.PART}{dead}-folder").mkdir()
    (tmp_path / f"{disk.PART}{dead}-folder" / "part").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    (inner / "kept").touch()
    assert disk.sweep(str(tmp_path)) == 4
    assert sorted(path.name for path in inner.iterdir()) == [f"{disk.PART}{alive}-x", "kept"]
    assert disk.sweep(str(tmp_path / "absent")) == 0


def test_a_part_that_is_taken_away_is_written_again(tmp_path: Path) -> None:
    tries = 0

    def chunks() -> Iterator[bytes]:
        nonlocal tries
        tries += 1
        yield b"1"
        if tries == 1:  # as another machine does, which cannot know that this process lives
            for part in tmp_path.glob(f"{disk.PART}*"):
                part.unlink()

    assert disk.put(str(tmp_path / "file"), chunks)
    assert (tmp_path / "file").read_bytes() == b"1"
    assert tries == 2


def test_a_source_that_is_gone_is_not_taken_for_the_target(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        store.write_chunks(str(tmp_path / "a" / "file"), lambda: [(tmp_path / "absent").read_bytes()])


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EROFS, "read-only"),
        (errno.EDQUOT, "quota"),
        (errno.ENOSPC, "no space left"),
        (errno.ENOTCONN, "file system is gone"),
        (errno.EIO, "input/output error"),
        (errno.EFBIG, "larger than"),
        (errno.EMFILE, "too many open files"),
        (errno.ETXTBSY, "cannot be written: Text file busy"),
    ],
)
def test_an_error_of_a_disk_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def fails(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(UserError, match=said) as caught:
        store.put_if_absent(str(tmp_path / "file"), b"1")
    assert str(tmp_path / "file") in str(caught.value)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []


LONG = "n" * 300


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a file is in the place of its folder; expected a folder, or an unused path"):
        disk.write(f"{tmp_path}/file/b", lambda: [b"1"])
    for inner in ("file", "file/deep"):
        with pytest.raises(UserError, match=f"{tmp_path}/file is a file; expected a folder, or an unused path"):
            disk.try_folder(f"{tmp_path}/{inner}")


@pytest.mark.parametrize(
    "inner", [LONG, f"{LONG}/a", "loop/a", "dangling", "dangling/a", "file/a", "deep/" * 1100, "a\0b"]
)
def test_a_place_that_cannot_be_is_empty_to_readers_and_refused_to_writers(tmp_path: Path, inner: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    url = f"{tmp_path}/{inner}"
    assert store.read_if_present(url) is None
    assert not store.exists(url)
    assert list(walk(url)) == []
    assert store.list_names(url) == []
    store.remove(f"{url}/b")
    with pytest.raises(UserError):
        store.write_bytes(store.join(url, "b"), b"1")
    with pytest.raises(UserError):
        disk.try_folder(url)
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file", "loop"]
