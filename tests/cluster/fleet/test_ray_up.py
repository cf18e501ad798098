"""``ray up`` files against Ray's schema and against the interfaces of the clouds themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gristmill.cluster.fleet.ray_up import ray_up
from gristmill.cluster.fleet.settings import Fleet
from gristmill.shards.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def settings() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "configs" / "fleet.yaml").read_text())


def _schema() -> dict[str, Any]:
    import ray.autoscaler

    return json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_ray_takes_the_file(settings: dict[str, Any], cloud: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    manifest = ray_up(Fleet(**settings | {"cloud": cloud}))
    jsonschema.validate(manifest, _schema())
    prepared = prepare_config(json.loads(json.dumps(manifest)))
    validate_config(prepared)
    assert prepared["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert prepared["available_node_types"]["spot"]["max_workers"] == 16
    assert prepared["max_workers"] == 34
    assert not any("0.0.0.0" in command for command in prepared["head_start_ray_commands"])


@pytest.mark.parametrize(("old", "new"), [("max_workers", "maximum_workers"), ("docker", "container")])
def test_the_schema_refuses_a_wrong_name(settings: dict[str, Any], old: str, new: str) -> None:
    manifest = ray_up(Fleet(**settings))
    manifest[new] = manifest.pop(old)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, _schema())


def _aws_problems(machine: dict[str, Any]) -> str:
    import botocore.session
    from botocore.validate import ParamValidator

    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    return ParamValidator().validate(machine | {"MinCount": 1, "MaxCount": 1}, shape).generate_report()


def test_aws_knows_every_field_of_its_machines(settings: dict[str, Any]) -> None:
    settings["aws"] |= {"instance_profile": "arn:aws:iam::1:instance-profile/x", "spot_price": "1.20", "image": "ami-1"}
    settings["aws"]["security_groups"] = ["sg-1"]
    types = ray_up(Fleet(**settings))["available_node_types"]
    for kind in types.values():
        assert _aws_problems(kind["node_config"]) == ""
    assert types["spot"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert "InstanceMarketOptions" not in types["gpu"]["node_config"]
    assert "Unknown parameter" in _aws_problems(types["spot"]["node_config"] | {"MarketOptions": {}})


def _gcp_problems(machine: dict[str, Any], name: str = "Instance") -> list[str]:
    """Check fields and their choices against Compute Engine's discovery document, as the client package has it."""
    import googleapiclient.discovery_cache.documents as documents

    document = json.loads((Path(documents.__path__[0]) / "compute.v1.json").read_text())
    schemas = document["schemas"]

    def check(value: Any, schema: dict[str, Any], path: str) -> list[str]:
        schema = schemas[schema["$ref"]] if "$ref" in schema else schema
        if isinstance(value, dict):
            fields = schema.get("properties", {})
            unknown = [f"{path}.{key} is unknown" for key in value if key not in fields]
            return unknown + [p for k, v in value.items() if k in fields for p in check(v, fields[k], f"{path}.{k}")]
        if isinstance(value, list):
            if schema.get("type") != "array":
                return [f"{path} is no list"]
            return [problem for item in value for problem in check(item, schema["items"], path)]
        if value not in schema.get("enum", [value]):
            return [f"{path}: {value} is no choice"]
        return []

    return check(machine, {"$ref": name}, name)


def test_google_cloud_knows_every_field_of_its_machines(settings: dict[str, Any]) -> None:
    settings["gcp"]["machines"]["gpu"]["accelerator"] = "nvidia-l4"
    settings["gcp"]["service_account"] = "gristmill@my-project.iam.gserviceaccount.com"
    types = ray_up(Fleet(**settings | {"cloud": "gcp"}))["available_node_types"]
    for kind in types.values():
        assert _gcp_problems(kind["node_config"]) == []
    assert types["spot"]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert "provisioningModel" not in types["gpu"]["node_config"]["scheduling"]
    wrong = types["spot"]["node_config"] | {"scheduling": {"provisionModel": "SPOT"}}
    assert _gcp_problems(wrong) == ["Instance.scheduling.provisionModel is unknown"]


def test_the_token_is_a_file_and_no_part_of_the_manifest(settings: dict[str, Any]) -> None:
    settings["token"]["file"] = "/run/secrets/ray"
    manifest = ray_up(Fleet(**settings))
    assert manifest["file_mounts"] == {"~/.ray/auth_token": "/run/secrets/ray"}
    assert "--env RAY_AUTH_MODE=token" in manifest["docker"]["run_options"]
    assert "RAY_AUTH_TOKEN" not in json.dumps(manifest)


def test_missing_settings_of_a_cloud_are_reported(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="cloud=gcp expects the section 'gcp'"):
        ray_up(Fleet(**settings | {"cloud": "gcp", "gcp": None}))
    del settings["aws"]["machines"]["spot"]
    with pytest.raises(UserError, match=r"aws\.machines\.spot is missing"):
        ray_up(Fleet(**settings))
