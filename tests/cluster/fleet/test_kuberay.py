"""KubeRay manifests against the API's schema, Kubernetes' own, and what Ray's autoscaler reads out of them."""

from __future__ import annotations

import copy
import importlib.resources
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from referencing import Registry, Resource

from gristmill.cluster.fleet.kuberay import kuberay, ray_cluster, ray_job
from gristmill.cluster.fleet.settings import Fleet

ROOT = Path(__file__).resolve().parents[3]
VERSION = "1.33"


@pytest.fixture
def settings() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "configs" / "fleet.yaml").read_text())


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads((Path(__file__).parent / "data" / "kuberay-v1.schema.json").read_text())
    folder = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{VERSION}.0-local-strict"
    definitions = json.loads((folder / "_definitions.json").read_text())
    registry: Registry = Registry().with_resource(definitions["$id"], Resource.from_contents(definitions))
    return jsonschema.Draft202012Validator(schema, registry=registry)


def _templates(manifest: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    spec = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    yield "head", spec["headGroupSpec"]["template"]
    for group in spec["workerGroupSpecs"]:
        yield group["groupName"], group["template"]


@pytest.mark.parametrize("render", [ray_job, ray_cluster])
@pytest.mark.parametrize("queue", [None, "batch"])
def test_a_manifest_is_as_kuberay_and_kubernetes_want_it(
    settings: dict[str, Any], validator: Any, render: Callable[[Fleet], dict[str, Any]], queue: str | None
) -> None:
    settings["kubernetes"] |= {"queue": queue, "deadline_seconds": 3600, "service_account": "gristmill"}
    manifest = render(Fleet(**settings))
    validator.validate(manifest)
    for name, template in _templates(manifest):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": template["spec"]}
        kubernetes_validate.validate(pod, VERSION, strict=True)


WRONG = {
    "field of the job": ("spec", "backoffLimit", "backofLimit"),
    "field of the cluster": ("spec.rayClusterSpec", "rayVersion", "version"),
    "field of the autoscaler": ("spec.rayClusterSpec.autoscalerOptions", "idleTimeoutSeconds", "idleSeconds"),
    "field of a group": ("spec.rayClusterSpec.workerGroupSpecs.0", "maxReplicas", "maximumReplicas"),
    "field of a pod": ("spec.rayClusterSpec.workerGroupSpecs.1.template.spec", "tolerations", "toleration"),
    "field of a container": ("spec.rayClusterSpec.headGroupSpec.template.spec.containers.0", "livenessProbe", "alive"),
}


@pytest.mark.parametrize(("path", "old", "new"), WRONG.values(), ids=WRONG)
def test_the_schema_refuses_a_wrong_name(
    settings: dict[str, Any], validator: Any, path: str, old: str, new: str
) -> None:
    manifest = copy.deepcopy(ray_job(Fleet(**settings)))
    part: Any = manifest
    for key in path.split("."):
        part = part[int(key) if key.isdigit() else key]
    part[new] = part.pop(old)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(manifest)


def test_a_fleet_with_a_recipe_is_a_job_and_without_one_a_cluster(settings: dict[str, Any]) -> None:
    job = kuberay(Fleet(**settings))
    assert job["kind"] == "RayJob"
    assert job["spec"]["entrypoint"] == "gristmill run /opt/gristmill/configs/distill.yaml out=s3://speech/out"
    assert (job["spec"]["backoffLimit"], job["spec"]["ttlSecondsAfterFinished"]) == (3, 600)
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert job["spec"]["suspend"] is False
    assert kuberay(Fleet(**settings | {"recipe": None}))["kind"] == "RayCluster"


@pytest.mark.parametrize("render", [ray_job, ray_cluster])
def test_with_a_queue_it_is_handed_in_suspended(settings: dict[str, Any], render: Any) -> None:
    settings["kubernetes"]["queue"] = "batch"
    manifest = render(Fleet(**settings))
    assert manifest["spec"]["suspend"] is True
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "batch"
    assert manifest["metadata"]["annotations"] == {"kueue.x-k8s.io/elastic-job": "true"}


def test_the_autoscaler_reads_the_groups_as_they_are_meant(settings: dict[str, Any]) -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    settings["cpu"] |= {"min": 2, "max": 5}
    read = _derive_autoscaling_config_from_ray_cr(ray_cluster(Fleet(**settings)))
    types = read["available_node_types"]
    assert {name: kind["resources"].get("GPU", 0) for name, kind in types.items()} == {
        "headgroup": 0,
        "cpu": 0,
        "gpu": 1,
        "spot": 1,
    }
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert (types["cpu"]["min_workers"], types["cpu"]["max_workers"]) == (2, 5)
    assert types["cpu"]["resources"]["memory"] == 64 << 30
    assert types["spot"]["priority"] > types["gpu"]["priority"]
    assert read["idle_timeout_minutes"] == 2


def test_every_pod_is_small_in_rights_and_watched(settings: dict[str, Any]) -> None:
    manifest = ray_job(Fleet(**settings))
    cluster = manifest["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["authOptions"] == {"mode": "token", "secretName": "gristmill-token"}
    for name, template in _templates(manifest):
        spec, container = template["spec"], template["spec"]["containers"][0]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {"livenessProbe", "readinessProbe"} <= container.keys()
        volumes = {volume["name"]: volume["emptyDir"] for volume in spec["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert volumes[mounts["/dev/shm"]]["medium"] == "Memory"
        variables = {entry["name"]: entry for entry in container["env"]}
        assert variables["RAY_AUTH_MODE"]["value"] == "token"
        assert variables["RAY_USAGE_STATS_ENABLED"]["value"] == "0"
        assert variables["GRISTMILL_PROCESSOR"]["value"] == "x86-64-v3"  # and what it means, before Ray loads numpy
        assert variables["OPENBLAS_CORETYPE"]["value"] == "Haswell"
        for secret in ("RAY_AUTH_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            assert "value" not in variables[secret]
            assert variables[secret]["valueFrom"]["secretKeyRef"]["name"]
        assert ("lifecycle" in container) is (name == "spot")


def test_a_reclaimed_machine_is_drained_by_a_command_that_ray_has(settings: dict[str, Any]) -> None:
    import shlex

    from ray.scripts.scripts import cli

    spot = dict(_templates(ray_job(Fleet(**settings))))["spot"]["spec"]
    shell = spot["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    words = shlex.split(shell.partition(" ||")[0])
    command = cli.commands[words[1]]
    context = command.make_context(words[1], words[2:])
    assert context.params["deadline_remaining_seconds"] < spot["terminationGracePeriodSeconds"]
