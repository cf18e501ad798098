"""Submission to a real head with token authentication, and the doctor on it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.cluster import submission
from gristmill.cluster.packing import MOST_BYTES
from gristmill.cluster.session import LOOPBACK  # the head is on loopback, and so are its clients
from gristmill.cluster.submission import check_variables, packed
from gristmill.shards.errors import UserError
from tests.cluster.heads import ROOT, TOKEN, Head, end, listening, started
from tests.pipelines.own_code import written


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """One head for all tests here; its folder has a short name, since it contains sockets."""
    with tempfile.TemporaryDirectory(prefix="gm") as folder, started(Path(folder)) as head:
        yield head


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A recipe file outside the checkout."""
    path = tmp_path / "tiny.yaml"
    path.write_text(f"recipe: tests.pipelines.tiny\nout: {tmp_path}/out\nrunner: inprocess\n")
    return path


def start(head: Head, *words: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gristmill", *map(str, words)],
        cwd=ROOT,
        env=head.environment(**environment),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def call(head: Head, *words: object, **environment: str) -> tuple[int, str, str]:
    process = start(head, *words, **environment)
    output, errors = process.communicate(timeout=200)
    assert "Traceback" not in output + errors, output + errors
    return process.returncode, output, errors


def submit(head: Head, *words: object, **environment: str) -> tuple[int, str, str]:
    return call(head, "submit", *words, "--address", head.dashboard, **environment)


def test_a_job_is_followed_to_its_end_and_its_exit_code_returned(head: Head, tiny: Path, tmp_path: Path) -> None:
    code, output, errors = submit(head, tiny, "records=30", "--submission-id", "watched")
    assert (code, errors) == (0, "")
    assert "submitted watched to" in output
    assert "upper: sealed, 28 records, 1 rejected, 1 quarantined" in output
    assert f"report: {tmp_path}/out/report.html" in output
    again = submit(head, tiny, "records=30")
    assert again[0] == 0
    assert "nothing to do" in again[1]
    taken = submit(head, tiny, "--submission-id", "watched")
    assert taken[0] == 2
    assert "the name was used before" in taken[2]
    # Three of eight fail, more than a run may lose: exit code 1; a mistake that only the job can find: 2.
    assert submit(head, tiny, f"out={tmp_path}/broken", "records=8", "broken=3")[0] == 1
    code, output, _ = submit(head, tiny, f"out={tmp_path}/refused", "text=/no/such/file")
    assert code == 2
    assert "gristmill: text: /no/such/file is not there" in output
    assert not (tmp_path / "refused").exists()


@pytest.mark.slow
def test_a_stopped_job_resumes_when_submitted_again(head: Head, tiny: Path, tmp_path: Path) -> None:
    following = start(head, "submit", tiny, "records=60", "--env", "TINY_PAUSE=1", "--address", head.dashboard)
    assert following.stdout is not None
    job = following.stdout.readline().split()[1]
    until(lambda: receipts(tmp_path))
    following.send_signal(signal.SIGINT)
    _, errors = following.communicate(timeout=60)
    assert following.returncode == 130
    stop = f"`gristmill stop {job} --address {head.dashboard}`"
    assert errors == f"gristmill: no longer following; {job} continues, {stop} ends it\n"
    now = len(receipts(tmp_path))
    until(lambda: len(receipts(tmp_path)) > now)
    code, output, _ = call(head, "stop", job, "--address", head.dashboard)
    assert code == 0
    assert f"{job}: stopped; committed work is kept" in output
    kept = receipts(tmp_path)
    assert 0 < len(kept) < 15
    code, output, _ = submit(head, tiny, "records=60")
    assert code == 0
    assert f"upper: 15 shards, {len(kept)} of them kept from before" in output
    assert {name: receipts(tmp_path)[name] for name in kept} == kept
    assert not list((tmp_path / "out").glob(".lease/*"))


@pytest.mark.slow
def test_the_users_own_code_is_uploaded(head: Head, tmp_path: Path) -> None:
    place, elsewhere = written(tmp_path), tmp_path / "elsewhere"
    elsewhere.mkdir()
    config = place / "hello.yaml"
    for words, out in (
        (["submit", config, "runner=inprocess", "--address", head.dashboard], tmp_path / "submitted"),
        (["run", config, "runner=ray", "workers=1"], tmp_path / "joined"),  # its workers find the code only there
    ):
        command = [sys.executable, "-P", "-m", "gristmill", *map(str, words), f"out={out}"]
        env = head.environment(RAY_ADDRESS=head.gcs, **LOOPBACK)
        done = subprocess.run(command, cwd=elsewhere, env=env, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stdout + done.stderr
        assert list(out.glob("greeted/*/seal.json"))


def receipts(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("out/upper/*/receipts/*.json")}


def until(true) -> None:
    deadline = time.monotonic() + 90
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_wrong_token_is_reported_in_one_sentence(head: Head, tiny: Path, tmp_path: Path) -> None:
    wrong = submit(head, tiny, RAY_AUTH_TOKEN="f" * 64)
    assert wrong[0] == 2
    assert wrong[2].splitlines() == [
        f"gristmill: {head.dashboard}: the token is missing or wrong; expected it in RAY_AUTH_TOKEN, or its file in "
        "RAY_AUTH_TOKEN_PATH"
    ]
    # The given address takes precedence over one in the environment.
    none = submit(head, tiny, RAY_AUTH_TOKEN="", HOME=str(tmp_path), RAY_ADDRESS="http://127.0.0.1:9")
    assert none[0] == 2
    assert "the token is missing or wrong" in none[2]


def test_the_doctor_checks_each_node(head: Head, tmp_path: Path) -> None:
    # The output is on a separate disk, as on a node of another machine.
    code, output, errors = call(head, "doctor", tmp_path / "new" / "out", RAY_ADDRESS=head.gcs, **LOOPBACK)
    assert code == 0, output + errors
    (node,) = [line for line in output.splitlines() if " node " in line]
    assert node.startswith("OK    node ")
    for what in ("packages as the driver's", "put if absent holds", "/dev/shm", "0 GPUs"):
        assert what in node
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_an_output_on_one_machine_is_refused(head: Head, tiny: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "out"
    hidden.mkdir()
    ray = Path(sys.executable).parent / "ray"
    # A worker would replace 127.0.0.1 by the machine's outer address, at which the head does not listen.
    place = head.gcs.replace("127.0.0.1", "0.0.0.0")
    worker = f"mount -t tmpfs none {hidden} && exec {ray} start --block --address={place} --num-cpus=1"
    worker += " --node-ip-address=127.0.0.2 --object-store-memory=100000000"
    words = ["unshare", "--mount", "--propagation=private", "sh", "-c", worker]
    if subprocess.run([*words[:-1], f"mount -t tmpfs none {hidden}"], capture_output=True).returncode:
        pytest.skip("only root may mount a disk that one node sees")
    node = subprocess.Popen(
        words,
        env=head.environment(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: head.nodes() == 2)
        code, refused, _ = submit(head, tiny, "runner=ray")
        result = call(head, "doctor", hidden, RAY_ADDRESS=head.gcs, **LOOPBACK)
    finally:
        end(node)
    assert code == 2, refused
    assert "this path is on the disk of one machine, and the cluster has 2 nodes" in refused
    assert result[0] == 1
    (bad,) = [line for line in result[1].splitlines() if line.startswith("FAIL")]
    assert "are not seen" in bad


def test_nothing_listens_beyond_this_machine_and_the_token_is_not_logged(head: Head, tmp_path: Path) -> None:
    found = listening(head)
    assert {"gcs_server", "raylet"} <= {name for _, name in found}
    assert {ip for ip, _ in found} == {"127.0.0.1"}
    place = head.folder
    found = [
        path
        for folder in (place, tmp_path.parent)
        for path in folder.rglob("*")
        if path.is_file() and not path.is_socket() and TOKEN.encode() in path.read_bytes()
    ]
    assert found == []


# Without a cluster.


def test_an_address_that_is_silent_or_needs_no_token_is_rejected(head: Head, tiny: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        port = server.getsockname()[1]
        code, _, errors = call(head, "submit", tiny, "--address", f"http://127.0.0.1:{port}")
        assert code == 2
        assert "anyone who reaches this cluster can use it" in errors
    code, _, errors = call(head, "submit", tiny, "--address", f"http://127.0.0.1:{port}")
    assert code == 2
    assert "no answer" in errors


def test_mistakes_are_reported_before_any_upload(gristmill, tiny: Path, tmp_path: Path) -> None:
    words = ["--address", "http://127.0.0.1:9"]
    for given, message in {
        "recrds=3": "did you mean 'records'?",
        "out=out/here": "a relative path would be in the job's copy",
    }.items():
        result = gristmill("submit", tiny, given, *words)
        assert result.exit_code == 2
        assert message in result.stderr
    result = gristmill("submit", tiny, "--env", "AWS_SECRET_ACCESS_KEY=x", *words)
    assert result.exit_code == 2
    assert "looks like a secret" in result.stderr
    assert "expected the address of the cluster's dashboard" in gristmill("submit", tiny).stderr


def test_the_package_and_the_users_own_code_are_uploaded(monkeypatch, tmp_path: Path) -> None:
    names = ("__init__.py", "a.py", ".env", ".git/x", "env/pyvenv.cfg", "env/x", "out/x", "data/x")
    for name in (*names, "mine/run.json", "mine/set/data.parquet", "__pycache__/a.pyc", "out2/data/__init__.py"):
        path = tmp_path / "lab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    (tmp_path / "lab" / "up").symlink_to(tmp_path / "lab")
    (tmp_path / "linked").symlink_to(tmp_path / "lab" / "out2")
    (tmp_path / "one.py").write_text("1")
    own = {"lab": tmp_path / "lab", "linked": tmp_path / "linked", "one": tmp_path / "one.py"}
    monkeypatch.setattr(submission, "own_modules", lambda: own)
    with packed("configs/x.yaml", b"2") as (folder, place):
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert {name for name in files if not name.startswith("gristmill/")} == {
            *("lab/__init__.py", "lab/a.py", "lab/out2/data/__init__.py", "linked/data/__init__.py", "one.py"),
            "submitted/x.yaml",
        }
        assert {"gristmill/__main__.py", "gristmill/shards/store.py", "gristmill/configs/distill.yaml"} <= files
        assert (place, (folder / place).read_bytes()) == ("submitted/x.yaml", b"2")
    with packed("s3://bucket/y.yaml", b"3") as (folder, place):
        assert (place, (folder / place).read_bytes()) == ("submitted/y.yaml", b"3")
    with (tmp_path / "lab" / "large.bin").open("wb") as large:
        large.truncate(MOST_BYTES)
    wrong = r"32 at most; .* the largest are lab/large.bin \(32 MiB\)"
    with pytest.raises(UserError, match=wrong), packed("x", b""):
        pass
    check_variables({"AWS_ENDPOINT_URL": "http://x"})
