"""KubeRay manifests (``ray.io/v1``, operator 1.7 or newer): a ``RayJob`` for a recipe, else a ``RayCluster``."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from gristmill.cluster.fleet.settings import CHECKOUT, RAY_VERSION, SECRET_KEY, Fleet, Group, Machine

Manifest = dict[str, Any]

_AGENT, _DASHBOARD = 52365, 8265
_USER = 1000  # of cluster/Containerfile


def kuberay(fleet: Fleet) -> Manifest:
    """Return a ``RayJob`` for the fleet's recipe, or a ``RayCluster`` if it has none."""
    return ray_job(fleet) if fleet.recipe else ray_cluster(fleet)


def ray_cluster(fleet: Fleet) -> Manifest:
    """Return a cluster that waits for jobs."""
    spec = cluster_spec(fleet)
    if _suspended(fleet):
        spec["suspend"] = True
    return {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": _metadata(fleet), "spec": spec}


def ray_job(fleet: Fleet) -> Manifest:
    """Return a job with a cluster of its own, which ends with the job. A retry gets a new cluster and resumes."""
    here = fleet.kubernetes
    spec: Manifest = {
        "entrypoint": shlex.join(fleet.command(CHECKOUT)),
        "entrypointNumCpus": 0,  # the driver only handles receipts: it runs on the head
        "submissionMode": "K8sJobMode",
        "runtimeEnvYAML": yaml.safe_dump({"env_vars": {"PYTHONPATH": CHECKOUT}}),
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": here.keep_seconds,
        "backoffLimit": here.retries,
        "suspend": _suspended(fleet),
        "rayClusterSpec": cluster_spec(fleet),
    }
    if here.deadline_seconds is not None:
        spec["activeDeadlineSeconds"] = here.deadline_seconds
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": _metadata(fleet), "spec": spec}


def cluster_spec(fleet: Fleet) -> Manifest:
    """Return the cluster's spec: the head and the groups of workers."""
    return {
        "rayVersion": RAY_VERSION,
        # With it the operator, its autoscaler and the job's submitter use the token too.
        "authOptions": {"mode": "token", "secretName": fleet.token.secret},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": fleet.kubernetes.idle_seconds,
            "upscalingMode": "Default",
            "resources": {
                "requests": {"cpu": "500m", "memory": "1Gi"},
                "limits": {"cpu": "500m", "memory": "1Gi"},
            },
            "securityContext": _container_security(),
        },
        "headGroupSpec": {
            "serviceType": "ClusterIP",  # reachable only inside the cluster; from outside by `kubectl port-forward`
            "enableIngress": False,
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0", "disable-usage-stats": "true"},
            "template": _pod(fleet, "head", fleet.head),
        },
        "workerGroupSpecs": [_workers(fleet, name, group) for name, group in fleet.groups().items()],
    }


def _suspended(fleet: Fleet) -> bool:
    return fleet.kubernetes.suspend or fleet.kubernetes.queue is not None


def _metadata(fleet: Fleet) -> Manifest:
    here = fleet.kubernetes
    metadata: Manifest = {
        "name": fleet.name,
        "namespace": here.namespace,
        "labels": {"app.kubernetes.io/name": "gristmill", "app.kubernetes.io/instance": fleet.name},
    }
    if here.queue is not None:
        metadata["labels"]["kueue.x-k8s.io/queue-name"] = here.queue
        if here.elastic:
            metadata["annotations"] = {"kueue.x-k8s.io/elastic-job": "true"}
    return metadata


def _workers(fleet: Fleet, name: str, group: Group) -> Manifest:
    return {
        "groupName": name,
        "priority": int(name == "spot"),  # if both fit, the cheaper machines first
        "replicas": group.min,
        "minReplicas": group.min,
        "maxReplicas": group.max,
        "rayStartParams": {"disable-usage-stats": "true"},
        "template": _pod(fleet, name, group),
    }


def _pod(fleet: Fleet, name: str, machine: Machine) -> Manifest:
    here, head = fleet.kubernetes, name == "head"
    spec: Manifest = {
        "containers": [_container(fleet, name, machine)],
        "volumes": [
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": machine.shared_memory}},
            # With this name, the autoscaler's container writes its logs there too.
            {"name": "ray-logs", "emptyDir": {"sizeLimit": machine.scratch}},
        ],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if not head:
        spec["automountServiceAccountToken"] = False
        spec["terminationGracePeriodSeconds"] = here.drain_seconds + 5
        if here.service_account is not None:
            spec["serviceAccountName"] = here.service_account
    if here.priority_class is not None:
        spec["priorityClassName"] = here.priority_class
    if fleet.images.pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in fleet.images.pull_secrets]
    if machine.node_selector:
        spec["nodeSelector"] = dict(machine.node_selector)
    if machine.tolerations:
        spec["tolerations"] = [toleration.model_dump(exclude_none=True) for toleration in machine.tolerations]
    return {"metadata": {"labels": {"gristmill/group": name}}, "spec": spec}


def _container(fleet: Fleet, name: str, machine: Machine) -> Manifest:
    head = name == "head"
    resources: Manifest = {"cpu": str(machine.cpus), "memory": machine.memory}
    if isinstance(machine, Group) and machine.gpus:
        resources["nvidia.com/gpu"] = str(machine.gpus)
    container: Manifest = {
        "name": "ray-head" if head else "ray-worker",
        "image": fleet.image(name),
        "imagePullPolicy": fleet.images.pull_policy,
        "env": _environment(fleet),
        # Requests equal limits, so that a pod is never evicted for its neighbours' usage.
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "securityContext": _container_security(),
        "volumeMounts": [
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            {"name": "ray-logs", "mountPath": "/tmp/ray"},
        ],
        # Ray answers these paths without the token. The operator's own probes need wget in the image.
        "livenessProbe": _probe(_AGENT, "/api/local_raylet_healthz", delay=30, failures=12),
        "readinessProbe": (
            _probe(_DASHBOARD, "/api/gcs_healthz", delay=10, failures=6)
            if head
            else _probe(_AGENT, "/api/local_raylet_healthz", delay=10, failures=6)
        ),
    }
    if head:
        container["ports"] = [
            {"name": "gcs-server", "containerPort": 6379},
            {"name": "dashboard", "containerPort": _DASHBOARD},
            {"name": "client", "containerPort": 10001},
            {"name": "metrics", "containerPort": 8080},
        ]
    else:
        container["ports"] = [{"name": "metrics", "containerPort": 8080}]
    if name == "spot":
        container["lifecycle"] = {"preStop": {"exec": {"command": ["/bin/sh", "-c", _drain(fleet)]}}}
    return container


def _environment(fleet: Fleet) -> list[Manifest]:
    plain = fleet.environment() | {"PYTHONPATH": CHECKOUT}
    entries: list[Manifest] = [{"name": name, "value": value} for name, value in plain.items()]
    entries.append(_secret("RAY_AUTH_TOKEN", fleet.token.secret, SECRET_KEY))
    if fleet.storage.secret is not None:
        entries.append(_secret("AWS_ACCESS_KEY_ID", fleet.storage.secret, fleet.storage.access_key))
        entries.append(_secret("AWS_SECRET_ACCESS_KEY", fleet.storage.secret, fleet.storage.secret_key))
    return entries


def _secret(variable: str, secret: str, key: str) -> Manifest:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _container_security() -> Manifest:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _probe(port: int, path: str, delay: int, failures: int) -> Manifest:
    return {
        "httpGet": {"port": port, "path": path},
        "initialDelaySeconds": delay,
        "periodSeconds": 10,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _drain(fleet: Fleet) -> str:
    """Return the command that a reclaimed machine runs first: it takes no new work and continues its own."""
    seconds = fleet.kubernetes.drain_seconds
    return (
        "ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message 'the machine is reclaimed' "
        f"--deadline-remaining-seconds {seconds} || true; sleep {seconds}"
    )
