"""The Slurm script, run for real on loopback: only ``srun``, ``scontrol`` and ``hostname`` are stand-ins."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gristmill.cluster.fleet.settings import Fleet
from gristmill.cluster.fleet.slurm import slurm
from gristmill.shards.errors import UserError
from tests.environment import without_ray

ROOT = Path(__file__).resolve().parents[3]

SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
SLURM_PROCID=0 exec "$@"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then printf 'one\\ntwo\\n'; else echo "$@" >> "$CALLS"; fi
"""
# The driver: sees two machines, lets one vanish without a word, and sees it come back as a new one.
DRIVER = """#!{python}
import os, signal, sys, time, urllib.request
import psutil, ray
print("arguments:", *sys.argv[1:], flush=True)
ray.init(log_to_driver=False, logging_level="ERROR")
alive = lambda: {{n["NodeID"]: n for n in ray.nodes() if n["Alive"]}}
def until(right):
    for _ in range(400):
        if right(alive()):
            return alive()
        time.sleep(0.1)
    sys.exit(f"machines: {{alive()}}")
first = until(lambda nodes: len(nodes) == 2)
print("cpus:", sorted(int(n["Resources"]["CPU"]) for n in first.values()), flush=True)
port = int(os.environ["port"])
for where in (f"{{port + 1}}/api/gcs_healthz", f"{{port + 4}}/api/local_raylet_healthz"):
    for _ in range(100):
        try:
            print("probe:", urllib.request.urlopen(f"http://127.0.0.1:{{where}}", timeout=5).status, flush=True)
            break
        except OSError:
            time.sleep(0.2)
worker = next(n for n in first.values() if int(n["Resources"]["CPU"]) == 3)
for process in psutil.process_iter(["name", "cmdline"]):
    line = " ".join(process.info["cmdline"] or ())
    if process.info["name"] == "raylet" and f"--node_manager_port={{worker['NodeManagerPort']}}" in line:
        process.send_signal(signal.SIGKILL)
    elif process.info["name"] == "raylet" and worker["NodeID"] in line:
        process.send_signal(signal.SIGKILL)
until(lambda nodes: worker["NodeID"] not in nodes)
until(lambda nodes: len(nodes) == 2)
print("rejoined", flush=True)
"""


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    given = yaml.safe_load((ROOT / "configs" / "fleet.yaml").read_text())
    token = tmp_path / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    given["token"] = {"file": str(token)}
    given["storage"] = {}
    given["overrides"] = ["out=/data/with space", "seed=1"]
    given["slurm"] = {
        "nodes": 2,
        "cpus": 3,
        "checkout": str(ROOT),
        "venv": None,
        "partition": "gpu",
        "account": "speech",
    }
    return given


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """What Slurm tells a job, and programs in its place."""
    programs = tmp_path / "bin"
    programs.mkdir()
    stand_ins = {
        "srun": SRUN,
        "scontrol": SCONTROL,
        "hostname": "#!/bin/sh\necho 127.0.0.1\n",
        "gristmill": DRIVER.format(python=sys.executable),
    }
    for name, text in stand_ins.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    number = str(100_000 + secrets.randbelow(100_000))
    return without_ray() | {
        "PATH": path,
        "SLURM_JOB_ID": number,
        "SLURM_JOB_NODELIST": "[one-two]",
        "CALLS": str(tmp_path / "calls"),
    }


def _script(tmp_path: Path, settings: dict[str, Any]) -> str:
    path = tmp_path / "job.sh"
    path.write_text(slurm(Fleet(**settings)))
    return str(path)


@pytest.mark.parametrize("gpus", [0, 4])
def test_the_script_is_sound_shell(settings: dict[str, Any], tmp_path: Path, gpus: int) -> None:
    settings["slurm"]["gpus"] = gpus
    settings["storage"] = {"credentials_file": "~/.aws/credentials", "region": "eu-west-1"}
    script = _script(tmp_path, settings)
    subprocess.run(["bash", "-n", script], check=True)
    # SC2329: functions are handed to srun by name.
    shellcheck = Path(sys.executable).with_name("shellcheck")
    subprocess.run([shellcheck, "--shell=bash", "--exclude=SC2329", script], check=True)
    lines = Path(script).read_text().splitlines()
    assert "#SBATCH --partition=gpu" in lines
    assert "#SBATCH --export=NONE" in lines
    assert ("#SBATCH --gpus-per-node=4" in lines) is (gpus == 4)
    assert not any("0.0.0.0" in line or line.strip() == "ray stop" for line in lines)


@pytest.mark.parametrize("mode", [0o644, 0o640, None])
def test_a_token_that_others_may_read_is_refused(
    settings: dict[str, Any], job: dict[str, str], tmp_path: Path, mode: int | None
) -> None:
    token = Path(settings["token"]["file"])
    token.unlink() if mode is None else token.chmod(mode)
    done = subprocess.run(["bash", _script(tmp_path, settings)], env=job, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert "expected a file of mode 0600" in done.stderr


@pytest.mark.slow
def test_a_head_and_a_worker_that_comes_back(settings: dict[str, Any], job: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    process = subprocess.Popen(
        ["bash", _script(tmp_path, settings)],
        env=job,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=200)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        shutil.rmtree(f"/tmp/gristmill-{job['SLURM_JOB_ID']}", ignore_errors=True)
    assert process.returncode == 0, output
    assert "arguments: run configs/distill.yaml out=/data/with space seed=1" in output
    assert "cpus: [1, 3]" in output
    assert output.count("probe: 200") == 2  # without the token: what Kubernetes asks too
    assert re.search(r"gristmill: Ray on \S+ ended \(exit code -?\d+\); it joins \S+ again", output)
    assert "rejoined" in output
    assert Path(settings["token"]["file"]).read_text() not in output


def test_before_its_time_is_up_the_job_is_queued_again(
    settings: dict[str, Any], job: dict[str, str], tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    (programs / "ray").write_text('#!/bin/bash\n[ "$1" = health-check ] || exec sleep 1000\n')
    (programs / "ray").chmod(0o755)
    (programs / "gristmill").write_text("#!/bin/bash\ntrap 'kill $!; exit 130' TERM\necho begun\nsleep 1000 & wait\n")
    process = subprocess.Popen(
        ["bash", _script(tmp_path, settings)], env=job, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 130
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
    assert (tmp_path / "calls").read_text() == f"requeue {job['SLURM_JOB_ID']}\n"


def test_a_batch_job_needs_a_recipe(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="recipe is missing: a batch job needs one"):
        slurm(Fleet(**settings | {"recipe": None}))
