"""A fleet: the machines of a cluster, from which all manifests are rendered. It names secrets but never holds them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from gristmill.cluster.session import HEALTH, WORKER
from gristmill.shards.processor import DEFAULT, Level, variables

Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$")]
Quantity = Annotated[str, Field(pattern=r"^[1-9][0-9]*[kMGT]i?$", description="bytes as Kubernetes writes them")]
Text = Annotated[str, Field(min_length=1)]
RAY_VERSION = "2.60.0"
CHECKOUT = "/opt/gristmill"  # where cluster/Containerfile puts the project
SECRET_KEY = "auth_token"  # the key that the KubeRay operator reads in the token's secret
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",  # no telemetry
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    **WORKER,
    **HEALTH,
}


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Images(_Settings):
    """The container images, both made from ``cluster/Containerfile``."""

    cpu: Text
    gpu: Text
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pull_secrets: list[Text] = []


class Toleration(_Settings):
    """A taint that a group tolerates."""

    key: Text
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Machine(_Settings):
    """One machine of a group: its resources and the nodes it may run on."""

    cpus: PositiveInt
    memory: Quantity
    shared_memory: Quantity = "2Gi"  # /dev/shm, where Ray keeps blocks; counts as memory
    scratch: Quantity = "20Gi"  # /tmp/ray: logs and spilled blocks
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []

    @model_validator(mode="after")
    def _fits(self) -> Machine:
        if quantity(self.shared_memory) >= quantity(self.memory):
            raise ValueError(f"shared_memory={self.shared_memory} must be less than memory={self.memory}")
        return self


class Group(Machine):
    """Machines of one kind; the autoscaler keeps their number between ``min`` and ``max``."""

    min: NonNegativeInt = 0
    max: PositiveInt
    gpus: NonNegativeInt = 0

    @model_validator(mode="after")
    def _ordered(self) -> Group:
        if self.min > self.max:
            raise ValueError(f"min={self.min} is more than max={self.max}")
        return self


class Token(_Settings):
    """The place of Ray's token: a Kubernetes secret with the key ``auth_token``, or else a file of mode 0600."""

    secret: Name = "gristmill-token"
    file: Text = "~/.ray/auth_token"


class Storage(_Settings):
    """Access to the object store; without a secret, by the identity of the machine or service account."""

    secret: Name | None = None
    access_key: Text = "AWS_ACCESS_KEY_ID"  # keys in the secret
    secret_key: Text = "AWS_SECRET_ACCESS_KEY"
    credentials_file: Text | None = None  # for Slurm: an AWS credentials file of mode 0600 on a shared disk
    endpoint: Text | None = None
    region: Text | None = None

    def environment(self) -> dict[str, str]:
        """Return the environment variables that are not secret."""
        given = {"AWS_ENDPOINT_URL": self.endpoint, "AWS_DEFAULT_REGION": self.region}
        return {name: value for name, value in given.items() if value}


class Kubernetes(_Settings):
    """Settings of the KubeRay manifests only."""

    namespace: Name = "default"
    service_account: Name | None = None  # of the workers
    queue: Name | None = None  # Kueue's local queue: the job is submitted suspended, and Kueue starts it
    elastic: bool = True  # Kueue counts machines as they come and go
    suspend: bool = False
    retries: NonNegativeInt = 3
    keep_seconds: NonNegativeInt = 600
    deadline_seconds: PositiveInt | None = None
    idle_seconds: PositiveInt = 120
    drain_seconds: PositiveInt = 20  # a reclaimed GKE machine gives its pods 25 s, an AWS one 120 s
    priority_class: Text | None = None


class AwsMachines(_Settings):
    """EC2 instance types."""

    head: Text
    cpu: Text
    gpu: Text | None = None
    spot: Text | None = None


class Aws(_Settings):
    """Settings of ``ray up`` on AWS only."""

    region: Text
    zones: list[Text] = []
    machines: AwsMachines
    image: Text | None = None  # AMI with Docker and NVIDIA's runtime; else Ray's choice for the region
    disk: PositiveInt = 200  # GB
    instance_profile: Text | None = None  # ARN: the machines' permissions, including storage
    security_groups: list[Text] = []  # ids; otherwise Ray creates one that opens port 22 to everyone
    spot_price: Text | None = None  # maximum per hour; otherwise the on-demand price
    ssh_user: Text = "ubuntu"
    ssh_private_key: Text | None = None  # path


class GcpMachine(_Settings):
    """A Compute Engine machine type, with an accelerator if the type does not include one."""

    type: Text
    accelerator: Text | None = None


class GcpMachines(_Settings):
    """Compute Engine machine types."""

    head: GcpMachine
    cpu: GcpMachine
    gpu: GcpMachine | None = None
    spot: GcpMachine | None = None


class Gcp(_Settings):
    """Settings of ``ray up`` on Google Cloud only."""

    project: Text
    region: Text
    zone: Text
    machines: GcpMachines
    image: Text
    gpu_image: Text | None = None
    disk: PositiveInt = 200  # GB
    service_account: Text | None = None
    ssh_user: Text = "ubuntu"
    ssh_private_key: Text | None = None  # path


class Slurm(_Settings):
    """Settings of the Slurm script only."""

    nodes: PositiveInt = 2
    cpus: PositiveInt = 16
    gpus: NonNegativeInt = 0
    memory: Quantity = "64G"
    time: Annotated[str, Field(pattern=r"^([0-9]+-)?[0-9]{1,2}:[0-9]{2}:[0-9]{2}$")] = "1-00:00:00"
    checkout: Text = "~/gristmill"  # on a disk that all nodes see
    venv: Text | None = "~/gristmill/.venv"
    partition: Text | None = None
    account: Text | None = None
    qos: Text | None = None
    constraint: Text | None = None
    drain_seconds: PositiveInt = 120  # before the time limit, for the job to end and be requeued


class Fleet(_Settings):
    """A whole fleet, as ``gristmill manifest`` renders it."""

    name: Name = "gristmill"
    processor: Level = DEFAULT  # the instruction set that all machines share and compute with
    images: Images
    head: Machine
    cpu: Group
    gpu: Group | None = None
    spot: Group | None = None
    recipe: Text | None = None  # without one: a cluster that waits for jobs
    overrides: list[Annotated[str, Field(pattern=r"^[^=]+=")]] = []
    token: Token = Token()
    storage: Storage = Storage()
    kubernetes: Kubernetes = Kubernetes()
    cloud: Literal["aws", "gcp"] = "aws"  # of `ray up`
    aws: Aws | None = None
    gcp: Gcp | None = None
    slurm: Slurm = Slurm()

    @model_validator(mode="after")
    def _gpus(self) -> Fleet:
        for place, group in (("gpu", self.gpu), ("spot", self.spot)):
            if group is not None and not group.gpus:
                raise ValueError(f"{place}.gpus is 0; expected 1 or more, or no group {place!r}")
        if self.cpu.gpus:
            raise ValueError("cpu.gpus is not 0; machines with GPUs belong to the groups 'gpu' and 'spot'")
        return self

    def environment(self) -> dict[str, str]:
        """Return the environment of all machines, without secrets."""
        return ENVIRONMENT | variables(self.processor) | self.storage.environment()

    def groups(self) -> dict[str, Group]:
        """Return the fleet's groups of workers, by name."""
        named = {"cpu": self.cpu, "gpu": self.gpu, "spot": self.spot}
        return {name: group for name, group in named.items() if group is not None}

    def image(self, group: str) -> str:
        """Return the image of the head or of a group."""
        return self.images.gpu if group in ("gpu", "spot") else self.images.cpu

    def command(self, checkout: str = "") -> list[str]:
        """Return the recipe's command line; a relative recipe is resolved in the checkout."""
        recipe = self.recipe or ""
        if checkout and "://" not in recipe and not recipe.startswith("/"):
            recipe = f"{checkout}/{recipe}"
        return ["gristmill", "run", recipe, *self.overrides]


def quantity(text: str) -> int:
    """Return the bytes of a quantity such as ``64Gi`` or ``200G``."""
    unit = text.lstrip("0123456789")
    base, power = (1024 if unit.endswith("i") else 1000), "kMGT".index(unit[0]) + 1
    return int(text.removesuffix(unit)) * base**power
