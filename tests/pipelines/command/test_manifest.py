"""The command for fleet manifests: reading, error messages, and no secret in the output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gristmill.pipelines.command.manifest import KINDS, render
from gristmill.shards.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
FLEET = str(ROOT / "configs" / "fleet.yaml")
CANARY = "canary-5d1c0e9b7a"

WRONG = {
    "key": ("nam=x", "nam: there is no such setting, did you mean 'name'?"),
    "inner key": ("spot.maximum=3", "spot.maximum: there is no such setting, did you mean 'max'?"),
    "key of another level": ("drain_second=3", "did you mean 'kubernetes.drain_seconds'?"),
    "type": ("cpu.max=many", "cpu.max: 'many' is not right; expected a valid integer"),
    "order": ("cpu.min=99", "cpu: min=99 is more than max=16"),
    "choice": ("cloud=azure", "cloud: 'azure' is not right; expected 'aws' or 'gcp'"),
    "quantity": ("head.memory=16", "head.memory: "),
    "shared memory": ("head.shared_memory=64Gi", "head: shared_memory=64Gi must be less than memory=16Gi"),
    "no GPU": ("gpu.gpus=0", "gpu.gpus is 0; expected 1 or more"),
    "password": ("storage.endpoint=https://user:secret@host", "storage.endpoint: the URL contains a password"),
    "another project's key": ("seed=1", "seed: there is no such setting"),
}


@pytest.mark.parametrize(("override", "message"), WRONG.values(), ids=WRONG)
def test_mistakes_are_reported_by_their_path(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        render("kuberay", [FLEET, override])
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_unknown_kind_and_a_missing_file_are_reported() -> None:
    with pytest.raises(UserError, match="'kubray' is not a kind of manifest, did you mean 'kuberay'"):
        render("kubray", [FLEET])
    with pytest.raises(UserError, match=r"no-such\.yaml: there is no such fleet file"):
        render("slurm", ["no-such.yaml"])


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_secret_of_the_environment_is_rendered(monkeypatch: pytest.MonkeyPatch, kind: str, cloud: str) -> None:
    for name in ("RAY_AUTH_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(name, CANARY)
    text = render(kind, [FLEET, f"cloud={cloud}"])
    assert CANARY not in text
    if kind != "slurm":
        assert yaml.safe_load(text)


@pytest.mark.parametrize("kind", KINDS)
def test_a_secret_that_was_put_into_the_fleet_is_refused(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    with pytest.raises(UserError, match=r"the manifest would contain the value of \$AWS_SECRET_ACCESS_KEY") as caught:
        render(kind, [FLEET, "images.cpu=x:${oc.env:AWS_SECRET_ACCESS_KEY}", "name=${oc.env:AWS_SECRET_ACCESS_KEY}"])
    assert CANARY not in str(caught.value)


def test_the_command_prints_the_manifest_and_tells_mistakes_in_a_sentence() -> None:
    def gristmill(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gristmill", "manifest", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)

    done = gristmill("kuberay", "name=speech")
    assert (done.returncode, done.stderr) == (0, "")
    assert yaml.safe_load(done.stdout)["metadata"]["name"] == "speech"
    wrong = gristmill("kuberay", "nmae=speech")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("gristmill: configs/fleet.yaml: nmae: there is no such setting")
