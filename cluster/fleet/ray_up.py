"""``ray up`` files for AWS and Google Cloud. Machines use their own identity; the token is in a file."""

from __future__ import annotations

import shlex
from typing import Any

from gristmill.cluster.fleet.settings import Aws, Fleet, Gcp, GcpMachine, quantity
from gristmill.shards.errors import UserError

Manifest = dict[str, Any]

_TOKEN = "~/.ray/auth_token"  # in the container: Ray's default
_HEAD = "head"


def ray_up(fleet: Fleet) -> Manifest:
    """Return the cluster file for the fleet's cloud.

    Raises:
        UserError: the fleet lacks the settings for that cloud.
    """
    cloud = fleet.cloud
    settings = fleet.aws if cloud == "aws" else fleet.gcp
    if settings is None:
        raise UserError(f"{cloud}: this setting is missing; cloud={cloud} expects the section {cloud!r}")
    groups = fleet.groups()
    for name in groups:
        if getattr(settings.machines, name) is None:
            raise UserError(f"{cloud}.machines.{name} is missing: there is a group {name!r}; expected its machine type")
    types = {_HEAD: _node_type(fleet, settings, _HEAD)}
    types |= {name: _node_type(fleet, settings, name) for name in groups}
    auth = {"ssh_user": settings.ssh_user}
    if settings.ssh_private_key is not None:
        auth["ssh_private_key"] = settings.ssh_private_key
    return {
        "cluster_name": fleet.name,
        "max_workers": sum(group.max for group in groups.values()),
        "upscaling_speed": 10.0,
        "idle_timeout_minutes": round(fleet.kubernetes.idle_seconds / 60, 2),
        "provider": _aws_provider(settings) if isinstance(settings, Aws) else _gcp_provider(settings),
        "auth": auth,
        "docker": {
            "image": fleet.images.cpu,
            "container_name": "gristmill",
            "pull_before_run": fleet.images.pull_policy == "Always",
            "run_options": ["--ulimit nofile=65536:65536", *_options(fleet)],
        },
        "head_node_type": _HEAD,
        "available_node_types": types,
        # Copied with its mode over SSH; its content is not in this file.
        "file_mounts": {_TOKEN: fleet.token.file},
        "setup_commands": [f"test -s {_TOKEN} || {{ echo 'no token in {_TOKEN}' >&2; exit 1; }}"],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        # Every machine belongs to the fleet alone, so it is safe to stop all of Ray.
        "head_start_ray_commands": [
            "ray stop",
            "ulimit -n 65536; ray start --head --port=6379 --num-cpus=0 --dashboard-host=127.0.0.1 "
            "--autoscaling-config=~/ray_bootstrap_config.yaml --disable-usage-stats",
        ],
        "worker_start_ray_commands": [
            "ray stop",
            "ulimit -n 65536; ray start --address=$RAY_HEAD_IP:6379 --disable-usage-stats",
        ],
    }


def _options(fleet: Fleet) -> list[str]:
    return [f"--env {shlex.quote(f'{name}={value}')}" for name, value in fleet.environment().items()]


def _node_type(fleet: Fleet, settings: Aws | Gcp, name: str) -> Manifest:
    spot = name == "spot"
    if isinstance(settings, Aws):
        config = _aws_machine(settings, getattr(settings.machines, name), spot)
    else:
        gpus = fleet.groups()[name].gpus if name != _HEAD else 0
        config = _gcp_machine(settings, getattr(settings.machines, name), gpus, spot)
    if name == _HEAD:
        return {"resources": {"CPU": 0}, "node_config": config, "min_workers": 0, "max_workers": 0}
    group = fleet.groups()[name]
    # The share that Ray reserves for tasks by default: the rest is for its object store and the system.
    resources = {"CPU": group.cpus, "memory": int(0.6 * quantity(group.memory))}
    if group.gpus:
        resources["GPU"] = group.gpus
    return {
        "resources": resources,
        "node_config": config,
        "min_workers": group.min,
        "max_workers": group.max,
        "priority": int(spot),  # if both fit, the cheaper machines first
        "docker": {"worker_image": fleet.image(name)},
    }


def _aws_provider(settings: Aws) -> Manifest:
    provider: Manifest = {"type": "aws", "region": settings.region, "cache_stopped_nodes": False}
    if settings.zones:
        provider["availability_zone"] = ",".join(settings.zones)
    return provider


def _aws_machine(settings: Aws, kind: str, spot: bool) -> Manifest:
    config: Manifest = {
        "InstanceType": kind,
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": settings.disk, "VolumeType": "gp3", "Encrypted": True}}
        ],
        # Two hops, so that the container reaches the metadata service; with tokens, so that no open proxy does.
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
    }
    if settings.image is not None:
        config["ImageId"] = settings.image
    if settings.security_groups:
        config["SecurityGroupIds"] = list(settings.security_groups)
    if settings.instance_profile is not None:
        config["IamInstanceProfile"] = {"Arn": settings.instance_profile}
    if spot:
        options: Manifest = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        if settings.spot_price is not None:
            options["MaxPrice"] = settings.spot_price
        config["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": options}
    return config


def _gcp_provider(settings: Gcp) -> Manifest:
    return {
        "type": "gcp",
        "region": settings.region,
        "availability_zone": settings.zone,
        "project_id": settings.project,
        "cache_stopped_nodes": False,
    }


def _gcp_machine(settings: Gcp, kind: GcpMachine, gpus: int, spot: bool) -> Manifest:
    image = settings.gpu_image if gpus and settings.gpu_image is not None else settings.image
    disk = {"diskSizeGb": settings.disk, "sourceImage": image}
    scheduling: Manifest = {}
    if gpus or spot:
        scheduling["onHostMaintenance"] = "TERMINATE"  # neither can be moved to another host
    if spot:
        scheduling |= {
            "provisioningModel": "SPOT",
            "instanceTerminationAction": "DELETE",
            "automaticRestart": False,
        }
    config: Manifest = {
        "machineType": kind.type,
        "disks": [{"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": disk}],
    }
    if scheduling:
        config["scheduling"] = scheduling
    if kind.accelerator is not None:
        config["guestAccelerators"] = [{"acceleratorType": kind.accelerator, "acceleratorCount": gpus}]
    if settings.service_account is not None:
        scopes = ["https://www.googleapis.com/auth/cloud-platform"]
        config["serviceAccounts"] = [{"email": settings.service_account, "scopes": scopes}]
    return config
