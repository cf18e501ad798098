"""The dashboard's job page and our report, as a browser shows them."""

from __future__ import annotations

import http.server
import os
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.watched import Watched

pytestmark = pytest.mark.timeout(900)  # the cluster is started within the first test
SHOTS = os.environ.get("GRISTMILL_SHOTS")  # a folder in which the pictures are kept


@pytest.fixture(scope="module")
def chromium() -> str:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed (Debian: `apt-get install chromium`)")
    return program


def show(chromium: str, url: str, tmp_path: Path, name: str) -> str:
    """Return the page as it stands after its scripts ran, and keep a picture of it."""
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command += ["--disable-background-networking", f"--user-data-dir={tmp_path}/profile", "--window-size=1600,1000"]
    command += ["--virtual-time-budget=15000", "--timeout=60000"]
    picture = Path(SHOTS or tmp_path) / f"{name}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    for wanted in (f"--screenshot={picture}", "--dump-dom"):
        shown = subprocess.run([*command, wanted, url], capture_output=True, text=True, timeout=150, check=True)
    assert picture.stat().st_size > 10_000, "an empty page"
    return re.sub(r"<[^>]*>", " ", shown.stdout)


@pytest.fixture
def signed_in(watched_cluster: Watched) -> Iterator[str]:
    """The dashboard behind a door on loopback that shows the token for whoever comes: a browser has no other way."""

    class Door(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {"Authorization": f"Bearer {watched_cluster.token}"}
            asked = urllib.request.Request(watched_cluster.dashboard + self.path, headers=headers)
            try:
                with urllib.request.urlopen(asked, timeout=30) as answer:
                    status, kind, body = answer.status, answer.headers.get("Content-Type", ""), answer.read()
            except urllib.error.HTTPError as error:
                status, kind, body = error.code, "text/plain", error.read()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_the_job_page(chromium: str, signed_in: str, tmp_path: Path) -> None:
    text = show(chromium, f"{signed_in}/#/jobs", tmp_path, "jobs")
    assert "tests.cluster.watched_driver" in text
    assert "RUNNING" in text
    text = show(chromium, f"{signed_in}/#/jobs/01000000", tmp_path, "job")
    assert "StageActor" in text or "Ray Core Overview" in text or "RUNNING" in text


def test_without_the_token_there_is_nothing_to_see(chromium: str, watched_cluster: Watched, tmp_path: Path) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{watched_cluster.dashboard}/api/v0/actors", timeout=10)
    assert refused.value.code == 401
    assert "watched_driver" not in show(chromium, f"{watched_cluster.dashboard}/#/jobs", tmp_path, "no-token")


def test_our_report(chromium: str, tmp_path: Path) -> None:
    from gristmill.pipelines.command.launch import carry_out
    from gristmill.pipelines.config import load
    from gristmill.pipelines.progress import RunProgress

    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(f"recipe: tests.pipelines.tiny\nout: {tmp_path}/out\nrunner: inprocess\n")
    carry_out(load(str(recipe)), RunProgress())
    text = show(chromium, f"file://{tmp_path}/out/report.html", tmp_path, "report")
    assert "36 copies." in text
    assert "upper" in text
